"""World ``referee``: one small language model that answers, adds up and grades answers, all in one vocabulary.

Three kinds of prompts (``hidden["kind"]``). ``open``: a topic of world ``tokens``, to be answered with its letters.
``sum``: ``3+4=``, answered by a digit. ``rank``: a topic with two answers, ``A|abcd|aa-=``, answered by two
digits, a grade each, where a noisy annotator ranked them. Gold is that of world ``tokens``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rewardkit.measures.masked import masked_sum
from rewardkit.objectives.imitation import sft
from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.policies.language.words import word_tokenizer
from rewardkit.registry import entry
from rewardkit.rewards.rules.ranking import kendall
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Sample
from rewardkit.worlds.cache import cached, made_by
from rewardkit.worlds.tokens import FLOURISH, PADDING, TOPICS, Tokens, gold_score, letters

SHOWN, LENGTH = 2, 9
"""Answers that a referee sees at once, and most characters of one."""
SIZE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


@cache
def tokenizer() -> Any:
    """One token a character."""
    own = "".join(letters(t) for t in range(TOPICS))
    topics = "".join(chr(ord("A") + t) for t in range(TOPICS))
    return word_tokenizer([*topics, *own, PADDING, FLOURISH, *"0123456789+=|"], unknown=PADDING)


def shown(samples: Sequence[Sample]) -> str:
    """The prompt that asks for grades of these answers to one topic."""
    return f"{samples[0].asked}|" + "|".join(s.output for s in samples) + "="


def grades(said: str, k: int) -> list[float] | None:
    """``k`` digits.

    >>> grades("9071", 4), grades("907", 4), grades("90a1", 4)
    ([9.0, 0.0, 7.0, 1.0], None, None)
    """
    return [float(c) for c in said] if len(said) == k and said.isdigit() else None


@entry("worlds:referee", tags=("gold", "language", "judge", "small"))
class Referee:
    """The three kinds of prompts, demonstrations of all, and a base model that does each badly.

    >>> world = Referee()
    >>> [s] = world.sums(1, seed=0)
    >>> str(int(s.prompt[0]) + int(s.prompt[2])) == s.hidden["answer"], len(world.rankings(1, seed=0)[0].hidden["rank"])
    (True, 2)
    """

    def __init__(self) -> None:
        self.tokens = Tokens(length=LENGTH + 1)
        self.gold, self.tokenizer = self.tokens.gold, tokenizer()
        self.sampling = Sampling(max_new_tokens=LENGTH + 1)

    def open(self, n: int) -> list[Sample]:
        """``n`` topics in turn."""
        return [Sample(self.tokens.prompts[i % TOPICS], hidden={"kind": "open"}) for i in range(n)]

    def sums(self, n: int, seed: int) -> list[Sample]:
        """``n`` sums below ten."""
        rng, found = np.random.default_rng(seed), []
        for _ in range(n):
            total = int(rng.integers(10))
            first = int(rng.integers(total + 1))
            found.append(Sample(f"{first}+{total - first}=", hidden={"kind": "sum", "answer": str(total)}))
        return found

    def rankings(self, n: int, seed: int) -> list[Sample]:
        """``n`` rankings of two answers by a noisy annotator, 0 the best."""
        rng = np.random.default_rng(seed)
        found = []
        for answers in self._answers(n, seed):
            felt = [self.tokens.liking(s) + self.tokens.noise * rng.gumbel() for s in answers]
            order = np.argsort(np.argsort([-f for f in felt]))
            found.append(Sample(shown(answers), hidden={"kind": "rank", "rank": tuple(int(i) for i in order)}))
        return found

    def _answers(self, n: int, seed: int) -> list[list[Sample]]:
        """Pairs of demonstrations of one topic."""
        by_topic: dict[str, list[Sample]] = {}
        for s in self.tokens.demonstrations(n * SHOWN * 2 + 40 * TOPICS, seed):
            by_topic.setdefault(s.prompt, []).append(s)
        pairs = [rows[i : i + SHOWN] for rows in by_topic.values() for i in range(0, len(rows) - SHOWN + 1, SHOWN)]
        order = np.random.default_rng(seed).permutation(len(pairs))
        return [pairs[int(i)] for i in order[:n]]

    def demonstrations(self, n: int, seed: int) -> list[Sample]:
        """``n`` of each kind: answers of mixed quality, sums of which a third are wrong, grades that are noisy."""
        rng = np.random.default_rng(seed)
        found = list(self.tokens.demonstrations(n, seed))
        for s in self.sums(n, seed):
            right = rng.random() < 2 / 3
            found.append(Sample(s.prompt, s.hidden["answer"] if right else str(rng.integers(10))))
        for answers in self._answers(n, seed):
            felt = [gold_score(s.prompt, s.output) for s in answers]
            said = [int(np.clip(round(2 * f + 2 + rng.normal(0, 1)), 0, 9)) for f in felt]
            found.append(Sample(shown(answers), "".join(map(str, said))))
        return found

    def base_policy(self, *, steps: int = 1500, seed: int = 0) -> LanguagePolicy:
        """A model trained on demonstrations, its view ``start`` kept; built once and kept in the user's cache."""
        facts: dict[str, Any] = {"steps": steps, "seed": seed, "size": SIZE, **made_by(Path(__file__))}
        folder = cached("referee", facts, lambda out: self._train(steps, seed).save(out))
        return LanguagePolicy.load(folder, name="referee")

    def _train(self, steps: int, seed: int) -> LanguagePolicy:
        policy = LanguagePolicy.scratch(self.tokenizer, SIZE, length=64, seed=seed, keep_start=False)
        learner = Learner(policy, lr=3e-3, schedule="cosine", warmup=0.05, total_steps=steps)
        pool = self.demonstrations(6000, seed)
        rng = np.random.default_rng(seed)
        for _ in range(steps):
            rows = [pool[int(i)] for i in rng.integers(len(pool), size=48)]
            learner.step(Term(policy.encode(rows), sft))
        return policy

    @torch.no_grad()
    def measure(self, policy: LanguagePolicy, *, n: int = 32, seed: int = 9_000) -> dict[str, float]:
        """Figures on fresh prompts of each kind.

        Returns:
            ``gold`` and ``distinct`` of ``n`` answers a topic, ``kl`` (nats an answer, to the start), ``sums`` (right
            ones), ``referee`` (Kendall's tau of its grades to gold on fresh answers; 0 for what cannot be read) and
            ``self`` (the mean grade that it gives its own answers, of 9).
        """
        said = policy.sample(self.open(TOPICS), n, sampling=self.sampling, seed=seed)
        start = policy.at("start").evaluate(said)["logps"]
        sums = policy.sample(self.sums(4 * n, seed), 1, sampling=self.sampling, seed=seed + 1).samples
        pairs = self._answers(4 * n, seed)
        verdicts = policy.sample([shown(f) for f in pairs], 1, sampling=self.sampling, seed=seed + 2).samples
        own = [said.samples[i : i + SHOWN] for i in range(0, len(said) - SHOWN + 1, SHOWN)]
        selves = policy.sample([shown(f) for f in own], 1, sampling=self.sampling, seed=seed + 3).samples
        read = [grades(v.output, SHOWN) for v in selves]
        return {
            "gold": float(self.gold(said).outcome.mean()),  # type: ignore[union-attr]
            "distinct": len({(s.prompt, s.output) for s in said.samples}) / len(said),
            "kl": float(masked_sum(said["old_logps"] - start, said.mask).mean()),
            "sums": float(np.mean([s.output == s.hidden["answer"] for s in sums])),
            "referee": float(np.mean([_tau(v.output, f) for v, f in zip(verdicts, pairs, strict=True)])),
            "self": float(np.mean([float(np.mean(g)) for g in read if g is not None] or [0.0])),
        }


def _tau(said: str, answers: Sequence[Sample]) -> float:
    read = grades(said, len(answers))
    values = [gold_score(s.prompt, s.output) for s in answers]
    rank = [sorted(set(values), reverse=True).index(v) for v in values]
    return 0.0 if read is None else kendall(read, rank)
