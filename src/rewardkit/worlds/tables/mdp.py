"""Markov decision processes that can be listed: exact values, plans and successor features.

Rewards and features are ``[S, A]`` and ``[S, A, F]``, expected over the next state; policies are probabilities
``[S, A]``. All is differentiable but the maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class MDP:
    """Transitions with a discount.

    Args:
        transitions: float64 ``[S, A, S]``; a row may sum to less than 1, the rest of the time the episode is over.
        start: ``[S]``, the probability to begin there. discount: below 1, or every policy must come to an end.
    """

    transitions: Tensor
    start: Tensor
    discount: float

    def __post_init__(self) -> None:
        states, _, last = self.transitions.shape
        if states != last or self.start.shape != (states,):
            raise ValueError(
                f"MDP.transitions must be [S, A, S] and start [S], not {tuple(self.transitions.shape)} and "
                f"{tuple(self.start.shape)}"
            )
        if bool((self.transitions < 0).any()) or bool((self.transitions.sum(-1) > 1 + 1e-9).any()):
            raise ValueError("MDP.transitions must hold probabilities: not negative, a row at most 1 in all")

    def ahead(self, reward: Tensor, values: Tensor) -> Tensor:
        """``reward + discount * E[values of the next state]``: ``[S, A, ...], [S, ...] -> [S, A, ...]``."""
        return reward + self.discount * torch.einsum("sat,t...->sa...", self.transitions, values)

    def values(self, policy: Tensor, reward: Tensor) -> Tensor:
        """``V`` of a policy, ``[S]``, or the successor features ``[S, F]`` where ``reward`` is ``[S, A, F]``."""
        moved = torch.einsum("sa,sat->st", policy, self.transitions)
        paid = torch.einsum("sa,sa...->s...", policy, reward)
        rest = torch.eye(len(moved), dtype=moved.dtype) - self.discount * moved
        return torch.linalg.solve(rest, paid.reshape(len(paid), -1)).reshape(paid.shape)

    def action_values(self, policy: Tensor, reward: Tensor) -> Tensor:
        """``Q`` of a policy, ``[S, A]``, or successor features ``[S, A, F]``."""
        return self.ahead(reward, self.values(policy, reward))

    def optimal(self, reward: Tensor, *, tolerance: float = 1e-9) -> Tensor:
        """``Q*``, ``[S, A]``, by policy iteration: exact once no action improves by more than ``tolerance``."""
        policy = torch.full_like(reward, 1 / reward.shape[1])
        while True:
            found = self.action_values(policy, reward)
            if bool((found.amax(1) - (policy * found).sum(1) <= tolerance).all()):
                return found
            policy = greedy(found)

    def performance(self, policy: Tensor, reward: Tensor) -> Tensor:
        """The expected (discounted) return from the start, a number."""
        return self.start @ self.values(policy, reward)


def greedy(action_values: Tensor) -> Tensor:
    """The policy that takes the best action, the first of equals: ``[S, A] -> [S, A]``."""
    best = action_values.argmax(1)
    return torch.nn.functional.one_hot(best, action_values.shape[1]).to(action_values.dtype)
