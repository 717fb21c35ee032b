"""RM-Bench."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rewardkit.evals.rm_bench import matrix_of, rm_bench
from rewardkit.rewards.load import load_reward

LONGER = load_reward({"name": "rewards.rules:length"})


def published(chosen: np.ndarray, rejected: np.ndarray) -> dict[str, float]:
    """The rule of the work's README, written out."""
    wins = np.mean([[[c > r for r in rs] for c in cs] for cs, rs in zip(chosen, rejected, strict=True)], axis=0)
    return {
        "hard": np.triu(wins, 1).sum() / 3,
        "normal": np.diag(wins).mean(),
        "easy": np.tril(wins, -1).sum() / 3,
    }


def test_the_matrix_is_the_works_own() -> None:
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(size=(40, 3)) + 0.3, rng.normal(size=(40, 3))
    found = matrix_of(torch.tensor(chosen), torch.tensor(rejected))
    for level, value in published(chosen, rejected).items():
        measure = getattr(found, level)
        assert measure.value == pytest.approx(value)
        assert measure.ci is not None
        assert measure.ci[0] <= value <= measure.ci[1]


def test_equal_scores_are_no_win_and_are_counted() -> None:
    found = matrix_of(torch.zeros(2, 3), torch.zeros(2, 3))
    assert (found.easy.value, found.hard.value, found.ties) == (0.0, 0.0, 18)


def test_a_reward_that_likes_length_is_easy_and_not_hard(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": ["a", "a" * 9, "a" * 30], "rejected": ["b" * 2, "b" * 8, "b" * 31]}] * 3
    (tmp_path / "math_filtered.json").write_text(json.dumps(rows))
    (tmp_path / "total_dataset.json").write_text(json.dumps(rows))
    found = rm_bench(LONGER, tmp_path)
    assert list(found) == ["math"]
    assert (found["math"].easy.value, found["math"].hard.value) == (1.0, 0.0)
    assert found["math"].normal.value == pytest.approx(1 / 3)


def test_bad_rows_name_file_line_and_field(tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").write_text(json.dumps({"prompt": "p", "chosen": ["a", "b"], "rejected": ["c"] * 3}))
    with pytest.raises(ValueError, match=r"chat.jsonl:1: field 'chosen'"):
        rm_bench(LONGER, tmp_path)
    with pytest.raises(ValueError, match="no subset of RM-Bench"):
        rm_bench(LONGER, Path(__file__).parent)


@pytest.mark.data
def test_the_extract_has_its_known_sizes(shared_data: Path) -> None:
    found = rm_bench(LONGER, shared_data / "rm_bench")
    assert {name: m.easy.n for name, m in found.items()} == {"chat": 129, "safety_response": 157}
