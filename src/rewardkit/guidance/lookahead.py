"""What a reward says of an output that is not finished yet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rewardkit.guidance.base import outcome_of
from rewardkit.protocols import Reward, Stepwise
from rewardkit.registry import entry
from rewardkit.types import Cost, Rollout


@entry(
    "guidance:lookahead",
    aliases=("rewards.learned:lookahead_x0",),
    tags=("stepwise",),
    source="Singhal et al. 2025 (FK steering), arXiv:2501.06848, section 3.2",
)
@torch.no_grad()
def lookahead(policy: Stepwise, state: Any, reward: Reward, *, completions: int = 0) -> tuple[Tensor, Cost]:
    """The reward of what each row looks like now, or the mean reward of what it becomes.

    Args:
        policy, state: a stepwise policy and ``N`` of its states.
        reward: scores samples; where it fails, the value is NaN.
        completions: 0 scores ``policy.look(state)``: the clean output that a noisy one is taken for, the text so far.
            Else each row is finished so many times, and the value is the mean over those that could be scored.

    Returns:
        ``[N]`` float64, and what it took: a call for each step of each row, and the reward's own calls.

    >>> from rewardkit.policies.table import TablePolicy
    >>> from rewardkit.rewards.function import function_reward
    >>> count = function_reward(lambda completions, **_: [float(c.count("a")) for c in completions], name="count")
    >>> policy = TablePolicy(["x"], ["a", "b"], horizon=3)
    >>> state = policy.step(policy.start(["x"], seed=0), torch.tensor([0]))
    >>> lookahead(policy, state, count)[0].tolist()
    [1.0]
    >>> mean, cost = lookahead(policy, state, count, completions=400)
    >>> bool((mean - 2.0).abs() < 0.2), cost.calls
    (True, 1200)
    """
    size, cost = len(state), Cost()
    if completions:
        state = state.select(torch.arange(size).repeat_interleave(completions))
        while not bool(state.done.all()):
            cost += Cost(calls=int((~state.done).sum()))
            actions, _ = policy.propose(state)
            state = policy.step(state, actions[:, 0])
    samples = policy.look(state)
    scores = reward(Rollout(samples, torch.ones(len(samples), 1)))
    value = outcome_of(scores, "lookahead").detach().double().cpu()
    value = torch.where(scores.ok.cpu(), value, torch.full_like(value, torch.nan))
    return (value.reshape(size, -1).nanmean(1) if completions else value), cost + scores.cost
