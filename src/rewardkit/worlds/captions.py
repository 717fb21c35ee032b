"""World ``captions``: a small vision-language model says what stands in the pictures of world ``shapes``."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rewardkit.measures.masked import masked_sum
from rewardkit.objectives.imitation import sft
from rewardkit.policies.language import Sampling, train_tokenizer
from rewardkit.policies.vision_language import VisionLanguagePolicy
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.types import Judgement, Rollout, Sample, Scores
from rewardkit.worlds.annotators import bradley_terry
from rewardkit.worlds.cache import cached, made_by
from rewardkit.worlds.shapes.scene import COLOURS, SHAPES, SIZES, Scene, captions, drawn, garbled

QUESTION = "What is shown?"
HOW = Sampling(max_new_tokens=8)
GARBLED = 0.25
"""Share of words that a demonstration gets wrong."""
SHOWN = 4
"""Walks over the demonstrations: few, so that their errors are not learned by heart."""
SIZE = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}


def right(reply: str, truth: Scene) -> float:
    """The share of number, size, colour and shape that a caption has right; 0 for what is no caption.

    >>> right("two small red discs", Scene.parse("two large red squares"))
    0.5
    """
    try:
        said = Scene.parse(reply)
    except ValueError:
        return 0.0
    names = ("count", "size", "colour", "shape")
    return sum(getattr(said, n) == getattr(truth, n) for n in names) / len(names)


class RightCaption(RewardBase):
    """Gold: see :func:`right`; the scene is in ``hidden["scene"]``."""

    name = "gold"

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        found = [right(spoken(s), s.hidden["scene"]) for s in rollout.samples]
        return Scores(torch.tensor(found, device=rollout.mask.device))


def spoken(sample: Sample) -> str:
    """The text of a reply."""
    return sample.output if isinstance(sample.output, str) else str(sample.output[-1]["content"])


@entry("worlds:captions", tags=("vision-language",))
class Captions:
    """Prompts are messages with a picture and a question; a reply should be its caption, ``two small red discs``.

    The base policy learns to see from pictures with right captions, and then to answer from demonstrations that get a
    quarter of their words wrong. Gold compares with the scene that was drawn.

    Args:
        seed: of everything.

    >>> world = Captions()
    >>> sample = world.demonstrations(1, seed=0)[0]
    >>> sample.prompt[0]["content"][0]["image"].shape, sample.output in captions(places=False)
    (torch.Size([3, 32, 32]), True)
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.gold = seed, RightCaption()

    def prompts(self, n: int, seed: int) -> list[Sample]:
        """``n`` pictures with the question."""
        chance = random.Random(f"{self.seed}:{seed}")
        return [self._asked(drawn(chance)) for _ in range(n)]

    def _asked(self, scene: Scene) -> Sample:
        parts = [{"type": "image", "image": scene.picture()}, {"type": "text", "text": QUESTION}]
        return Sample([{"role": "user", "content": parts}], hidden={"scene": scene})

    def demonstrations(self, n: int, seed: int, *, garble: float = GARBLED) -> list[Sample]:
        """``n`` pictures with captions of lower quality: each word is wrong with probability ``garble``."""
        chance, found = random.Random(f"{self.seed}:{seed}:said"), []
        for asked in self.prompts(n, seed):
            said = garbled(asked.hidden["scene"], chance, garble)
            caption = Scene(said.shape, said.colour, said.count, said.size).caption
            found.append(Sample(asked.prompt, caption, hidden=asked.hidden))
        return found

    def compare(
        self, first: Sequence[Sample], second: Sequence[Sample], *, seed: int, noise: float = 0.15
    ) -> list[Judgement]:
        """Simulated annotators: Bradley-Terry on gold, ``noise`` reward units a nat."""
        return bradley_terry(first, second, (self._gold(first) - self._gold(second)) / noise, seed=seed)

    def _gold(self, samples: Sequence[Sample]) -> torch.Tensor:
        return torch.tensor([right(spoken(s), s.hidden["scene"]) for s in samples])

    def policy(self, *, seed: int = 0) -> VisionLanguagePolicy:
        """An untrained policy."""
        words = [*captions(places=False), QUESTION, *SHAPES, *COLOURS, *SIZES]
        tokenizer = train_tokenizer(words * 3, 400)
        return VisionLanguagePolicy.scratch(tokenizer, SIZE, image=32, patch=8, length=64, seed=seed, keep_start=False)

    def build(self, *, pictures: int = 8000, steps: int = 3000, seed: int = 0, force: bool = False) -> Path:
        """The folder of the base policy, trained where it is missing.

        Args:
            pictures: with right captions; half as many are demonstrations. steps: updates on the former.
        """
        facts: dict[str, Any] = {"world": self.seed, "pictures": pictures, "steps": steps, "seed": seed}

        def make(folder: Path) -> None:
            policy = self.policy(seed=seed)
            told = self.demonstrations(pictures, seed=1_000 + seed, garble=0.0)
            imitate(policy, told, lr=1e-3, epochs=steps * 32 / pictures, batch=32, seed=seed)
            said = self.demonstrations(pictures // 2, seed=2_000 + seed)
            imitate(policy, said, lr=2e-4, epochs=SHOWN, batch=64, seed=seed)
            policy.save(folder)

        return cached("captions", facts | made_by(Path(__file__)), make, force=force)

    def base_policy(self, *, pictures: int = 8000, steps: int = 3000, seed: int = 0) -> VisionLanguagePolicy:
        """The policy of :meth:`build`, its view ``start`` kept; built once into the cache."""
        folder = self.build(pictures=pictures, steps=steps, seed=seed)
        return VisionLanguagePolicy.load(folder, name="captions")

    @torch.no_grad()
    def measure(self, policy: VisionLanguagePolicy, *, n: int = 256, seed: int = 9) -> dict[str, float]:
        """Figures on ``n`` pictures that nothing was trained on.

        Returns:
            ``gold``; ``greedy``, gold where the most likely words are taken; ``exact``, the share of captions with
            every word right; ``kl`` to the start a reply, nats; and ``distinct``, the share of the world's captions
            that was said at all.
        """
        prompts, known = self.prompts(n, 50_000 + seed), captions(places=False)
        rollout = policy.sample(prompts, sampling=HOW, seed=seed)
        greedy = policy.sample(prompts, sampling=replace(HOW, greedy=True), seed=seed)
        start = policy.at("start").evaluate(rollout)["logps"]
        gold = self._gold(rollout.samples)
        return {
            "gold": float(gold.mean()),
            "greedy": float(self._gold(greedy.samples).mean()),
            "exact": float((gold == 1).float().mean()),
            "kl": float(masked_sum(rollout["old_logps"] - start, rollout.mask).mean()),
            "distinct": len({spoken(s) for s in rollout.samples} & set(known)) / len(known),
        }


def imitate(
    policy: VisionLanguagePolicy, said: Sequence[Sample], *, lr: float, epochs: float, batch: int, seed: int
) -> VisionLanguagePolicy:
    """The policy, fitted in place to what was said."""
    learner = Learner(policy, lr=lr, schedule="cosine", warmup=0.05)
    for _ in fit(learner, policy.encode(said), sft, epochs=epochs, batch=batch, seed=seed):
        pass
    return policy
