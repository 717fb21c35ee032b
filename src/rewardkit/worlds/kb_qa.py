"""World ``kb_qa``: questions to a small knowledge base, answered from what a noisy lexical retriever found.

A fact is an entity (``A`` to ``H``), an attribute (``x``, ``y``, ``z``) and a value, a digit; its document reads
``Ax3``. A question asks for one in four wordings that name the attribute differently (``?Ax``, ``pA?``, ``A:u``,
``wA``), and documents know only ``x``, ``y`` and ``z``: the retriever finds the right document for the first wording
nearly always, for the others at times, and else brings other facts. A prompt is the documents and the question:
``By7;Ax3;?Ax``. The reader is a language model of some thousand weights that learned from writers who err.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rewardkit.evals.consistency import paraphrase_consistency
from rewardkit.feedback.paraphrase import paraphrased
from rewardkit.measures.masked import masked_sum
from rewardkit.objectives.imitation import sft
from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.policies.language.words import word_tokenizer
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample, Scores
from rewardkit.worlds.cache import cached, made_by

ENTITIES, ATTRIBUTES = "ABCDEFGH", "xyz"
WORDINGS = (("?{e}{a}", "xyz"), ("{a}{e}?", "pqr"), ("{e}:{a}", "uvw"), ("{a}{e}", "klm"))
"""A wording's form, and what it calls each attribute."""
FOUND = (0.95, 0.75, 0.6, 0.45)
"""How often the retriever finds the right document, by wording."""
SIZE = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}


@cache
def tokenizer() -> Any:
    """One token a character."""
    return word_tokenizer([*ENTITIES, *"".join(names for _, names in WORDINGS), *"0123456789;?:"], unknown="?")


def worded(fact: str, wording: int) -> str:
    """The question for a fact, ``Ax``, in one of the wordings.

    >>> worded("Ax", 0), worded("By", 1)
    ('?Ax', 'qB?')
    """
    form, names = WORDINGS[wording]
    return form.format(e=fact[0], a=names[ATTRIBUTES.index(fact[1])])


class Gold(RewardBase):
    """1 for the right value, else 0."""

    name = "gold"

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        return Scores(torch.tensor([float(s.output == s.hidden["answer"]) for s in rollout.samples]))


@entry("worlds:kb_qa", aliases=("worlds:search_qa_single",), tags=("gold", "language", "retrieval", "small"))
class KnowledgeQA:
    """Facts, questions by family, a retriever, and a base reader.

    Args:
        documents: found for a question. slip: probability that a demonstration's writer gives another value. seed: of
            the facts.

    >>> world = KnowledgeQA()
    >>> family = world.questions(1, seed=0)
    >>> len(family), len({s.hidden["family"] for s in family}), len({s.hidden["answer"] for s in family})
    (4, 1, 1)
    """

    def __init__(self, *, documents: int = 3, slip: float = 0.25, seed: int = 0) -> None:
        self.documents, self.slip = documents, slip
        chance = np.random.default_rng(seed)
        self.facts = {e + a: str(chance.integers(10)) for e, a in itertools.product(ENTITIES, ATTRIBUTES)}
        self.tokenizer, self.gold, self.sampling = tokenizer(), Gold(), Sampling(max_new_tokens=3)

    def retrieve(self, fact: str, wording: int, rng: np.random.Generator) -> list[str]:
        """Facts whose documents are found for a question, in random order: others of the entity or attribute."""
        near = [f for f in self.facts if f != fact and (f[0] == fact[0] or f[1] == fact[1])]
        found = list(rng.choice(near, size=self.documents, replace=False))
        if rng.random() < FOUND[wording]:
            found[0] = fact
        return [str(f) for f in rng.permutation(found)]

    def ask(self, fact: str, wording: int, found: Sequence[str]) -> Sample:
        """A question with its documents; ``hidden`` has ``answer``, ``family`` and ``found``."""
        [asked] = paraphrased(Sample(fact, hidden={"answer": self.facts[fact]}), [partial(worded, wording=wording)])
        documents = ";".join(f + self.facts[f] for f in found)
        hidden = {**asked.hidden, "found": tuple(sorted(found))}
        return Sample(f"{documents};{asked.prompt}", source=asked.prompt, hidden=hidden)

    def questions(self, n: int, seed: int, *, same: bool = False) -> list[Sample]:
        """``n`` facts in every wording, the four of a fact side by side, each with a retrieval of its own.

        Args:
            same: give all four the documents of the first, to look at the reader alone.
        """
        rng = np.random.default_rng(seed)
        chosen = [str(f) for f in rng.permutation(list(self.facts))[:n]]
        found: list[Sample] = []
        for fact in chosen:
            seen = [self.retrieve(fact, w, rng) for w in range(len(WORDINGS))]
            found += [self.ask(fact, w, seen[0] if same else seen[w]) for w in range(len(WORDINGS))]
        return found

    def demonstrations(self, n: int, seed: int) -> list[Sample]:
        """``n`` questions with answers by writers who read the documents, and guess where these do not tell."""
        rng = np.random.default_rng(seed)
        found = []
        for _ in range(n):
            fact, wording = str(rng.choice(list(self.facts))), int(rng.integers(len(WORDINGS)))
            sample = self.ask(fact, wording, self.retrieve(fact, wording, rng))
            told = fact in sample.hidden["found"] and rng.random() >= self.slip
            said = self.facts[fact] if told else self.facts[str(rng.choice(sample.hidden["found"]))]
            found.append(Sample(sample.prompt, said, sample.source, sample.hidden))
        return found

    def base_policy(self, *, steps: int = 600, seed: int = 0) -> LanguagePolicy:
        """A reader trained on demonstrations, its view ``start`` kept; built once and kept in the user's cache."""
        facts: dict[str, Any] = {"steps": steps, "seed": seed, "slip": self.slip, "documents": self.documents}
        facts |= {"facts": self.facts, "size": SIZE, **made_by(Path(__file__))}
        folder = cached("kb_qa", facts, lambda out: self._train(steps, seed).save(out))
        return LanguagePolicy.load(folder, name="kb_qa")

    def _train(self, steps: int, seed: int) -> LanguagePolicy:
        policy = LanguagePolicy.scratch(self.tokenizer, SIZE, length=32, seed=seed, keep_start=False)
        learner = Learner(policy, lr=4e-3, schedule="cosine", warmup=0.05, total_steps=steps)
        for step in range(steps):
            learner.step(Term(policy.encode(self.demonstrations(64, seed=seed * 1_000_003 + step)), sft))
        return policy

    @torch.no_grad()
    def measure(self, policy: LanguagePolicy, *, n: int = 4, draws: int = 3, seed: int = 9_000) -> dict[str, float]:
        """Figures over all facts, with ``draws`` retrievals nobody trained on and ``n`` answers to each question.

        Returns:
            ``gold`` (right answers), ``consistency`` (how often two answers to different wordings of a question agree,
            each with its own documents: end to end), ``reader`` (the same with equal documents), ``retriever`` (how
            often two wordings' documents are equal), ``distinct`` (different answers among all values, 1 at most),
            ``kl`` (nats an answer, to the start).
        """
        asked = [s for d in range(draws) for s in self.questions(len(self.facts), seed + d)]
        same = [s for d in range(draws) for s in self.questions(len(self.facts), seed + d, same=True)]
        rollout = policy.sample(asked, n, sampling=self.sampling, seed=seed)
        alike = policy.sample(same, n, sampling=self.sampling, seed=seed + 1)
        start = policy.at("start").evaluate(rollout)["logps"]
        every = np.unique([s.output for s in rollout.samples], return_counts=True)[1] / len(rollout)
        return {
            "gold": float(self.gold(rollout).outcome.mean()),  # type: ignore[union-attr]
            "consistency": self._agreement([s.output for s in rollout.samples], n),
            "reader": self._agreement([s.output for s in alike.samples], n),
            "retriever": self._agreement([s.hidden["found"] for s in asked], 1),
            "distinct": float(np.exp(-(every * np.log(every)).sum()) / 10),
            "kl": float(masked_sum(rollout["old_logps"] - start, rollout.mask).mean()),
        }

    @staticmethod
    def _agreement(said: Sequence[Any], n: int) -> float:
        """How often two of different wordings agree; ``n`` of each wording stand together, four wordings a fact."""
        wordings = [said[i : i + n] for i in range(0, len(said), n)]
        size = len(WORDINGS)
        return paraphrase_consistency([wordings[i : i + size] for i in range(0, len(wordings), size)]).value
