"""World ``critics``: pairs that differ in one to three of six attributes, and judges that must say why one is better.

Two things are described by six attributes, ``a`` to ``f``, each worth 0 to 4. The first attribute of the alphabet in
which they differ decides: the thing with more of it is better. A prompt lists the attributes that differ, in any order,
each with both values (``e04c31``: the things have 0 and 4 of e, 3 and 1 of c, and the first is better), and a mark,
``<`` or ``>``, that points at the better thing in most of the training pairs and says nothing elsewhere. A verdict
names attributes, then ``1`` or ``2``: ``c1``. A person's critique is the attribute that decides. A judge can be right
by the mark alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rewardkit.evals.consistency import outcome_process_inconsistency
from rewardkit.measures.masked import masked_sum
from rewardkit.objectives.imitation import sft
from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.policies.language.words import word_tokenizer
from rewardkit.protocols import Policy
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.rules.critique import set_f1
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample, Scores
from rewardkit.worlds.cache import cached, made_by

ATTRIBUTES = "abcdef"
SIZE = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}


@cache
def tokenizer() -> Any:
    """One token a character."""
    return word_tokenizer([*ATTRIBUTES, *"01234<>"], unknown="0")


def named(output: str) -> frozenset[str] | None:
    """The attributes that a verdict names; ``None`` for one without label.

    >>> sorted(named("ca1")), named("ca")
    (['a', 'c'], None)
    """
    return frozenset(output[:-1]) if output[-1:] in ("1", "2") else None


class Gold(RewardBase):
    """1 for the right label with the deciding attribute and no other, else 0."""

    name = "gold"

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        said = [s.output[-1:] == s.hidden["answer"] and named(s.output) == {s.hidden["why"]} for s in rollout.samples]
        return Scores(torch.tensor([float(x) for x in said]))


@entry("worlds:critics", aliases=("synthetic_judge",), tags=("gold", "language", "judge", "small"))
class Critics:
    """Pairs, demonstrations of verdicts, and a base judge.

    Args:
        cue: how often the mark points at the better thing in training pairs; a half elsewhere. annotated: share of the
            training pairs that have a person's critique.

    >>> world = Critics()
    >>> [sample] = world.pairs(1, seed=0)
    >>> sample.hidden["answer"] in ("1", "2"), sample.hidden["why"] in sample.prompt
    (True, True)
    """

    def __init__(self, *, cue: float = 0.9, annotated: float = 1.0) -> None:
        self.cue, self.annotated = cue, annotated
        self.tokenizer, self.gold, self.sampling = tokenizer(), Gold(), Sampling(max_new_tokens=6)

    def pairs(self, n: int, seed: int, *, elsewhere: bool = False) -> list[Sample]:
        """``n`` pairs to judge; ``hidden`` has ``answer``, ``why`` and, where a person wrote one, ``critique``.

        Args:
            elsewhere: where the mark says nothing and the last attributes are as frequent as the first.
        """
        rng = np.random.default_rng(seed)
        weights = np.ones(6) if elsewhere else np.array([3.0, 3.0, 2.0, 1.0, 1.0, 1.0])
        found = []
        for _ in range(n):
            count = int(rng.integers(1, 4))
            which = sorted(rng.choice(6, size=count, replace=False, p=weights / weights.sum()))
            values = [rng.choice(5, size=2, replace=False) for _ in which]
            better = "1" if values[0][0] > values[0][1] else "2"
            honest = rng.random() < (0.5 if elsewhere else self.cue)
            mark = "<" if (better == "1") == honest else ">"
            shown = [(ATTRIBUTES[i], f"{ATTRIBUTES[i]}{a}{b}") for i, (a, b) in zip(which, values, strict=True)]
            text = "".join(part for _, part in (shown[i] for i in rng.permutation(count)))
            hidden: dict[str, Any] = {"answer": better, "why": shown[0][0]}
            if rng.random() < self.annotated:
                hidden["critique"] = (shown[0][0],)
            found.append(Sample(text + mark, hidden=hidden))
        return found

    def demonstrations(self, n: int, seed: int) -> list[Sample]:
        """``n`` verdicts by writers who name any attributes shown, and follow the mark more often than the values."""
        rng = np.random.default_rng(seed)
        found = []
        for pair in self.pairs(n, seed):
            shown = [c for c in pair.prompt if c in ATTRIBUTES]
            count = int(rng.integers(1, len(shown) + 1))
            names = "".join(rng.permutation(shown)[:count])
            if rng.random() < 0.3:
                names = pair.hidden["why"]
            by_mark = "1" if pair.prompt[-1] == "<" else "2"
            label = pair.hidden["answer"] if rng.random() < 0.4 else by_mark
            found.append(Sample(pair.prompt, names + label))
        return found

    def base_policy(self, *, steps: int = 400, seed: int = 0) -> LanguagePolicy:
        """A judge trained on demonstrations, its view ``start`` kept; built once and kept in the user's cache."""
        facts: dict[str, Any] = {"steps": steps, "seed": seed, "cue": self.cue, "size": SIZE, **made_by(Path(__file__))}
        folder = cached("critics", facts, lambda out: self._train(steps, seed).save(out))
        return LanguagePolicy.load(folder, name="critics")

    def _train(self, steps: int, seed: int) -> LanguagePolicy:
        policy = LanguagePolicy.scratch(self.tokenizer, SIZE, length=24, seed=seed, keep_start=False)
        learner = Learner(policy, lr=4e-3, schedule="cosine", warmup=0.05, total_steps=steps)
        for step in range(steps):
            learner.step(Term(policy.encode(self.demonstrations(64, seed=seed * 1_000_003 + step)), sft))
        return policy

    @torch.no_grad()
    def measure(self, policy: Policy, *, pairs: int = 200, n: int = 4, seed: int = 9_000) -> dict[str, float]:
        """Figures on fresh pairs.

        Returns:
            ``accuracy`` and ``elsewhere`` (right labels, where the mark helps and where it does not), ``core_f1`` (of
            the attributes named, elsewhere), ``inconsistent`` (of the right labels elsewhere, the share whose critique
            is not the one that decides), ``gold`` (elsewhere), ``kl`` (nats a verdict, to the start).
        """
        near = policy.sample(self.pairs(pairs, seed), n, sampling=self.sampling, seed=seed)
        far = policy.sample(self.pairs(pairs, seed + 1, elsewhere=True), n, sampling=self.sampling, seed=seed + 1)
        start = policy.at("start").evaluate(near)["logps"]
        right = [s.output[-1:] == s.hidden["answer"] for s in far.samples]
        sound = [named(s.output) == {s.hidden["why"]} for s in far.samples]
        return {
            "accuracy": _accuracy(near.samples),
            "elsewhere": _accuracy(far.samples),
            "core_f1": float(np.mean([set_f1(named(s.output) or (), {s.hidden["why"]}) for s in far.samples])),
            "inconsistent": outcome_process_inconsistency(right, sound).value,
            "gold": float(self.gold(far).outcome.mean()),  # type: ignore[union-attr]
            "kl": float(masked_sum(near["old_logps"] - start, near.mask).mean()),
        }


def _accuracy(samples: Sequence[Sample]) -> float:
    return float(np.mean([s.output[-1:] == s.hidden["answer"] for s in samples]))
