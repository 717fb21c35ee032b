"""Parity with TRL 1.16 on its own trainers' loss: GRPO and its relatives, GSPO, RLOO. Relative 1e-5."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from rewardkit.objectives.base import Reduce, mean
from rewardkit.objectives.policy import clipped, entropy_bonus, kl

MAX_LENGTH = 6


def rollout() -> dict[str, Tensor]:
    """Two prompts, two completions each, of 4, 2, 1 and 3 tokens; prompts padded left, completions right."""
    prompt = torch.tensor([[0, 3, 4], [0, 3, 4], [5, 6, 7], [5, 6, 7]])
    completion = torch.tensor([[8, 9, 10, 1], [11, 1, 0, 0], [1, 0, 0, 0], [12, 13, 1, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]])
    return {
        "prompt_ids": prompt,
        "prompt_mask": (prompt != 0).long(),
        "completion_ids": completion,
        "completion_mask": mask,
        "advantages": torch.tensor([1.2, -0.7, -1.5, 0.4]),
        "num_items_in_batch": mask.sum(),
    }


def perturbed(logps: Tensor, scale: float, seed: int) -> Tensor:
    """Log-probs of a policy some way off, so that ratios fall on both sides of the clip."""
    rng = torch.Generator().manual_seed(seed)
    return logps.detach() + scale * torch.randn(logps.shape, generator=rng)


def completion_logps(model: Any, batch: dict[str, Tensor], token_logps: Any) -> Tensor:
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    return token_logps(model, ids, attention)[:, -batch["completion_ids"].shape[1] :]


def grpo_trainer(tiny: Any, **options: Any) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    args = GRPOConfig(num_generations=2, max_completion_length=MAX_LENGTH, beta=0.0, **options, **tiny.arguments)
    return GRPOTrainer(
        model=tiny.model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=args,
        train_dataset=Dataset.from_dict({"prompt": ["w1 w2", "w3"]}),
        processing_class=tiny.tokenizer,
    )


@pytest.mark.parametrize(
    ("options", "reduce", "ours"),
    [
        ({"loss_type": "grpo"}, "sequences", {}),
        ({"loss_type": "bnpo"}, "tokens", {}),
        ({"loss_type": "dapo", "epsilon_high": 0.28}, "tokens", {"high": 0.28}),
        ({"loss_type": "dr_grpo"}, "constant", {}),
        ({"loss_type": "bnpo", "delta": 1.6}, "tokens", {"dual": 1.6}),
        ({"loss_type": "grpo", "importance_sampling_level": "sequence"}, "sequences", {"level": "sequence"}),
    ],
    ids=["grpo", "bnpo", "dapo", "dr_grpo", "two-sided", "gspo"],
)
@pytest.mark.parametrize(("beta", "corrected"), [(0.0, True), (0.3, False), (0.3, True)])
def test_grpo_trainer(
    tiny: Any,
    token_logps: Any,
    assert_parity: Any,
    options: dict[str, Any],
    reduce: Reduce,
    ours: dict[str, Any],
    beta: float,
    corrected: bool,
) -> None:
    trainer = grpo_trainer(tiny, use_bias_correction_kl=corrected, **options)
    trainer.beta = beta  # given to the constructor, it would load a reference by the name of the model
    trainer.model.eval()
    batch = rollout()
    logps = completion_logps(trainer.model, batch, token_logps)
    old, ref = perturbed(logps, 0.4, 1), perturbed(logps, 0.4, 2)
    expected = trainer._compute_loss(trainer.model, {**batch, "old_per_token_logps": old, "ref_per_token_logps": ref})

    mask = batch["completion_mask"].float()
    advantages = batch["advantages"][:, None].expand_as(mask)
    objective = partial(clipped, **ours)
    loss = objective(logps, old, advantages, mask)
    assert bool((loss.metrics["clip_low"] + loss.metrics["clip_high"] > 0).any()), "nothing is clipped: weak test"
    total = mean(loss, mask, objective, reduce, length=MAX_LENGTH)
    if beta:
        divergence = kl(logps, ref, mask, old, corrected=ours.get("level", "token") if corrected else None)
        total = total + beta * mean(divergence, mask, kl, reduce, length=MAX_LENGTH)
    assert_parity(trainer.model, total, expected)


def test_grpo_trainer_entropy_bonus(tiny: Any, token_logps: Any, assert_parity: Any) -> None:
    """R57: TRL subtracts coef times the mean entropy a token, whatever the reduction of the policy term."""
    trainer = grpo_trainer(tiny, loss_type="grpo", entropy_coef=0.2)
    trainer.model.eval()
    batch = rollout()
    logps = completion_logps(trainer.model, batch, token_logps)
    old = perturbed(logps, 0.4, 1)
    expected = trainer._compute_loss(trainer.model, {**batch, "old_per_token_logps": old})
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    p = trainer.model(input_ids=ids, attention_mask=attention).logits[:, -5:-1].log_softmax(-1)
    entropy = -(p.exp() * p).sum(-1)
    mask = batch["completion_mask"].float()
    loss = clipped(logps, old, batch["advantages"][:, None].expand_as(mask), mask)
    total = mean(loss, mask, clipped, "sequences") + 0.2 * mean(entropy_bonus(entropy), mask, entropy_bonus)
    assert_parity(trainer.model, total, expected)


def test_rloo_trainer(tiny: Any, token_logps: Any, assert_parity: Any) -> None:
    """Its ratio is that of whole rows, the product over tokens."""
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    trainer = RLOOTrainer(
        model=tiny.model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=RLOOConfig(num_generations=2, max_completion_length=MAX_LENGTH, beta=0.0, **tiny.arguments),
        train_dataset=Dataset.from_dict({"prompt": ["w1 w2", "w3"]}),
        processing_class=tiny.tokenizer,
    )
    trainer.model.eval()
    batch = rollout()
    logps = completion_logps(trainer.model, batch, token_logps)
    old, mask = perturbed(logps, 0.15, 4), batch["completion_mask"].float()
    expected = trainer._compute_loss(trainer.model, {**batch, "old_logps": (old * mask).sum(-1)})
    objective = partial(clipped, level="product")
    loss = objective(logps, old, batch["advantages"][:, None].expand_as(mask), mask)
    clips = (loss.metrics["clip_low"] + loss.metrics["clip_high"])[:, 0]
    assert 0 < clips.sum() < 4, "all rows or none are clipped: weak test"
    assert_parity(trainer.model, mean(loss, mask, objective, "sequences"), expected)
