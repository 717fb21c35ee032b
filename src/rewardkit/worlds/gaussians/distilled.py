"""The world's flow policy as a consistency model: distilled once, a base policy whose paths are a few jumps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from rewardkit.objectives.imitation import sft
from rewardkit.policies.diffusion import Consistency, DiffusionPolicy, Distilled, consistency_model, follow
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.worlds.cache import cached, made_by
from rewardkit.worlds.gaussians.world import Gaussians

BATCH, DRAWS = 32, 4
TOP = 1.0
"""The time of the first jump: that of pure noise."""


def calls(steps: int) -> int:
    """How often ``steps`` of distillation call a network: teacher, target and student, once a row each."""
    return 3 * steps * BATCH * DRAWS


def consistency_policy(
    world: Gaussians, *, steps: int = 1500, teacher_steps: int = 3000, seed: int = 0
) -> DiffusionPolicy:
    """The flow policy, distilled into a consistency model by ``sft`` on answers of a moving average of itself, its view
    ``start`` kept; built once into the cache.

    Args:
        world: whose demonstrations are noised. steps: of distillation. teacher_steps, seed: of the flow policy; see
            :meth:`rewardkit.worlds.gaussians.Gaussians.base_policy`.
    """
    facts: dict[str, Any] = {"kind": "consistency", "world": [len(world.prompts), world.seed], "steps": steps}
    facts |= {"teacher": teacher_steps, "seed": seed, **made_by(Path(__file__))}

    def make(folder: Path) -> None:
        student = _distil(world, world.base_policy("flow", steps=teacher_steps, seed=seed), steps)
        save_file(dict(student.module.state_dict()), folder / "model.safetensors")

    folder = cached("gaussians", facts, make)
    policy = world.policy("flow", seed=seed)
    policy.process = Consistency(policy.process, TOP)
    policy.module.load_state_dict(load_file(folder / "model.safetensors"))
    policy.keep("start")
    return policy


def _distil(world: Gaussians, teacher: DiffusionPolicy, steps: int) -> DiffusionPolicy:
    student, chance = consistency_model(teacher, top=TOP), torch.Generator().manual_seed(0)
    learner = Learner(student, lr=1e-3, schedule="cosine", total_steps=steps)
    rows = Distilled(student, teacher, steps=20, draws=DRAWS)
    for step in range(steps):
        learner.step(Term(rows(world.demonstrations(BATCH, seed=step), chance), sft))
        follow(student, 0.05)
    return student
