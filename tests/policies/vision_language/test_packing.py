"""Answers to one prompt with pictures share it: the pictures are read once, and nothing changes."""

from __future__ import annotations

from typing import Any

import torch
from tests.policies.vision_language.conftest import asks, picture

from rewardkit.policies.vision_language import VisionLanguagePolicy
from rewardkit.rewards.learned.vision import VisionScalarReward
from rewardkit.types import Rollout, Sample


def says(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


def samples() -> list[Sample]:
    """Two answers about one picture, two about two others, one of text, one picture under another question."""
    one, two = asks(picture(0)), asks([picture(1), picture(2)], "What is it? A cat. A dog.")
    texts = [{"role": "user", "content": "What?"}]
    other = asks(picture(0), "A dog?")
    return [
        Sample(one, says("A cat.")), Sample(two, says("A dog.")), Sample(one, says("A dog. What is it?")),
        Sample(texts, says("A dog.")), Sample(two, says("A cat")), Sample(other, says("A cat.")),
    ]  # fmt: skip


def gradients(policy: VisionLanguagePolicy, rollout: Rollout) -> dict[str, torch.Tensor]:
    named = [(n, p) for n, p in policy.module.named_parameters() if p.requires_grad]
    pull = torch.randn(rollout.mask.shape, generator=torch.Generator().manual_seed(0))
    loss = (policy.evaluate(rollout)["logps"] * pull * rollout.mask).sum()
    found = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    return {n: g for (n, _), g in zip(named, found, strict=True) if g is not None}


def test_packed_values_and_gradients_are_those_of_ordinary_batches(policy: VisionLanguagePolicy) -> None:
    rollout = policy.encode(samples())
    with torch.no_grad():
        mine = policy.evaluate(rollout)["logps"]
        alone = torch.cat([policy.evaluate(rollout.select([i]))["logps"] for i in range(len(rollout))])
    assert torch.allclose(mine, alone, atol=1e-4)
    packed = gradients(policy, rollout)
    policy._packs = lambda row: False  # type: ignore[method-assign]
    ordinary = gradients(policy, rollout)
    assert packed.keys() == ordinary.keys()
    for name, grad in ordinary.items():
        assert torch.allclose(packed[name], grad, atol=1e-4 * max(1.0, float(grad.abs().max()))), name
    with torch.no_grad():
        assert torch.allclose(policy.evaluate(rollout)["logps"], alone, atol=1e-4)


def test_a_picture_is_read_once_for_all_answers_about_it(policy: VisionLanguagePolicy) -> None:
    rollout = policy.encode(samples())
    policy.evaluate(rollout)  # the probes are behind it
    seen: list[int] = []
    tower = (
        policy._core.model.vision_tower if hasattr(policy._core.model, "vision_tower") else policy._core.model.visual
    )

    def count(module: Any, given: Any, named: dict[str, Any]) -> None:
        pixels = given[0] if given else named.get("pixel_values", named.get("hidden_states"))
        seen.append(len(pixels))

    hook = tower.register_forward_pre_hook(count, with_kwargs=True)
    policy.evaluate(rollout)
    together = sum(seen)
    seen.clear()
    policy._packs = lambda row: False  # type: ignore[method-assign]
    policy.evaluate(rollout)
    hook.remove()
    # Packed: a picture under one question, two under another, one under a third. Else once a row.
    assert together * 7 == sum(seen) * 4


def test_a_reward_model_reads_them_once_too(policy: VisionLanguagePolicy) -> None:
    reward = VisionScalarReward.from_policy(policy, seed=0)
    rows = samples()
    together = reward.score(rows).outcome
    alone = torch.cat([reward.score([row]).outcome for row in rows])
    assert torch.allclose(together, alone, atol=1e-5)
    assert alone.std() > 1e-3
