"""The world: a knowledge base, questions of 2 to 4 hops, annotators, gold, and a base policy of mixed manners."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rewardkit.measures.masked import masked_sum
from rewardkit.objectives.imitation import sft
from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.policies.language.tool_calls import assistant, hermes
from rewardkit.policies.tools import Search, ToolGame
from rewardkit.protocols import Policy
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.rules.answers import final_answer
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Judgement, Rollout, Sample, Scores
from rewardkit.worlds.agents.language import NAMES, RELATIONS, call, question, tokenizer
from rewardkit.worlds.annotators import first_wins, judged
from rewardkit.worlds.cache import cached, made_by

HOPS = (2, 3, 4)
SIZE = {
    "hidden_size": 48,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": 0.1,
}


class Gold(RewardBase):
    """1 where the final answer is right, else 0."""

    name = "gold"

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        return Scores(torch.tensor([float(right(s)) for s in rollout.samples], device=rollout.mask.device))


def right(sample: Sample) -> bool:
    """Whether the final answer is the expected one."""
    said = final_answer(sample)
    return said is not None and said.strip() == sample.hidden["answer"].strip()


def calls(sample: Sample) -> int:
    """How often a tool was called."""
    return sum(len(m.get("tool_calls") or ()) for m in sample.output)


@entry("worlds:agents", aliases=("search_qa",), tags=("gold", "language", "agent", "tool", "small"))
class Agents:
    """Questions such as `` what is the boss of the mother of ann ?``, answered by looking up one relation at a time.

    A policy calls ``lookup`` with a relation and a name, reads `` the mother of ann is bob``, and answers with a name.
    Demonstrations are of mixed quality: their writers look up the wrong relation, lose the thread, or guess before they
    are done. Annotators like right answers and dislike needless calls.

    Args:
        hops: of the questions. seed: of the knowledge base and the base policy. noise: temperature of the annotators'
            choices.

    >>> world = Agents()
    >>> [sample] = world.prompts(1, seed=0)
    >>> world.search.lookup("mother ann").startswith(" the mother of ann is")
    True
    >>> len(sample.hidden["path"]), sample.hidden["answer"] == " " + sample.hidden["path"][-1]
    (2, True)
    """

    def __init__(self, hops: Sequence[int] = HOPS, *, seed: int = 0, noise: float = 0.6) -> None:
        if not hops or not set(hops) <= set(HOPS):
            raise ValueError(f"hops are among {HOPS}, not {tuple(hops)}")
        self.hops, self.seed, self.noise = tuple(hops), seed, noise
        rng = np.random.default_rng(seed)
        self.facts = {r: dict(zip(NAMES, _elsewhere(rng), strict=True)) for r in RELATIONS}
        known = [(r, name, self.facts[r][name]) for r in RELATIONS for name in NAMES]
        documents = [f" the {r} of {name} is {other}" for r, name, other in known]
        self.search = Search(documents, titles=[f"{r} {name}" for r, name, _ in known], most=1)
        self.env = partial(ToolGame, [self.search.lookup])
        self.schemas = self.env().schemas
        self.gold = Gold()
        self.tokenizer = tokenizer()
        self.sampling = Sampling(max_new_tokens=8, max_turns=max(hops) + 2)

    def prompts(self, n: int, seed: int, *, test: bool = False) -> list[Sample]:
        """``n`` different questions, hops in turn; with ``test`` those that nothing is trained on."""
        rng = np.random.default_rng(seed)
        found: dict[str, Sample] = {}
        for _ in range(100 * (n + 10)):
            if len(found) == n:
                break
            one = self._question(self.hops[len(found) % len(self.hops)], rng)
            if _held_out(one.source) == test and one.source not in found:
                found[one.source] = one
        if len(found) < n:
            raise ValueError(
                f"there are not {n} different {'test' if test else 'training'} questions of {self.hops} hops"
            )
        return list(found.values())

    def _question(self, hops: int, rng: np.random.Generator) -> Sample:
        name = NAMES[int(rng.integers(len(NAMES)))]
        relations = tuple(RELATIONS[int(i)] for i in rng.integers(len(RELATIONS), size=hops))
        path, now = [], name
        for r in relations:
            now = self.facts[r][now]
            path.append(now)
        text = question(name, relations)
        prompt = [{"role": "user", "content": text, "tools": self.schemas}]
        hidden = {"answer": f" {now}", "hops": hops, "path": path, "name": name, "relations": relations}
        return Sample(prompt, source=text, hidden=hidden)

    def demonstrations(self, n: int, seed: int) -> list[Sample]:
        """``n`` games, of any number of hops, of writers with a skill of their own, between 0.3 and 1."""
        rng = np.random.default_rng(seed)
        found: list[Sample] = []
        while len(found) < n:
            sample = self._question(int(rng.choice(HOPS)), rng)
            if not _held_out(sample.source):
                found.append(self._game(sample, float(rng.uniform(0.3, 1.0)), rng))
        return found

    def _game(self, sample: Sample, skill: float, rng: np.random.Generator) -> Sample:
        """One game: before each hop the writer may give up and guess, may look up the wrong thing."""
        game, output, now = self.env(), [], sample.hidden["name"]
        game.reset(sample)
        for relation in sample.hidden["relations"]:
            if rng.random() < 0.25 * (1 - skill):
                remembers = rng.random() < 0.4
                now = sample.hidden["path"][-1] if remembers else NAMES[int(rng.integers(len(NAMES)))]
                break
            wrong = rng.random() < 0.35 * (1 - skill)
            asked = RELATIONS[int(rng.integers(len(RELATIONS)))] if wrong else relation
            message = assistant(call(asked, now), hermes)
            said, _ = game.step(message)
            output += [message, *said]
            now = self.facts[asked][now]
        return Sample(sample.prompt, [*output, assistant(f" {now}")], sample.source, sample.hidden)

    def compare(self, first: Sequence[Sample], second: Sequence[Sample], *, seed: int) -> list[Judgement]:
        """Simulated annotators who compare games: Bradley-Terry on :meth:`liking`."""
        gaps = np.array([self.liking(a) - self.liking(b) for a, b in zip(first, second, strict=True)])
        return judged(first, second, first_wins(gaps / self.noise, np.random.default_rng(seed)))

    def liking(self, sample: Sample) -> float:
        """What an annotator feels before noise: 1 for a right answer, a third for each needed fact that was looked up,
        a tenth off for each call beyond the hops."""
        seen = [m["content"] for m in sample.output if m["role"] == "tool"]
        names = [sample.hidden["name"], *sample.hidden["path"]]
        steps = zip(sample.hidden["relations"], names, strict=False)
        found = sum(any(s.startswith(f" the {r} of {name} is") for s in seen) for r, name in steps)
        needless = max(0, calls(sample) - sample.hidden["hops"])
        return float(right(sample)) + found / 3 - 0.1 * needless

    def base_policy(self, *, steps: int = 200) -> LanguagePolicy:
        """A model trained on demonstrations of all hops, its view ``start`` kept; built once and kept in the user's
        cache."""
        return LanguagePolicy.load(self.build(steps=steps), name="agents")

    def build(self, *, steps: int = 200, force: bool = False) -> Path:
        """The folder of the base policy in the user's cache, trained where it is missing or with ``force``."""
        facts: dict[str, Any] = {"steps": steps, "seed": self.seed, "size": SIZE, **made_by(Path(__file__))}
        return cached("agents", facts, lambda out: self._train(steps).save(out), force=force)

    def _train(self, steps: int) -> LanguagePolicy:
        policy = LanguagePolicy.scratch(self.tokenizer, SIZE, length=128, seed=self.seed, keep_start=False)
        learner = Learner(policy, lr=6e-3, schedule="cosine", warmup=0.05, total_steps=steps)
        samples = self.demonstrations(8 * steps, self.seed)
        data = policy.encode(samples)
        rng = np.random.default_rng(self.seed)
        for _ in range(steps):
            learner.step(Term(data.select(rng.integers(len(samples), size=32).tolist()), sft))
        return policy

    def play(self, policy: Policy, prompts: Sequence[Sample], n: int, seed: int) -> Rollout:
        """``n`` games of each question."""
        return policy.sample(prompts, n, env=self.env, sampling=self.sampling, seed=seed)  # type: ignore[call-arg]

    @torch.no_grad()
    def measure(self, policy: Policy, *, n: int = 4, prompts: int = 60, seed: int = 9) -> dict[str, float]:
        """Figures on ``n`` games of each of ``prompts`` held-out questions.

        Returns:
            ``gold`` (share of right answers), ``liking``, ``calls`` (a game), ``distinct`` (different games among all),
            ``kl`` (nats a game, to the start).
        """
        rollout = self.play(policy, self.prompts(prompts, seed, test=True), n, seed)
        start = policy.at("start").evaluate(rollout)["logps"]
        games = {(s.source, str(s.output)) for s in rollout.samples}
        return {
            "gold": float(np.mean([right(s) for s in rollout.samples])),
            "liking": float(np.mean([self.liking(s) for s in rollout.samples])),
            "calls": float(np.mean([calls(s) for s in rollout.samples])),
            "distinct": len(games) / len(rollout),
            "kl": float(masked_sum(rollout["old_logps"] - start, rollout.mask).mean()),
        }


def _held_out(text: Any) -> bool:
    return int(hashlib.blake2b(str(text).encode(), digest_size=4).hexdigest(), 16) % 5 == 0


def _elsewhere(rng: np.random.Generator) -> list[str]:
    """The names in an order in which nobody stands at his own place."""
    while True:
        order = [NAMES[int(i)] for i in rng.permutation(len(NAMES))]
        if all(a != b for a, b in zip(order, NAMES, strict=True)):
            return order
