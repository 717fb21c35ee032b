"""Prompts by task, drawn more often where the policy succeeds about half the time or less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rewardkit.loops.prompts import PromptSet
from rewardkit.registry import entry
from rewardkit.types import Rollout, Sample, Scores


@entry(
    "loops:success_curriculum",
    aliases=("success_rate_curriculum", "task_curriculum"),
    tags=("prompts", "curriculum", "state"),
    source="Lu et al. 2025 (VLA-RL), arXiv:2505.18719, curriculum selection strategy",
)
class SuccessCurriculum:
    """Task ``i`` with probability proportional to ``exp((0.5 - s_i) / temperature)``, ``s_i`` its running success.

    Within a task the prompts are walked epoch after epoch. Give it to ``online`` in place of a :class:`PromptSet`.

    Args:
        samples: prompts whose ``hidden[key]`` names their task. key: see there.
        temperature: of the softmax; a large one draws all tasks alike. rate: weight of a turn's mean in the running
            one, which begins at 0.5.
        part: the part of a composed score that says success, in [0, 1]; default: the outcome of the whole.
        seed: of the draws.

    Raises:
        ValueError: for a sample without a task, or a temperature or rate that means nothing.

    >>> import torch
    >>> tasks = SuccessCurriculum([Sample("a", hidden={"task": "easy"}), Sample("b", hidden={"task": "hard"})],
    ...     temperature=0.5, rate=1.0)
    >>> tasks.feedback(Rollout(tasks.samples, torch.ones(2, 1)), Scores(torch.tensor([1.0, 0.0])))
    >>> {k: round(p, 3) for k, p in tasks.chances().items()}
    {'easy': 0.119, 'hard': 0.881}
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        key: str = "task",
        temperature: float = 0.2,
        rate: float = 0.2,
        part: str | None = None,
        seed: int = 0,
    ) -> None:
        if not temperature > 0 or not 0 < rate <= 1:
            raise ValueError(f"temperature is positive and rate in (0, 1], not {temperature} and {rate}")
        bad = next((i for i, s in enumerate(samples) if key not in s.hidden), None)
        if bad is not None or not samples:
            raise ValueError(f"SuccessCurriculum needs samples, each with hidden[{key!r}]; sample {bad} has none")
        self.samples, self.key, self.part = list(samples), key, part
        self.temperature, self.rate, self.seed = temperature, rate, seed
        names = dict.fromkeys(s.hidden[key] for s in samples)
        self.prompts = {t: PromptSet([s for s in samples if s.hidden[key] == t], seed=seed) for t in names}
        self.success = dict.fromkeys(names, 0.5)
        self.drawn = 0

    def chances(self) -> dict[Any, float]:
        """How probable each task is now."""
        logits = (0.5 - np.array(list(self.success.values()))) / self.temperature
        weights = np.exp(logits - logits.max())
        return dict(zip(self.success, (weights / weights.sum()).tolist(), strict=True))

    def draw(self, n: int) -> list[Sample]:
        """``n`` prompts, the task of each drawn by :meth:`chances`."""
        chances, tasks = self.chances(), list(self.success)
        rng = np.random.default_rng([self.seed, self.drawn])
        self.drawn += n
        picked = rng.choice(len(tasks), size=n, p=list(chances.values()))
        return [self.prompts[tasks[i]].draw(1)[0] for i in picked]

    def feedback(self, rollout: Rollout, scores: Scores) -> None:
        """Move the running success of the tasks that were tried. Rows that were not scored count for nothing."""
        found = scores if self.part is None else scores.parts.get(self.part)
        if found is None or found.outcome is None:
            raise ValueError(f"no outcome says success: part={self.part!r}, the scores have {sorted(scores.parts)}")
        tried: dict[Any, list[float]] = {}
        ok = (found.ok & scores.ok).tolist()
        for sample, value, scored in zip(rollout.samples, found.outcome.tolist(), ok, strict=True):
            if scored:
                tried.setdefault(sample.hidden[self.key], []).append(value)
        for task, values in tried.items():
            self.success[task] += self.rate * (float(np.mean(values)) - self.success[task])

    def state_dict(self) -> dict[str, Any]:
        prompts = [p.state_dict() for p in self.prompts.values()]
        return {"success": list(self.success.values()), "drawn": self.drawn, "seed": self.seed, "prompts": prompts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            ValueError: if it is of other tasks or another seed.
        """
        if len(state["success"]) != len(self.success) or state["seed"] != self.seed:
            raise ValueError(
                f"this state is of {len(state['success'])} tasks with seed {state['seed']}; "
                f"these are {len(self.success)} with seed {self.seed}"
            )
        self.success = dict(zip(self.success, map(float, state["success"]), strict=True))
        self.drawn = int(state["drawn"])
        for prompts, own in zip(self.prompts.values(), state["prompts"], strict=True):
            prompts.load_state_dict(own)
