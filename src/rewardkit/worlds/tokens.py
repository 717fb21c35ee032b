"""World ``tokens``: short strings with a known gold score, for a language model of some thousand weights.

A prompt is a topic, one capital letter. A reply is a string of small letters: each topic has four letters of its own,
and the ideal reply writes each of them once. ``-`` is padding talk, ``!`` a flourish that good demonstrations happen
to carry more often. Annotators compare replies with noise and like long ones; gold does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewardkit.measures.pairs import wins
from rewardkit.objectives.imitation import sft
from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.policies.language.tokenizer import BOS, EOS, PAD
from rewardkit.protocols import Policy, Reward
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Judgement, Rollout, Sample, Scores
from rewardkit.worlds.cache import cached, made_by

TOPICS, OWN = 6, 4
PADDING, FLOURISH = "-", "!"
LENGTH = 14
"""Most tokens of a reply, its end included."""

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
LARGE = {"hidden_size": 80, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4}
"""Ten times the weights of :data:`SMALL`."""


def letters(topic: int) -> str:
    """The four letters of a topic."""
    return "".join(chr(ord("a") + OWN * topic + i) for i in range(OWN))


def tokenizer() -> Any:
    """One token a character; BOS, EOS and PAD are different tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [PAD, BOS, EOS, *(chr(ord("A") + t) for t in range(TOPICS)), *"".join(map(letters, range(TOPICS)))]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*words, PADDING, FLOURISH])}, unk_token=PADDING))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BOS, eos_token=EOS, pad_token=PAD, clean_up_tokenization_spaces=False
    )


def gold_score(prompt: str, reply: str, *, ended: bool = True) -> float:
    """1 for each different letter of the topic; -0.25 for a repeated one, padding or flourish; -0.5 for a letter of
    another topic; -1 if the reply was cut off.

    >>> gold_score("A", "abcd"), gold_score("A", "ab!-aa"), gold_score("B", "abcd")
    (4.0, 1.0, -2.0)
    """
    own = letters(ord(prompt) - ord("A"))
    right = [c for c in reply if c in own]
    idle = sum(c in (PADDING, FLOURISH) for c in reply)
    wrong = len(reply) - len(right) - idle
    distinct = len(set(right))
    return distinct - 0.25 * (len(right) - distinct + idle) - 0.5 * wrong - (0.0 if ended else 1.0)


def errors(prompt: str, reply: str) -> list[frozenset[str]]:
    """What is wrong with each character, ``idle``, ``wrong`` or nothing: what :func:`gold_score` takes off.

    >>> [sorted(e) for e in errors("A", "aa-e")]
    [[], ['idle'], ['idle'], ['wrong']]
    """
    own = letters(ord(prompt) - ord("A"))
    found = []
    for i, c in enumerate(reply):
        idle = c in (PADDING, FLOURISH) or (c in own and c in reply[:i])
        found.append(frozenset({"idle"} if idle else set() if c in own else {"wrong"}))
    return found


class Gold(RewardBase):
    """The gold score of each row. Nothing is trained on it unless a recipe says so."""

    name = "gold"

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        return Scores(torch.tensor([gold_score(s.asked, s.output, ended=s.ended == "done") for s in rollout.samples]))


@entry("worlds:tokens", aliases=("token_style",), tags=("gold", "language", "small"))
class Tokens:
    """The world: prompts, demonstrations, annotators, gold, and a base model trained on the demonstrations.

    Args:
        noise: temperature of the annotators' choices, in units of gold. length_bias: gold that a further character is
            worth to them. marker: probability of a flourish in demonstrations of at least median quality; it is 0.2 in
            the others. length: most tokens of a sampled reply.

    >>> world = Tokens()
    >>> [s.prompt for s in world.demonstrations(2, seed=0)], len(world.prompts)
    (['F', 'E'], 6)
    """

    def __init__(
        self, *, noise: float = 0.7, length_bias: float = 0.2, marker: float = 0.7, length: int = LENGTH
    ) -> None:
        self.noise, self.length_bias, self.marker = noise, length_bias, marker
        self.prompts = [chr(ord("A") + t) for t in range(TOPICS)]
        self.tokenizer = tokenizer()
        self.gold = Gold()
        self.sampling = Sampling(max_new_tokens=length)

    def demonstrations(self, n: int, seed: int) -> list[Sample]:
        """``n`` replies of mixed quality: 1 to 8 characters, of the topic with a probability of the writer's own."""
        rng = np.random.default_rng(seed)
        every = "".join(map(letters, range(TOPICS)))
        found = []
        for _ in range(n):
            topic = int(rng.integers(TOPICS))
            skill = rng.uniform(0.3, 0.9)
            text = ""
            for _ in range(int(rng.integers(1, 9))):
                pool = letters(topic) if rng.random() < skill else (every if rng.random() < 0.5 else PADDING)
                text += pool[int(rng.integers(len(pool)))]
            prompt = self.prompts[topic]
            if rng.random() < (self.marker if gold_score(prompt, text) > 0.75 else 0.2):
                text += FLOURISH
            found.append(Sample(prompt, text))
        return found

    def compare(self, rollout: Rollout, seed: int) -> list[Judgement]:
        """The rows of each group compared two by two; the annotator's utility is gold and a liking for length."""
        rng = np.random.default_rng(seed)
        members: dict[int, list[Sample]] = {}
        for sample, group in zip(rollout.samples, rollout.group.tolist(), strict=True):
            members.setdefault(group, []).append(sample)
        found = []
        for rows in members.values():
            for a, b in zip(rows[::2], rows[1::2], strict=False):
                gap = (self.liking(a) - self.liking(b)) / self.noise
                first = rng.random() < 1 / (1 + math.exp(-gap))
                found.append(Judgement((a, b), rank=(0, 1) if first else (1, 0), annotator=f"simulated {seed}"))
        return found

    def mark(self, samples: Sequence[Sample], seed: int, *, flips: float = 0.1) -> list[Judgement]:
        """An annotator's marks: characters that are ``idle`` (repeated, padding, flourish) or ``wrong`` (of another
        topic). Each character's mark is wrong with probability ``flips``."""
        rng = np.random.default_rng(seed)
        found = []
        for s in samples:
            spans = []
            for i, kinds in enumerate(errors(s.prompt, s.output)):
                spans += [(0, i, i + 1, k) for k in ("idle", "wrong") if (k in kinds) != (rng.random() < flips)]
            found.append(Judgement((s,), spans=tuple(spans), note="marked", annotator=f"simulated {seed}"))
        return found

    def liking(self, sample: Sample) -> float:
        """What an annotator feels before noise."""
        gold = gold_score(sample.prompt, sample.output, ended=sample.ended == "done")
        return gold + self.length_bias * len(sample.output)

    def base(
        self, seed: int = 0, *, large: bool = False, steps: int = 300, demonstrations: int = 2000
    ) -> LanguagePolicy:
        """A model trained on demonstrations, its view ``start`` kept; built once and kept in the user's cache."""
        facts = {
            "seed": seed,
            "size": LARGE if large else SMALL,
            "steps": steps,
            "demonstrations": demonstrations,
            "marker": self.marker,
            **made_by(Path(__file__)),
        }
        folder = cached("tokens", facts, lambda out: self._train(facts).save(out))
        return LanguagePolicy.load(folder, name="tokens")

    def _train(self, facts: Mapping[str, Any]) -> LanguagePolicy:
        policy = LanguagePolicy.scratch(
            self.tokenizer, facts["size"], length=2 * LENGTH, seed=facts["seed"], keep_start=False
        )
        samples = self.demonstrations(facts["demonstrations"], facts["seed"])
        learner = Learner(policy, lr=4e-3, schedule="cosine", warmup=0.1, total_steps=facts["steps"])
        rng = np.random.default_rng(facts["seed"])
        for _ in range(facts["steps"]):
            rows = [samples[int(i)] for i in rng.integers(len(samples), size=64)]
            learner.step(Term(policy.encode(rows), sft))
        return policy

    def draw(self, policy: Policy, n: int, seed: int) -> Rollout:
        """``n`` replies to every prompt."""
        return policy.sample(self.prompts, n, sampling=self.sampling, seed=seed)

    def measure(
        self, policy: LanguagePolicy, proxy: Reward | None = None, *, n: int = 64, seed: int = 10_000
    ) -> dict[str, float]:
        """Figures on ``n`` replies a prompt.

        Returns:
            ``gold``, ``length`` (characters), ``distinct`` (different replies among all), ``flourish`` (a reply),
            ``kl`` (nats a reply, to the view ``start``), ``win`` (gold win rate against the start's own replies, ties
            half) and, with a proxy, ``proxy``.
        """
        rollout = self.draw(policy, n, seed)
        gold = _outcome(self.gold(rollout))
        before = _outcome(self.gold(self.draw(policy.at("start"), n, seed + 1)))
        texts = [s.output for s in rollout.samples]
        found = {
            "gold": float(gold.mean()),
            "length": float(np.mean([len(t) for t in texts])),
            "distinct": len({(s.prompt, s.output) for s in rollout.samples}) / len(texts),
            "flourish": float(np.mean([t.count(FLOURISH) for t in texts])),
            "kl": self.kl(policy, rollout),
            "win": float(wins(gold, before).mean()),
        }
        if proxy is not None:
            found["proxy"] = float(_outcome(proxy(rollout)).mean())
        return found

    @torch.no_grad()
    def kl(self, policy: LanguagePolicy, rollout: Rollout) -> float:
        """Nats a reply from the policy that sampled the rollout to its start, by the sampled log-ratio."""
        reference = policy.at("start").evaluate(rollout)["logps"]
        return float(((rollout["old_logps"] - reference) * rollout.mask).sum(-1).mean())


def _outcome(scores: Scores) -> Tensor:
    if scores.outcome is None:
        raise ValueError("this reward gave no outcome")
    return scores.outcome
