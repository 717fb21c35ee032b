"""World ``arithmetic``: chains of sums to be worked out step by step, for a language model of 56,000 weights.

A prompt is ``4+3a*2b-5c=``, lettered operations worked from the left without precedence; a reply gives the result of
each and so, last, the answer: ``a7b14c9``. A chain's *depth* is its number of operations. Numbers are digits: ``15``
is two tokens. The base policy learned from writers who slip, and from few long chains, so it is right at times.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rewardkit.measures.masked import masked_sum
from rewardkit.objectives.imitation import sft
from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.policies.language.words import word_tokenizer
from rewardkit.protocols import Policy
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Judgement, Rollout, Sample, Scores
from rewardkit.worlds.annotators import first_wins, judged
from rewardkit.worlds.cache import cached, made_by

DEPTHS = (1, 2, 3, 4, 5)
LETTERS = "abcde"
LARGEST, OPERAND = 19, 5
SIZE = {
    "hidden_size": 48,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.1,  # so narrow a model learns its tables twice as fast from there
}
MIX = {1: 7, 2: 7, 3: 5, 4: 1}
"""Relative numbers of demonstrations of each depth; there are none of depth 5."""


@cache
def tokenizer() -> Any:
    """One token a character."""
    return word_tokenizer([*"0123456789+-*=", *LETTERS], unknown="=")


def results(chain: str) -> list[int]:
    """The value after each operation of a chain, from the left.

    >>> results("4+3a*2b-5c=")
    [7, 14, 9]
    """
    value, found = int(chain[0]), []
    for sign, number in operations(chain):
        value = _apply(value, sign, number)
        found.append(value)
    return found


def operations(chain: str) -> list[tuple[str, int]]:
    """Sign and number of each operation."""
    return [(chain[place], int(chain[place + 1])) for place in range(1, len(chain) - 1, 3)]


def chain_of(depth: int, rng: np.random.Generator, signs: str = "+-*") -> str:
    """A chain whose results all lie between 0 and 19; ``signs`` holds more than a product."""
    value = int(rng.integers(1, 10))
    text = str(value)
    for letter in LETTERS[:depth]:
        options = [("+", n) for n in range(1, OPERAND + 1) if value + n <= LARGEST]
        options += [("-", n) for n in range(1, OPERAND + 1) if value - n >= 0]
        options += [("*", n) for n in (2, 3) for _ in range(2) if 0 < value * n <= LARGEST]
        options = [o for o in options if o[0] in signs]
        sign, number = options[int(rng.integers(len(options)))]
        value = _apply(value, sign, number)
        text += f"{sign}{number}{letter}"
    return text + "="


def answer_of(reply: str) -> str:
    """The digits at the end of a reply."""
    return reply[len(reply.rstrip("0123456789")) :]


def held_out(chain: str) -> bool:
    """Whether a chain is for testing only: a fifth of all, by its own digits."""
    return int(hashlib.blake2b(chain.encode(), digest_size=4).hexdigest(), 16) % 5 == 0


class Gold(RewardBase):
    """1 where the answer is right and the reply came to its end, else 0. How it was worked out does not count."""

    name = "gold"

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        return Scores(torch.tensor([float(right(s)) for s in rollout.samples], device=rollout.mask.device))


def right(sample: Sample) -> bool:
    """Whether a reply ends with the right answer."""
    return sample.ended == "done" and answer_of(sample.output) == str(results(sample.asked)[-1])


def steps_right(sample: Sample) -> float:
    """The share of the chain's results that a reply gives at their places: what annotators see beside the answer."""
    want = worked(results(sample.asked))
    said = re.findall(r"[a-e]\d*", sample.output)
    return sum(a == b for a, b in zip(want, said, strict=False)) / len(want)


def worked(values: Sequence[int]) -> list[str]:
    """Lettered results, the pieces of a reply.

    >>> "".join(worked([7, 14, 9]))
    'a7b14c9'
    """
    return [f"{letter}{value}" for letter, value in zip(LETTERS, values, strict=False)]


@entry("worlds:arithmetic", aliases=("compositional_arithmetic",), tags=("gold", "language", "verifiable", "small"))
class Arithmetic:
    """The world: prompts by depth, demonstrations, annotators, gold, and a base model of partial skill.

    Args:
        depths: of the prompts. longest: depth of the demonstrations. slip: probability that a demonstration's writer
            errs at a step. noise: temperature of the annotators' choices, in units of gold. seed: of
            the base policy.

    >>> world = Arithmetic(depths=(2,))
    >>> [sample] = world.prompts(1, seed=0)
    >>> len(results(sample.prompt)), sample.hidden["answer"] == str(results(sample.prompt)[-1])
    (2, True)
    """

    def __init__(
        self,
        depths: Sequence[int] = (1, 2, 3),
        *,
        longest: int = 4,
        slip: float = 0.2,
        noise: float = 0.25,
        seed: int = 0,
    ) -> None:
        if not depths or not set(depths) <= set(DEPTHS):
            raise ValueError(f"depths are among {DEPTHS}, not {tuple(depths)}")
        self.depths, self.longest, self.slip, self.noise, self.seed = tuple(depths), longest, slip, noise, seed
        self.tokenizer = tokenizer()
        self.gold = Gold()
        self.sampling = Sampling(max_new_tokens=3 * max(depths) + 2)

    def prompts(self, n: int, seed: int, *, test: bool = False) -> list[Sample]:
        """``n`` different chains, depths in turn; with ``test`` those that nothing is trained on."""
        rng = np.random.default_rng(seed)
        found: dict[str, Sample] = {}
        for _ in range(100 * (n + 10)):
            if len(found) == n:
                break
            depth = self.depths[len(found) % len(self.depths)]
            chain = chain_of(depth, rng)
            if held_out(chain) == test and chain not in found:
                found[chain] = Sample(chain, hidden={"answer": str(results(chain)[-1]), "depth": depth})
        if len(found) < n:
            raise ValueError(
                f"there are not {n} different {'test' if test else 'training'} chains of depths {self.depths}"
            )
        return list(found.values())

    def demonstrations(self, n: int, seed: int) -> list[Sample]:
        """``n`` worked chains up to the depth ``longest``, by writers who slip and go on from their wrong result."""
        rng = np.random.default_rng(seed)
        depths = [d for d in MIX if d <= self.longest]
        shares = np.array([MIX[d] for d in depths]) / sum(MIX[d] for d in depths)
        found: list[Sample] = []
        while len(found) < n:
            chain = chain_of(int(rng.choice(depths, p=shares)), rng)
            if held_out(chain):
                continue
            value, said = int(chain[0]), []
            for sign, number in operations(chain):
                value = _apply(value, sign, number)
                if rng.random() < self.slip:
                    value += int(rng.choice([-2, -1, 1, 2, 10, -10]))
                value = min(max(value, 0), LARGEST)
                said.append(value)
            found.append(Sample(chain, "".join(worked(said))))
        return found

    def compare(self, first: Sequence[Sample], second: Sequence[Sample], *, seed: int) -> list[Judgement]:
        """Simulated annotators: Bradley-Terry on :meth:`liking`."""
        gaps = np.array([self.liking(a) - self.liking(b) for a, b in zip(first, second, strict=True)])
        return judged(first, second, first_wins(gaps / self.noise, np.random.default_rng(seed)))

    def liking(self, sample: Sample) -> float:
        """What an annotator feels before noise: half for the answer, half for the steps."""
        return 0.5 * right(sample) + 0.5 * steps_right(sample)

    def base_policy(self, *, steps: int = 2000) -> LanguagePolicy:
        """A model trained on demonstrations, its view ``start`` kept; built once and kept in the user's cache."""
        return LanguagePolicy.load(self.build(steps=steps), name="arithmetic")

    def build(self, *, steps: int = 2000, force: bool = False) -> Path:
        """The folder of the base policy in the user's cache, trained where it is missing or with ``force``."""
        facts: dict[str, Any] = {"steps": steps, "seed": self.seed, "slip": self.slip, "longest": self.longest}
        facts |= {"size": SIZE, **made_by(Path(__file__))}
        return cached("arithmetic", facts, lambda out: self._train(steps).save(out), force=force)

    def _train(self, steps: int) -> LanguagePolicy:
        policy = LanguagePolicy.scratch(self.tokenizer, SIZE, length=40, seed=self.seed, keep_start=False)
        learner = Learner(policy, lr=8e-3, schedule="cosine", warmup=0.05, total_steps=steps)
        data = policy.encode(self.demonstrations(5 * steps, self.seed))
        rng = np.random.default_rng(self.seed)
        for _ in range(steps):
            learner.step(Term(data.select(rng.integers(len(data), size=64).tolist()), sft))
        return policy

    @torch.no_grad()
    def measure(self, policy: Policy, *, n: int = 8, prompts: int = 96, seed: int = 9) -> dict[str, float]:
        """Figures on ``n`` replies to each of ``prompts`` held-out chains.

        Returns:
            ``gold`` (share of right answers), ``distinct`` (different replies among all), ``kl`` (nats a reply, to the
            start).
        """
        rollout = policy.sample(self.prompts(prompts, seed, test=True), n, sampling=self.sampling, seed=seed)
        start = policy.at("start").evaluate(rollout)["logps"]
        return {
            "gold": float(np.mean([right(s) for s in rollout.samples])),
            "distinct": len({(s.prompt, s.output) for s in rollout.samples}) / len(rollout),
            "kl": float(masked_sum(rollout["old_logps"] - start, rollout.mask).mean()),
        }


def _apply(value: int, sign: str, number: int) -> int:
    return value + number if sign == "+" else value - number if sign == "-" else value * number
