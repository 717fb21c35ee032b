"""World ``pick_place``: demonstrations in tokens, a base policy cloned from them, tasks of six difficulties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rewardkit.feedback.segments import pseudo_segment_labels, share_finished
from rewardkit.measures.masked import masked_sum
from rewardkit.objectives.imitation import sft
from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.protocols import Policy
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample, Scores
from rewardkit.worlds.cache import cached, made_by
from rewardkit.worlds.control.physics import advance, distance
from rewardkit.worlds.control.pick import GRIP, HELD, NEAR, PUSH_X, PUSH_Y, PUSHES, TASKS, PickPlace, task, tokenizer

HORIZON = 9
"""Actions of an episode."""
REACH = 0.42
"""About how far a full push brings the hand in one action."""
SIZE = {
    "hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
    "initializer_range": 0.1,
}  # fmt: skip


class Success(RewardBase):
    """1 where every object is in its place at the end, else 0."""

    name = "success"

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        done = [float(s.hidden["state"]["done"]) for s in rollout.samples]
        return Scores(torch.tensor(done, device=rollout.mask.device))


@entry("worlds:pick_place", aliases=("worlds:token_arm",), tags=("control", "language", "gold", "small"))
class PickPlaceWorld:
    """A hand that brings one or two objects to their places, driven by a language model whose tokens are its actions.

    Args:
        clumsy: how often a demonstrator of the least skill pushes or grips at random. seed: of the base policy.

    >>> world = PickPlaceWorld()
    >>> [s.hidden["task"] for s in world.prompts(1, seed=0)]
    ['near', 'middle', 'far', 'two near', 'two middle', 'two far']
    >>> world.demonstrations(1, seed=0)[0].output[0]["role"]
    'assistant'
    """

    def __init__(self, *, clumsy: float = 0.6, seed: int = 0) -> None:
        self.clumsy, self.seed = clumsy, seed
        self.env, self.gold = PickPlace, Success()
        self.sampling = Sampling(max_new_tokens=4, max_turns=HORIZON)

    def prompts(self, n: int, seed: int) -> list[Sample]:
        """``n`` starts of each task, tasks in turn."""
        rng = np.random.default_rng(seed)
        return [task(name, rng) for _ in range(n) for name in TASKS]

    def demonstrations(self, n: int, seed: int) -> list[Sample]:
        """``n`` episodes, tasks in turn, of demonstrators of any skill; ``hidden`` has ``state``, and for each action
        whether the gripper was then ``closed`` and the hand's ``speed``."""
        rng = np.random.default_rng(seed)
        return [self._episode(task(list(TASKS)[i % len(TASKS)], rng), rng) for i in range(n)]

    def _episode(self, start: Sample, rng: np.random.Generator) -> Sample:
        game, slips = PickPlace(), self.clumsy * rng.random()
        game.reset(start)
        output, states = [], []
        for _ in range(HORIZON):
            message = {"role": "assistant", "content": _wise(game, rng, slips)}
            said, done = game.step(message)
            output += [message, *said]
            states.append(game.state())
            if done:
                break
        reply = output[:-1] if output[-1]["role"] == "user" else output
        seen = {"state": states[-1], "closed": [s["closed"] for s in states], "speed": [s["speed"] for s in states]}
        return Sample(start.prompt, reply, hidden={**start.hidden, **seen})

    def progress(self, samples: Sequence[Sample]) -> tuple[list[Sample], list[torch.Tensor]]:
        """The successful among demonstrations, with the share of each one's pseudo segments that is finished before
        each action."""
        done = [s for s in samples if s.hidden["state"]["done"]]
        ends = [pseudo_segment_labels(torch.tensor(s.hidden["closed"]), torch.tensor(s.hidden["speed"])) for s in done]
        return done, [share_finished(e) for e in ends]

    def base_policy(self, *, steps: int = 300) -> LanguagePolicy:
        """A model cloned from demonstrations, its view ``start`` kept; built once and kept in the user's cache."""
        facts: dict[str, Any] = {"steps": steps, "seed": self.seed, "size": SIZE, "clumsy": self.clumsy}
        facts |= made_by(Path(__file__))
        folder = cached("pick_place", facts, lambda out: self._train(steps).save(out))
        return LanguagePolicy.load(folder, name="pick_place")

    def _train(self, steps: int) -> LanguagePolicy:
        policy = LanguagePolicy.scratch(tokenizer(), SIZE, length=96, seed=self.seed, keep_start=False)
        learner = Learner(policy, lr=6e-3, schedule="cosine", warmup=0.05, total_steps=steps)
        data = policy.encode(self.demonstrations(4 * steps, 1000 + self.seed))
        rng = np.random.default_rng(self.seed)
        for _ in range(steps):
            learner.step(Term(data.select(rng.integers(len(data), size=32).tolist()), sft))
        return policy

    def play(self, policy: Policy, prompts: Sequence[Sample], n: int, seed: int) -> Rollout:
        """``n`` episodes of each start."""
        return policy.sample(prompts, n, env=self.env, sampling=self.sampling, seed=seed)  # type: ignore[call-arg]

    @torch.no_grad()
    def measure(self, policy: Policy, *, n: int = 16, seed: int = 9) -> dict[str, float]:
        """Figures of an episode of each of ``n`` starts a task.

        Returns:
            ``gold`` (success, a mean over tasks) and ``gold of TASK``; ``long`` (of tasks with two objects);
            ``actions`` taken; ``kl`` (nats an episode, to the start).
        """
        rollout = self.play(policy, self.prompts(n, seed), 1, seed)
        state = [s.hidden["state"] for s in rollout.samples]
        won = np.array([float(s["done"]) for s in state]).reshape(n, len(TASKS)).mean(0)
        start = policy.at("start").evaluate(rollout)["logps"]
        return {
            "gold": float(won.mean()),
            **{f"gold of {name}": float(w) for name, w in zip(TASKS, won, strict=True)},
            "long": float(won[[objects > 1 for objects, _ in TASKS.values()]].mean()),
            "actions": float(np.mean([s["steps"] for s in state])),
            "kl": float(masked_sum(rollout["old_logps"] - start, rollout.mask).mean()),
        }


def _wise(game: PickPlace, rng: np.random.Generator, slips: float) -> str:
    """What a demonstrator does: push towards the aim, at random with ``slips``, and grip when that brings it there."""
    away = (game.now[0, 4:6] - game.now[0, 0:2]).numpy()
    best = [int(np.abs(np.array(PUSHES) - np.clip(d / REACH, -1, 1)).argmin()) for d in away]
    moves = [int(rng.integers(len(PUSHES))) if rng.random() < slips else b for b in best]
    after = game.now
    for _ in range(HELD):
        after = advance(after, torch.tensor([[PUSHES[m] for m in moves]]))
    there = bool(distance(after)[0] < NEAR)
    closed = game.holds != there
    if rng.random() < slips / 3:
        closed = not closed
    return PUSH_X[moves[0]] + PUSH_Y[moves[1]] + GRIP[closed]
