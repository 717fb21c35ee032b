"""The bilevel loop: a reward that misleads is corrected by what it is for, and nothing else."""

from __future__ import annotations

import torch

from rewardkit.loops.bilevel import bilevel
from rewardkit.objectives.path import path_gradient
from rewardkit.policies.path import PathValue
from rewardkit.policies.table import TablePolicy
from rewardkit.rewards.blend import BilevelBlend
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Sample

PRIMARY = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
MISLEADING = torch.tensor([[0.0, 2.0, 0.0]], dtype=torch.float64)


def _mean(reward, entropy=0.0):
    return PathValue(lambda p, samples: (p * (reward - entropy * p.log())).sum(-1))


def test_a_misleading_reward_is_unlearned() -> None:
    policy, blend = TablePolicy(["x"], ["good", "bad", "idle"]), BilevelBlend(PRIMARY, MISLEADING)
    policy.module.double()
    data = policy.encode([Sample("x", "good")])
    run = bilevel(
        Learner(policy, lr=0.1), Learner(blend, lr=0.1),
        lambda table: [Term(data, path_gradient, want=(_mean(table, 0.5),))],
        lambda: [Term(data, path_gradient, want=(_mean(PRIMARY),))],
        steps=30, inner_steps=10, rate=1.0,
    )  # fmt: skip
    shares = [float(policy.enumerate("x")[1].detach()[0]) for _ in run]
    assert shares[0] < 0.3
    assert shares[-1] > 0.9
    # Only what changes the policy moved: the primary reward's own zeros and the idle action's auxiliary did not.
    assert blend.weights[1, 0, 1:].tolist() == [1.0, 1.0]
    assert float(blend.weights[2, 0, 1]) < 1.0


def test_the_outer_terms_are_asked_once_an_update() -> None:
    """All parameters' gradients are of one batch, however many parameters there are."""
    policy, blend = TablePolicy(["x"], ["good", "bad", "idle"]), BilevelBlend(PRIMARY, MISLEADING)
    policy.module.double()
    policy.module.register_parameter("unused", torch.nn.Parameter(torch.zeros(2, dtype=torch.float64)))
    data, asked = policy.encode([Sample("x", "good")]), []

    def outer() -> list[Term]:
        asked.append(1)
        return [Term(data, path_gradient, want=(_mean(PRIMARY),))]

    run = bilevel(
        Learner(policy, lr=0.1), Learner(blend, lr=0.1),
        lambda table: [Term(data, path_gradient, want=(_mean(table, 0.5),))], outer, steps=2, inner_steps=1, rate=1.0,
    )  # fmt: skip
    assert len(list(run)) == len(asked) == 2
