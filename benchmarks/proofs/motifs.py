"""World motifs: one reward model, then policy gradient, preferences and backpropagation, for masked diffusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.proofs.kit import Proof, Run, learned, policy_gradient, preferences
from rewardkit.evals.report.charts import drawing
from rewardkit.papers.motifs import backpropagation
from rewardkit.policies.masked import MaskedPolicy
from rewardkit.rewards.learned.tensor import TensorReward
from rewardkit.worlds.motifs import HOW, LETTERS, Motifs, one_hot

WORLD, ALPHA, PAIRS = Motifs(), 0.1, 1500
COLOURS = {"A": "#20876b", "C": "#3867d6", "G": "#c77d0a", "T": "#a23b72"}


def reward_model(base: MaskedPolicy, seed: int) -> TensorReward:
    """Bradley-Terry on noisy comparisons of the base policy's own sequences."""
    drawn = base.sample(WORLD.prompts, 2 * PAIRS, sampling=HOW, seed=100 + seed).samples
    judged = WORLD.compare(drawn[0::2], drawn[1::2], seed=seed)
    return learned(WORLD.reward(seed=seed), judged, lr=3e-3, epochs=6, batch=64, seed=seed)


def by_policy_gradient(policy: MaskedPolicy, reward: TensorReward, seed: int) -> None:
    """Against the learned reward."""
    policy_gradient(policy, reward, WORLD.prompts, beta=ALPHA, lr=2e-3, n=64, steps=60, sampling=HOW, seed=seed)


def by_preferences(policy: MaskedPolicy, reward: TensorReward, seed: int) -> None:
    """Pairs of the base policy's own sequences."""
    policy.draws = 4
    drawn = policy.sample(WORLD.prompts * 500, 4, sampling=HOW, seed=200 + seed)
    preferences(policy, drawn, reward, beta=0.03, lr=2e-3, epochs=6, seed=seed)


def by_backpropagation(policy: MaskedPolicy, reward: TensorReward, seed: int) -> None:
    """The learned reward's own gradient through the last five steps, with the KL of the paths."""
    backpropagation(
        policy, reward, WORLD.prompts, alpha=ALPHA, last=5, n=32, steps=80, lr=2e-3, sampling=HOW, seed=seed
    )


METHODS: dict[str, Callable[[MaskedPolicy, TensorReward, int], None]] = {
    "policy gradient": by_policy_gradient,
    "preferences": by_preferences,
    "backpropagation": by_backpropagation,
}


def prove(run: Run) -> Proof:
    """Every method and seed."""
    base = WORLD.base_policy()
    proof = Proof("motifs", "a perfect pair scores 4; pictures show letters about the first motif's best place")
    proof.add("masked diffusion", "base", 0, WORLD.measure(base))
    proof.pictures.append(logo("natural", WORLD.natural(500, seed=7)))

    def show(name: str, policy: MaskedPolicy) -> None:
        proof.pictures.append(logo(name, _drawn(policy)))

    show("base", base)
    for seed in range(run.seeds):
        reward = reward_model(base, seed)
        proof.train(run, "masked diffusion", base, METHODS, reward, seed, measure=WORLD.measure, show=show)
    return proof


def _drawn(policy: MaskedPolicy) -> list[str]:
    return [str(s.output) for s in policy.sample(WORLD.prompts, 500, sampling=HOW, seed=3).samples]


def logo(name: str, sequences: Sequence[str], *, before: int = 2, after: int = 15) -> str:
    """A sequence logo: letters as high as the bits they carry, sequences laid so that the first motif's best places
    stand under each other; those that have no room for it are left out."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import PathPatch
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    x = torch.stack([one_hot(s) for s in sequences])
    at = WORLD.gold.first.strength(x).argmax(1).tolist()
    laid = [
        s[i - before : i + after] for s, i in zip(sequences, at, strict=True) if i >= before and i + after <= len(s)
    ]
    shares = torch.stack([one_hot(s) for s in laid]).mean(0) if laid else torch.full((before + after, 4), 0.25)
    bits = 2 + (shares * shares.clamp(min=1e-9).log2()).sum(1)
    with drawing(1, 1, 4.6, 2.2) as (_, axis, out):
        for place, (row, height) in enumerate(zip(shares.tolist(), bits.tolist(), strict=True)):
            floor = 0.0
            for share, letter in sorted(zip(row, LETTERS, strict=True)):
                tall = share * height
                if tall > 0.005:
                    path = TextPath((0, 0), letter, size=1, prop=FontProperties(family="DejaVu Sans", weight="bold"))
                    box = path.get_extents()
                    fit = Affine2D().translate(-box.x0, -box.y0).scale(0.9 / box.width, tall / box.height)
                    fit = fit.translate(place - 0.45 - before, floor)
                    axis.add_patch(PathPatch(path.transformed(fit), color=COLOURS[letter], lw=0))
                floor += tall
        axis.set_xlim(-before - 0.6, after - 0.4)
        axis.set_ylim(0, 2)
        axis.grid(False)
        axis.set_ylabel("bits")
        axis.set_title(f"{name} ({len(laid)} of {len(sequences)})")
    return out[0]
