"""Gridworlds as listed decision processes: kinds of cells, slips, goals and pits that end the episode."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rewardkit.policies.control.pieces import Trajectory
from rewardkit.policies.table import TablePolicy
from rewardkit.registry import entry
from rewardkit.types import Sample
from rewardkit.worlds.tables.mdp import MDP

MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
FLOOR, MUD, GOAL, PIT = range(4)


@entry("worlds:gridworld", tags=("exact", "enumerable", "control"))
class GridWorld:
    """A square of cells; a step is paid for by the kind of the cell that is entered.

    Args:
        size: cells a side. seed: of what lies where. mud, pits: how many. slip: the probability that a step goes in a
            random direction instead. discount: of the future.
        goal: its cell; default drawn.

    >>> world = GridWorld(3, seed=0)
    >>> world.mdp.transitions.shape, world.features.sum(-1).max().item()
    (torch.Size([9, 4, 9]), 1.0)
    """

    def __init__(
        self, size: int = 5, *, seed: int = 0, mud: int = 4, pits: int = 1, slip: float = 0.0, discount: float = 0.95,
        goal: int | None = None,
    ) -> None:  # fmt: skip
        if mud + pits + 2 > size * size:
            raise ValueError(f"GridWorld: {mud} cells of mud and {pits} pits leave no room on {size * size} cells")
        self.size, self.cells, self.actions = size, list(range(size * size)), list(MOVES)
        order = torch.randperm(size * size, generator=torch.Generator().manual_seed(seed)).tolist()
        places = ([] if goal is None else [goal]) + [c for c in order if c != goal]
        self.kinds = torch.full((size * size,), FLOOR)
        self.kinds[places[0]] = GOAL
        self.kinds[places[1 : 1 + pits]] = PIT
        self.kinds[places[1 + pits : 1 + pits + mud]] = MUD
        entered = self._entered(slip)
        over = (self.kinds == GOAL) | (self.kinds == PIT)
        entered[over] = 0.0
        self.features = entered @ torch.nn.functional.one_hot(self.kinds, 4).double()
        transitions = entered.clone()
        transitions[..., over] = 0.0
        start = (~over).double()
        self.mdp = MDP(transitions, start / start.sum(), discount)
        self.entered = entered

    def _entered(self, slip: float) -> Tensor:
        """The probability ``[S, A, S]`` to enter a cell; who would leave the square stays."""
        moved = torch.zeros(len(self.cells), len(MOVES), len(self.cells), dtype=torch.float64)
        for cell in self.cells:
            for a, (down, right) in enumerate(MOVES.values()):
                row = min(max(cell // self.size + down, 0), self.size - 1)
                column = min(max(cell % self.size + right, 0), self.size - 1)
                moved[cell, a, row * self.size + column] = 1.0
        return (1 - slip) * moved + slip * moved.mean(1, keepdim=True)

    def policy(self) -> TablePolicy:
        """The uniform policy over actions, cells for prompts, float64."""
        shape = (len(self.cells), 1, len(self.actions))
        return TablePolicy(self.cells, self.actions, logits=torch.zeros(shape, dtype=torch.float64))

    def segments(self, n: int, length: int, *, seed: int, whole: bool = False) -> list[Sample]:
        """``n`` segments of at most ``length`` random steps from random cells, as trajectories of numbers.

        Args:
            whole: only segments that do not reach an end.
        """
        chance = np.random.default_rng(seed)
        begin, entry = self.mdp.start.numpy(), self.entered.numpy()
        over = ((self.kinds == GOAL) | (self.kinds == PIT)).numpy()
        found: list[Sample] = []
        while len(found) < n:
            states = [int(chance.choice(len(begin), p=begin))]
            taken: list[int] = []
            while len(taken) < length and not over[states[-1]]:
                taken.append(int(chance.integers(len(MOVES))))
                p = entry[states[-1], taken[-1]]
                states.append(int(chance.choice(len(p), p=p / p.sum())))
            if not (whole and over[states[-1]]):
                trajectory = Trajectory(np.array(states), np.array(taken), np.zeros(len(taken)))
                found.append(Sample("grid", trajectory))
        return found
