"""From what a vector environment gave, step by step, to rows: one for each piece of an episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewardkit.types import Rollout, Sample


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The output of a control policy.

    Args:
        observations: ``[T + 1, ...]``, the last one after the last action. actions: ``[T, ...]``, as they were drawn.
        rewards: ``[T]``, the environment's own.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True, eq=False)
class Piece:
    """A trajectory, the copy of the environment that it is of, and whether it was cut short."""

    trajectory: Trajectory
    copy: int
    cut: bool

    @classmethod
    def of(cls, output: Any, *, cut: bool, copy: int) -> Piece:
        """A piece from a sample's output.

        Raises:
            ValueError: for anything but a trajectory.
        """
        if not isinstance(output, Trajectory):
            raise ValueError(f"the output of a control policy is a Trajectory, not {type(output).__name__}")
        return cls(output, copy, cut)


def pieces(
    seen: Sequence[np.ndarray],
    actions: Tensor,
    rewards: Sequence[np.ndarray],
    terminated: Sequence[np.ndarray],
    truncated: Sequence[np.ndarray],
    reached: Sequence[np.ndarray],
    *,
    first_only: bool,
) -> list[Piece]:
    """Cut ``T`` steps of ``N`` copies where episodes ended.

    Args:
        seen, reached: observations before and after each step, ``T`` arrays ``[N, ...]``. actions: ``[T, N, ...]``.
        first_only: keep the first piece of every copy alone: what follows is another episode.
    """
    before, after, paid = np.stack(seen, 1), np.stack(reached, 1), np.stack(rewards, 1)
    taken = actions.transpose(0, 1).numpy()
    done, late = np.stack(terminated, 1), np.stack(truncated, 1)
    steps, found = before.shape[1], []
    for copy in range(len(before)):
        begin = 0
        for end in [*(np.flatnonzero(done[copy] | late[copy]) + 1), steps]:
            if end > begin:
                observations = np.concatenate([before[copy, begin:end], after[copy, end - 1 : end]])
                trajectory = Trajectory(observations, taken[copy, begin:end], paid[copy, begin:end])
                found.append(Piece(trajectory, copy, not done[copy, end - 1]))
            begin = end
            if first_only:
                break
    return found


def rollout_of(found: Sequence[Piece], starts: Sequence[Sample], group: Sequence[int], how: dict[str, Any]) -> Rollout:
    """Rows of these pieces, padded on the right.

    Args:
        starts, group: what each copy began from, and the number of its group.
    """
    length = max((len(p.trajectory) for p in found), default=0)
    rows = [(starts[p.copy], p) for p in found]
    return Rollout(
        [Sample(s.prompt, p.trajectory, s.source, s.hidden, "cut" if p.cut else "done") for s, p in rows],
        _padded([np.ones(len(p.trajectory), dtype=np.float32) for p in found], length),
        torch.tensor([group[p.copy] for p in found], dtype=torch.long),
        tensors={"env_rewards": _padded([p.trajectory.rewards.astype(np.float32) for p in found], length)},
        inputs={
            "observations": _padded([_flat(p.trajectory.observations[:-1]) for p in found], length),
            "actions": _padded([p.trajectory.actions for p in found], length),
            "reached": torch.stack([torch.from_numpy(_flat(p.trajectory.observations[-1:])) for p in found]),
        },
        how=how,
    )


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1).astype(np.float32)


def _padded(rows: Sequence[np.ndarray], length: int) -> Tensor:
    whole = np.zeros((len(rows), length, *rows[0].shape[1:]), dtype=rows[0].dtype) if rows else np.zeros((0, 0))
    for i, row in enumerate(rows):
        whole[i, : len(row)] = row
    return torch.from_numpy(whole)
