"""World ``moving_shapes``: pictures or short clips that follow an instruction to move something."""

from __future__ import annotations

import random
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rewardkit.measures.masked import masked_sum
from rewardkit.objectives.imitation import sft
from rewardkit.policies.diffusion import Denoise, DiffusionPolicy, Flow
from rewardkit.policies.diffusion.grid import GridNet
from rewardkit.registry import entry
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Judgement, Sample
from rewardkit.worlds.annotators import bradley_terry
from rewardkit.worlds.cache import cached, made_by
from rewardkit.worlds.moving_shapes.measure import Gold, last, see
from rewardkit.worlds.moving_shapes.scene import SIDE, WAYS, Move, drawn

COPIED, ASTRAY = 0.35, 0.2
"""Shares of demonstrations that leave the picture as it is, and that move the thing in another direction."""
CODE = 11
STEPS = 1500


class Frames:
    """Clips ``[N, F, 3, H, W]`` in [0, 1] as states ``[N, 3 F, H, W]`` in [-1, 1]; one frame has no axis of its own.

    >>> Frames(2).decode(torch.zeros(1, 6, 4, 4)).shape, Frames(1).decode(torch.zeros(1, 3, 4, 4)).shape
    (torch.Size([1, 2, 3, 4, 4]), torch.Size([1, 3, 4, 4]))
    """

    def __init__(self, frames: int) -> None:
        self.frames = frames

    def encode(self, outputs: Tensor) -> Tensor:
        """States of clips."""
        return 2 * (outputs.flatten(1, 2) if outputs.ndim == 5 else outputs) - 1

    def decode(self, states: Tensor) -> Tensor:
        """Clips of states, with gradients."""
        found = ((states + 1) / 2).clamp(0, 1)
        return found if self.frames == 1 else found.unflatten(1, (self.frames, 3))


@entry("worlds:moving_shapes", tags=("flow", "image", "video", "editing"))
class MovingShapes:
    """Prompts are moves: a picture of two coloured shapes and an instruction such as ``move the red square left far``.

    Outputs are clips of the motion ``[frames, 3, 16, 16]`` or, with one frame, the edited picture ``[3, 16, 16]``.
    Demonstrations follow the instruction in about half of the cases; the others leave the picture as it is or move the
    thing in another direction.

    Args:
        frames: of a clip. seed: of everything.

    >>> world = MovingShapes()
    >>> sample = world.demonstrations(1, seed=0)[0]
    >>> sample.prompt.picture().shape, sample.output.shape
    (torch.Size([3, 16, 16]), torch.Size([3, 16, 16]))
    """

    def __init__(self, frames: int = 1, seed: int = 0) -> None:
        self.frames, self.seed, self.gold = frames, seed, Gold()

    def prompts(self, n: int, *, seed: int) -> list[Sample]:
        """``n`` moves at random."""
        chance = random.Random(seed)
        return [Sample(drawn(chance)) for _ in range(n)]

    def true(self, move: Move) -> Tensor:
        """What does as it is asked."""
        clip = move.clip(self.frames)
        return clip if self.frames > 1 else clip[0]

    def demonstrations(self, n: int, *, seed: int, copied: float = COPIED, astray: float = ASTRAY) -> list[Sample]:
        """``n`` moves with clips, of which given shares stand still or go astray."""
        chance, found = random.Random(seed), list[Sample]()
        while len(found) < n:
            move, luck = drawn(chance), chance.random()
            shown = move
            if luck < astray:
                shown = Move(move.things, chance.choice([w for w in WAYS if w != move.way]), move.far)
                x, y = (a + b for a, b in zip((move.things[0].x, move.things[0].y), shown.shift, strict=True))
                if not (2.5 <= x <= SIDE - 2.5 and 2.5 <= y <= SIDE - 2.5):
                    continue
            clip = self.true(shown)
            if astray <= luck < astray + copied:
                still = move.picture()
                clip = still.expand(self.frames, -1, -1, -1).clone() if self.frames > 1 else still
            found.append(Sample(move, clip))
        return found

    def compare(
        self, first: Sequence[Sample], second: Sequence[Sample], *, seed: int, noise: float = 0.1
    ) -> list[Judgement]:
        """Simulated annotators: Bradley-Terry on gold, ``noise`` reward units a nat."""
        return bradley_terry(first, second, (self.gold.of(first) - self.gold.of(second)) / noise, seed=seed)

    def condition(self, prompt: Any) -> dict[str, Tensor]:
        """The instruction's ``code`` and the ``source`` picture in [-1, 1]; zeros for no prompt."""
        if prompt is None:
            return {"code": torch.zeros(CODE), "source": torch.zeros(3, SIDE, SIDE)}
        return {"code": prompt.code(), "source": 2 * prompt.picture() - 1}

    @property
    def _widths(self) -> tuple[int, int]:
        """Of the network: a place holds twelve numbers a frame, and their noise must fit through it."""
        return (24, 48) if self.frames == 1 else (24 * self.frames, 32 * self.frames)

    def policy(self) -> DiffusionPolicy:
        """An untrained policy on the flow process."""
        shape = (3 * self.frames, SIDE, SIDE)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = GridNet(shape, CODE, 3, patch=2, widths=self._widths, scale=1000.0)
        return DiffusionPolicy(
            net, Flow(), shape, condition=self.condition, codec=Frames(self.frames), draws=2, seed=self.seed
        )

    def build(self, *, steps: int = STEPS, force: bool = False) -> Path:
        """The cached folder of the base policy, trained on demonstrations by denoising where it is missing."""
        facts: dict[str, Any] = {"frames": self.frames, "steps": steps, "seed": self.seed}
        facts |= {"diffusers": version("diffusers")} | made_by(Path(__file__))

        def make(folder: Path) -> None:
            save_file(dict(self._train(steps).module.state_dict()), folder / "model.safetensors")

        return cached("moving_shapes", facts, make, force=force)

    def base_policy(self, *, steps: int = STEPS) -> DiffusionPolicy:
        """A policy trained on demonstrations, its view ``start`` kept; see :meth:`build`."""
        policy = self.policy()
        policy.module.load_state_dict(load_file(self.build(steps=steps) / "model.safetensors"))
        policy.keep("start")
        return policy

    def _train(self, steps: int) -> DiffusionPolicy:
        policy = self.policy()
        pool = self.demonstrations(max(64, min(12_000, 16 * steps)), seed=self.seed)
        learner = Learner(policy, lr=2e-3, schedule="cosine", warmup=0.05, total_steps=steps)
        chance = random.Random(self.seed)
        for _ in range(steps):
            learner.step(Term(policy.encode(chance.sample(pool, min(64, len(pool)))), sft))
        return policy

    @torch.no_grad()
    def measure(
        self, policy: DiffusionPolicy, *, n: int = 256, each: int = 2, sampling: Denoise | None = None, seed: int = 9
    ) -> dict[str, float]:
        """Figures on ``each`` clips of ``n`` moves.

        Returns:
            ``gold``; ``direction``, the share that moved the right thing the right way, by a pixel at least; ``error``,
            how far it ended from where it should, pixels; ``identity``, the mean difference on pixels that should stay;
            ``copied``, the share in which it moved less than half a pixel; ``spread``, the root mean squared distance
            of two clips of a move, a pixel; and ``kl`` to the start in nats over whole paths.
        """
        rollout = policy.sample(self.prompts(n, seed=seed), each, sampling=sampling, seed=seed)
        start = policy.at("start").evaluate(rollout)["logps"]
        clips = torch.stack([s.output for s in rollout.samples]).reshape(n, each, -1)
        found = [judged(s) for s in rollout.samples]
        return {
            "gold": float(self.gold.of(rollout.samples).mean()),
            **{k: sum(f[k] for f in found) / len(found) for k in found[0]},
            "spread": float((2 * clips.var(1)).mean(-1).sqrt().mean()) if each > 1 else 0.0,
            "kl": float(masked_sum(rollout["old_logps"] - start, rollout.mask).mean()),
        }


def judged(sample: Sample) -> dict[str, float]:
    """``direction``, ``error``, ``identity`` and ``copied`` of one sample's last frame."""
    move: Move = sample.asked
    seen = see(move, last(sample.output))
    (x, y), (u, v) = seen.shifts[0], move.shift
    size = (x * x + y * y) ** 0.5
    right = size >= 1 and (x * u + y * v) / (size * (u * u + v * v) ** 0.5) > 0.8
    return {
        "direction": float(right),
        "error": ((x - u) ** 2 + (y - v) ** 2) ** 0.5,
        "identity": seen.still,
        "copied": float(size < 0.5),
    }
