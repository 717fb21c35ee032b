"""A reward model that reads pictures: trained by Bradley-Terry, saved, loaded by others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.policies.vision_language.conftest import asks, llava, picture
from transformers import AutoModel

from rewardkit.data.rows import attach, comparison_rows
from rewardkit.objectives.reward import bradley_terry
from rewardkit.rewards.learned.vision import SCORE_FILE, VisionScalarReward
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import ERROR, OK, Judgement, Sample


@pytest.fixture(scope="module")
def reward() -> VisionScalarReward:
    """Two pictures with opposite preferences between the same answers, so that only a reader of both can tell."""
    reward = VisionScalarReward.from_policy(llava(keep_start=False), seed=0)
    dark, light = asks(0.2 * picture(0)), asks(1 - 0.2 * picture(1))
    pairs = [(Sample(dark, "A cat."), Sample(dark, "A dog.")), (Sample(light, "A dog."), Sample(light, "A cat."))]
    rows = comparison_rows([Judgement(p, rank=(0, 1)) for p in pairs])
    data = attach(reward.encode(rows.samples), rows)
    learner = Learner(reward, lr=3e-3)
    found = [learner.step(Term(data, bradley_terry)) for _ in range(60)]
    assert found[-1]["bradley_terry/accuracy"] == 1.0
    assert found[-1]["loss"] < 0.5 * found[0]["loss"]
    return reward


def test_scores_depend_on_the_picture_and_not_on_the_neighbours(reward: VisionScalarReward) -> None:
    rows = [
        Sample(asks(0.2 * picture(0)), "A cat."),
        Sample(asks(1 - 0.2 * picture(1)), "A cat."),
        Sample("Say:", " yes."),
    ]
    together = reward.score(rows).outcome
    assert together is not None
    assert together[0] > together[1] + 0.5
    alone = torch.cat([reward.score([s]).outcome for s in rows])  # type: ignore[misc]
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-3)


def test_it_is_saved_so_that_others_read_the_same_scores(reward: VisionScalarReward, tmp_path: Path) -> None:
    sample = Sample(asks(picture(3)), "A cat.")
    reward.save(tmp_path)
    want = reward.score([sample]).outcome
    torch.testing.assert_close(VisionScalarReward.load(tmp_path).score([sample]).outcome, want)
    trunk, head = AutoModel.from_pretrained(tmp_path), load_file(tmp_path / SCORE_FILE)["weight"]
    ids = torch.tensor([reward.renderer.ids(sample)])
    with torch.no_grad():
        state = trunk(input_ids=ids, **reward.renderer.codec.media(sample.prompt)).last_hidden_state[:, -1]  # type: ignore[attr-defined]
    torch.testing.assert_close(state @ head.T, want[:, None], atol=1e-4, rtol=1e-3)  # type: ignore[index]
    with pytest.raises(FileNotFoundError, match=SCORE_FILE):
        VisionScalarReward.load(tmp_path / "none")


def test_a_new_head_on_a_saved_model(tmp_path: Path) -> None:
    policy = llava(keep_start=False)
    policy.save(tmp_path)
    sample = Sample(asks(picture(3)), "A cat.")
    one = VisionScalarReward.from_policy(policy, seed=1).score([sample]).outcome
    two = VisionScalarReward.from_backbone(tmp_path, seed=1).score([sample]).outcome
    torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)


def test_a_row_that_is_too_long_is_the_graders_failure(reward: VisionScalarReward) -> None:
    found = reward.score([Sample(asks(picture(0), "x" * 400), "A cat."), Sample(asks(picture(0)), "A cat.")])
    assert found.status.tolist() == [ERROR, OK]
    assert found.why is not None
    assert "exceed" in str(found.why[0])
