"""A reward that is trained, so that a policy trained on it does well by another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from rewardkit.objectives.path import path_gradient
from rewardkit.policies.path import PathValue
from rewardkit.registry import entry
from rewardkit.training.implicit import gradient, hvp, implicit_value, loss_of, neumann_solve
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample


@entry(
    "loops:barfi_bilevel",
    aliases=("bilevel",),
    tags=("second-order", "several-learners"),
    source="Gupta et al. 2023, Behavior Alignment via Reward Function Optimization, arXiv:2310.19007",
)
def bilevel(
    policy: Learner,
    reward: Learner,
    inner: Callable[[Tensor], Sequence[Term]],
    outer: Callable[[], Sequence[Term]],
    *,
    steps: int,
    inner_steps: int,
    rate: float,
    neumann: int = 30,
) -> Iterator[dict[str, float]]:
    """Two learners, as an iterator: the policy goes down the inner terms, which read the reward, and the reward's
    parameters go down the outer terms, which read the policy that came of it.

    The policy is not started anew (it stays near the solution as the reward moves), and the reward's gradient is the
    implicit one of :mod:`rewardkit.training.implicit`: it holds where the policy has solved its problem, however many
    steps that took. One process only.

    Args:
        policy: what acts. reward: its model has ``evaluate(rollout, (PathValue(fn),))``, with ``fn`` reading the
            reward's numbers, such as :class:`rewardkit.rewards.blend.BilevelBlend`.
        inner: from the reward's numbers to terms on the policy; ``outer``: terms on the policy that do not see them.
        steps, inner_steps: updates of the reward; of the policy before each of them.
        rate, neumann: of :func:`rewardkit.training.implicit.neumann_solve`.

    Yields:
        ``inner/...`` and ``outer/...`` metrics of each update of the reward.

    >>> from rewardkit.objectives.path import path_gradient
    >>> from rewardkit.policies.table import TablePolicy
    >>> from rewardkit.rewards.blend import BilevelBlend
    >>> good, misleading = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    >>> policy, blend = TablePolicy(["x"], ["good", "bad"]), BilevelBlend(good, misleading)
    >>> data = policy.encode([Sample("x", "good")])
    >>> def gain(reward, entropy=0.0):
    ...     value = PathValue(lambda p, samples: (p * (reward - entropy * p.log())).sum(-1))
    ...     return [Term(data, path_gradient, want=(value,))]
    >>> run = bilevel(Learner(policy, lr=0.1), Learner(blend, lr=0.1), lambda table: gain(table, 0.5),
    ...     lambda: gain(good), steps=30, inner_steps=5, rate=1.0)
    >>> shares = [policy.enumerate("x")[1][0].item() for _ in run]
    >>> shares[0] < 0.5 < shares[-1]
    True
    """
    params = list(policy.params.values())
    one_row = Rollout([Sample("reward")], torch.ones(1, 1, dtype=params[0].dtype))

    def numbers() -> Tensor:
        kept: list[Tensor] = []

        def keep(x: Tensor, samples: Sequence[Sample]) -> Tensor:
            kept.append(x.detach())
            return x.new_zeros(len(samples))

        reward.model.evaluate(one_row, (PathValue(keep),))
        return kept[0]

    for _ in range(steps):
        now = numbers()
        for _ in range(inner_steps):
            report = policy.step(*inner(now))
        wanted = list(policy.grads(*outer()).values())
        grads = gradient(loss_of(policy, *inner(now)), params)
        solved = neumann_solve(lambda v, g=grads: hvp(g, params, v), wanted, rate=rate, steps=neumann)  # type: ignore[misc]

        def through(x: Tensor, samples: Sequence[Sample], solved: Sequence[Tensor] = solved) -> Tensor:
            return implicit_value(policy, inner(x), solved).reshape(1)

        found = reward.step(Term(one_row, path_gradient, want=(PathValue(through),)))
        yield {f"inner/{k}": v for k, v in report.items()} | {f"outer/{k}": v for k, v in found.items()}
