"""Parity with TRL 1.16 on its own trainers' loss: the reward trainer and the SFT trainer. Relative 1e-5."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rewardkit.objectives.base import mean
from rewardkit.objectives.imitation import sft
from rewardkit.objectives.reward import bradley_terry

IDS = torch.tensor([[3, 4, 5, 6, 1], [7, 8, 9, 1, 0], [3, 4, 10, 1, 0], [7, 8, 11, 12, 1]])


@pytest.mark.parametrize("center", [None, 0.05])
@pytest.mark.parametrize("margin", [None, [0.5, 2.0]])
def test_reward_trainer(
    tiny: Any, tiny_scorer: Any, assert_parity: Any, center: float | None, margin: list[float] | None
) -> None:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    trainer = RewardTrainer(
        model=tiny_scorer,
        args=RewardConfig(center_rewards_coefficient=center, **tiny.arguments),
        train_dataset=Dataset.from_dict({"chosen": ["w1 w2", "w3"], "rejected": ["w1 w4", "w5"]}),
        processing_class=tiny.tokenizer,
    )
    batch: dict[str, Any] = {"input_ids": IDS, "attention_mask": (IDS != 0).long()}
    if margin is not None:
        batch["margin"] = torch.tensor(margin)
    scores = trainer.model(input_ids=IDS, attention_mask=(IDS != 0).long()).logits.squeeze(-1)
    pairs = torch.tensor([[0, 2], [1, 3]])
    loss = bradley_terry(
        scores, pairs, margin=0.0 if margin is None else torch.tensor(margin), center=0.0 if center is None else center
    )
    ours = mean(loss, torch.ones(4, 1), bradley_terry, pairs=pairs)
    assert_parity(trainer.model, ours, trainer.compute_loss(trainer.model, dict(batch)))
    metrics = trainer._metrics["train" if trainer.model.training else "eval"]
    assert loss.metrics["accuracy"].mean().item() == pytest.approx(metrics["accuracy"][-1])
    assert loss.metrics["margin"].mean().item() == pytest.approx(metrics["margin"][-1], rel=1e-5)


@pytest.mark.parametrize("given", [None, 17])
def test_sft_trainer(tiny: Any, token_logps: Any, assert_parity: Any, given: int | None) -> None:
    """By the tokens of this batch, and by a count over several micro-batches."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        model=tiny.model,
        args=SFTConfig(**tiny.arguments),
        train_dataset=Dataset.from_dict({"text": ["w1 w2 w3", "w3 w4"]}),
        processing_class=tiny.tokenizer,
    )
    attention = (IDS != 0).long()
    trained = attention.clone()
    trained[:, :2] = 0
    labels = IDS.masked_fill(trained == 0, -100)
    batch = {"input_ids": IDS, "attention_mask": attention, "labels": labels}
    expected = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=given)
    mask = trained[:, 1:].float()
    loss = sft(token_logps(trainer.model, IDS, attention))
    total = mean(loss, mask, sft) if given is None else (loss.value * mask).sum() / given
    assert_parity(trainer.model, total, expected)
