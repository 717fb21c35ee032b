"""World ``shapes``: generators of captioned pictures on small latents, with a gold reward that reads the pixels."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rewardkit.measures.masked import masked_sum
from rewardkit.objectives.imitation import sft
from rewardkit.policies.diffusion import Denoise, Diffusion, DiffusionPolicy, Flow
from rewardkit.policies.diffusion.grid import GridNet
from rewardkit.registry import entry
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Judgement, Sample
from rewardkit.worlds.annotators import bradley_terry
from rewardkit.worlds.cache import cached, made_by
from rewardkit.worlds.shapes.coder import LATENT, PATCH, Coder, CoderModel
from rewardkit.worlds.shapes.detect import read
from rewardkit.worlds.shapes.gold import Gold
from rewardkit.worlds.shapes.scene import SIDE, Scene, captions, drawn, garbled

Kind = Literal["diffusion", "flow"]

PROMPTS = (
    "one small red disc", "two small blue squares", "three small green discs", "one large yellow triangle",
    "two large green squares", "three small red triangles", "one large blue disc on the left",
    "one small yellow square at the top",
)  # fmt: skip
GARBLED = 0.25
"""Share of attributes that a demonstration gets wrong."""
STEPS = 2500
SHAPE = (LATENT, SIDE // PATCH, SIDE // PATCH)


@entry("worlds:shapes", tags=("diffusion", "flow", "image"))
class Shapes:
    """Captions such as ``two small blue squares``, pictures of 32x32 pixels, latents of 8x8x4.

    Demonstrations are of all captions of the world, each attribute wrong in a quarter of them; ``prompts`` are the few
    that policies are optimised and measured on.

    Args:
        prompts: captions. seed: of everything.

    >>> world = Shapes()
    >>> sample = world.demonstrations(1, seed=0)[0]
    >>> sample.output.shape
    torch.Size([3, 32, 32])
    """

    def __init__(self, prompts: Sequence[str] = PROMPTS, seed: int = 0) -> None:
        self.prompts, self.seed, self.gold = list(prompts), seed, Gold()

    def demonstrations(self, n: int, *, seed: int, garble: float = GARBLED) -> list[Sample]:
        """``n`` captions, half of them from ``prompts``, with pictures of which a share ``garble`` of the attributes is
        wrong."""
        chance, every, found = random.Random(seed), captions(), []
        for _ in range(n):
            asked = Scene.parse(chance.choice(chance.choice((every, self.prompts))))
            found.append(Sample(asked.caption, garbled(asked, chance, garble).picture()))
        return found

    def compare(
        self, first: Sequence[Sample], second: Sequence[Sample], *, seed: int, noise: float = 0.1
    ) -> list[Judgement]:
        """Simulated annotators: Bradley-Terry on gold, ``noise`` reward units a nat."""
        return bradley_terry(first, second, (self.gold.of(first) - self.gold.of(second)) / noise, seed=seed)

    def condition(self, prompt: Any) -> Tensor:
        """A caption's attributes, ``[17]``; zeros for no prompt."""
        return _code(None if prompt is None else str(prompt))

    def policy(self, kind: Kind = "flow", *, coder: Coder | None = None) -> DiffusionPolicy:
        """An untrained policy, on an untrained autoencoder unless one is given."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = GridNet(SHAPE, len(_code(None)), scale=10.0 if kind == "diffusion" else 1000.0)
            codec = (coder or Coder()).requires_grad_(False).eval()
        process = Diffusion.cosine(100, "v_prediction") if kind == "diffusion" else Flow()
        return DiffusionPolicy(net, process, SHAPE, condition=self.condition, codec=codec, draws=2, seed=self.seed)

    def coder(self, *, steps: int = 1200) -> Coder:
        """The autoencoder, built once into the cache."""
        facts: dict[str, Any] = {"what": "coder", "steps": steps, "seed": self.seed} | made_by(Path(__file__))

        def make(folder: Path) -> None:
            save_file(dict(self._train_coder(steps).state_dict()), folder / "model.safetensors")

        found = Coder()
        found.load_state_dict(load_file(cached("shapes", facts, make) / "model.safetensors"))
        return found.requires_grad_(False).eval()

    def build(self, kind: Kind = "flow", *, steps: int = STEPS, coder_steps: int = 1200, force: bool = False) -> Path:
        """The cached folder of a base policy, trained on demonstrations by denoising where it is missing."""
        facts: dict[str, Any] = {"what": kind, "steps": steps, "coder": coder_steps, "seed": self.seed}
        facts |= {"prompts": self.prompts, "diffusers": version("diffusers")} | made_by(Path(__file__))

        def make(folder: Path) -> None:
            policy = self._train(kind, self.coder(steps=coder_steps), steps)
            save_file(dict(policy.module.state_dict()), folder / "model.safetensors")

        return cached("shapes", facts, make, force=force)

    def base_policy(self, kind: Kind = "flow", *, steps: int = STEPS, coder_steps: int = 1200) -> DiffusionPolicy:
        """A policy trained on demonstrations, its view ``start`` kept; see :meth:`build`."""
        folder = self.build(kind, steps=steps, coder_steps=coder_steps)
        policy = self.policy(kind, coder=self.coder(steps=coder_steps))
        policy.module.load_state_dict(load_file(folder / "model.safetensors"))
        policy.keep("start")
        return policy

    def _train_coder(self, steps: int) -> Coder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = CoderModel(Coder(), seed=self.seed)
        pool = _pictures(max(64, min(4096, 8 * steps)), self.seed)
        learner = Learner(model, lr=3e-3, schedule="cosine", warmup=0.05, total_steps=steps)
        chance = random.Random(self.seed)
        for _ in range(steps):
            learner.step(Term(model.encode(chance.sample(pool, 32)), sft))
        return model.module.eval()

    def _train(self, kind: Kind, coder: Coder, steps: int) -> DiffusionPolicy:
        policy = self.policy(kind, coder=coder)
        pool = self.demonstrations(max(64, min(8192, 8 * steps)), seed=self.seed)
        learner = Learner(policy, lr=2e-3, schedule="cosine", warmup=0.05, total_steps=steps)
        chance = random.Random(self.seed)
        for _ in range(steps):
            learner.step(Term(policy.encode(chance.sample(pool, 64)), sft))
        return policy

    @torch.no_grad()
    def measure(
        self, policy: DiffusionPolicy, *, n: int = 32, sampling: Denoise | None = None, seed: int = 9
    ) -> dict[str, float]:
        """Figures on ``n`` pictures a prompt.

        Returns:
            ``gold``; ``spread``, the root mean squared distance of two pictures of a prompt, a pixel; ``entropy`` in
            bits of what is read in the pictures of a prompt (colour, shapes and count), which falls as they get right;
            and ``kl`` to the start in nats over whole paths, which bounds that of the pictures.
        """
        rollout = policy.sample(self.prompts, n, sampling=sampling, seed=seed)
        start = policy.at("start").evaluate(rollout)["logps"]
        pictures = torch.stack([s.output for s in rollout.samples]).reshape(len(self.prompts), n, -1)
        seen = [[_seen(r) for r in read(x.reshape(n, 3, SIDE, SIDE))] for x in pictures]
        return {
            "gold": float(self.gold.of(rollout.samples).mean()),
            "spread": float((2 * pictures.var(1)).mean(-1).sqrt().mean()),
            "entropy": sum(_entropy(s) for s in seen) / len(seen),
            "kl": float(masked_sum(rollout["old_logps"] - start, rollout.mask).mean()),
        }


@functools.cache
def _code(caption: str | None) -> Tensor:
    return torch.zeros(17) if caption is None else Scene.parse(caption).code()


def _pictures(n: int, seed: int) -> list[Sample]:
    chance = random.Random(seed)
    return [Sample(None, drawn(chance).picture()) for _ in range(n)]


def _seen(reading: Any) -> tuple[Any, ...]:
    return (reading.colour, tuple(sorted(o.shape for o in reading.objects)))


def _entropy(seen: Sequence[Any]) -> float:
    counts = torch.tensor([float(seen.count(s)) for s in set(seen)])
    share = counts / counts.sum()
    return float(-(share * share.log2()).sum())
