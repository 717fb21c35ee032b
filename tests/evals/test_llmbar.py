"""LLMBar."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rewardkit.evals.llmbar import SUBSETS, llmbar, subset_of
from rewardkit.rewards.load import load_reward

LONGER = load_reward({"name": "rewards.rules:length"})
ROWS = [
    {"input": "a", "output_1": "long reply", "output_2": "short", "label": 1},
    {"input": "b", "output_1": "long reply", "output_2": "short", "label": 2},
    {"input": "c", "output_1": "short", "output_2": "long reply", "label": 2},
    {"input": "d", "output_1": "equal", "output_2": "equal", "label": 2},
]


def test_the_works_own_folders_and_flat_files_are_both_found(tmp_path: Path) -> None:
    own = tmp_path / "LLMBar" / "Natural"
    own.mkdir(parents=True)
    (own / "dataset.json").write_text(json.dumps(ROWS))
    with gzip.open(tmp_path / "casestudy_normal.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "judge_outputs.jsonl").write_text("not even JSON")
    found = llmbar(LONGER, tmp_path)
    assert list(found) == ["natural", "casestudy_normal"]
    assert all(m.value == pytest.approx(2.5 / 4) for m in found.values())


@pytest.mark.parametrize(
    ("path", "subset"),
    [
        ("LLMBar/Adversarial/Neighbor/dataset", "adversarial_neighbor"),
        ("Processed/LLMEval^2/dataset", "processed_llmeval2"),
        ("Processed/MT-Bench/dataset", "processed_mtbench"),
        ("CaseStudy/Base_10/dataset", "casestudy_base_10"),
        ("adversarial_neighbor", "adversarial_neighbor"),
        ("CaseStudy/Base_10/evaluators/GPT-4/result", None),
    ],
)
def test_subsets_by_path(path: str, subset: str | None) -> None:
    assert subset_of(path) == subset
    assert subset is None or subset in SUBSETS


def test_bad_rows_name_file_line_and_field(tmp_path: Path) -> None:
    (tmp_path / "natural.jsonl").write_text(json.dumps(ROWS[0] | {"label": 3}))
    with pytest.raises(ValueError, match=r"natural.jsonl:1: field 'label': must be 1 or 2, not 3"):
        llmbar(LONGER, tmp_path)
    (tmp_path / "natural.jsonl").write_text(json.dumps({"input": "a"}))
    with pytest.raises(ValueError, match=r":1: field 'output_1'"):
        llmbar(LONGER, tmp_path)


def test_two_files_of_one_subset_are_refused_with_both_names(tmp_path: Path) -> None:
    for name in ("natural.jsonl", "natural.json"):
        (tmp_path / name).write_text(json.dumps(ROWS[0]))
    with pytest.raises(ValueError, match=r"natural\.json and .*natural\.jsonl both hold natural of LLMBar"):
        llmbar(LONGER, tmp_path)


def test_a_byte_order_mark_does_not_matter_and_gzip_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    lines = b"\xef\xbb\xbf" + "\n".join(map(json.dumps, ROWS)).encode()
    (tmp_path / "natural.jsonl").write_bytes(lines)
    (tmp_path / "casestudy_normal.json").write_bytes(gzip.compress(lines))
    assert {m.n for m in llmbar(LONGER, tmp_path).values()} == {4}


def test_a_folder_without_subsets_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no subset of LLMBar"):
        llmbar(LONGER, tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        llmbar(LONGER, tmp_path / "absent")


@pytest.mark.data
def test_the_extract_has_its_known_sizes(shared_data: Path) -> None:
    found = llmbar(LONGER, shared_data / "llmbar")
    assert {name: m.n for name, m in found.items()} == {
        "natural": 97, "adversarial_neighbor": 114, "casestudy_negation": 59, "casestudy_normal": 59,
        "processed_faireval": 66, "processed_mtbench": 200,
    }  # fmt: skip
