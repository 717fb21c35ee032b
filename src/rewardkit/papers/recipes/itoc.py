"""ITOC: editing by optimal control of a sampler's trajectory, at equal proxy reward.

World ``gaussians`` with its denoiser in closed form, so that the true density of every edited point is known. Sources
are demonstrations; the proxy is a reward model learned from 400 noisy comparisons, gold is held out. Every method
is run over a range of strengths and read where its mean proxy reward is that of the best tenth of demonstrations (the
least of them). Measured there: distance to the source, off-manifold energy (minus the log-density) and gold.
Compared: ITOC from inversion and from forward noising, gradient ascent on the point itself, inversion with DPS, and
two controls that the paper warns of: adjoints that do not pass through the denoiser, and control of the last step
alone. Left out: images, styles, counterfactuals and text, FreeDoM and TFG, and fidelity in pixels. That the controls
are the optimal ones is a unit test against the closed form of a linear-quadratic problem.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewardkit.guidance.adjoint import Adam, Source, source_path, trajectory_adjoint_control
from rewardkit.guidance.gradient import dps
from rewardkit.papers.gaussians import WORLD, pairs, reward_model
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.diffusion import Denoise, DiffusionPolicy
from rewardkit.policies.diffusion.sampling import Latent
from rewardkit.types import Sample
from rewardkit.worlds.gaussians.exact import exact_policy

DEPTH = 0.5


@dataclass(frozen=True)
class Setting:
    """Points to be edited ``[N, 2]``, what each network is told of them, and the proxy reward."""

    policy: DiffusionPolicy
    sources: list[Sample]
    points: Tensor
    told: Tensor
    proxy: Callable[[Tensor, Any], Tensor]
    how: Denoise


@cache
def setting(seed: int, smoke: bool) -> Setting:
    """Sources, and a reward model that never saw gold."""
    run, policy = Run(seed, smoke), exact_policy(WORLD)
    model = reward_model(pairs(policy, run.size(400, 8), 10 + seed), seed, epochs=run.size(6.0, 0.5))
    model.module.requires_grad_(False)
    sources = WORLD.demonstrations(run.size(160, 4), 500 + seed)
    told = torch.stack([WORLD.condition(s.prompt) for s in sources])
    points = torch.stack([s.output for s in sources])
    return Setting(policy, sources, points, told, model.of, Denoise(run.size(20, 4)))


def ascent(at: Setting, strength: float, passes: int = 50) -> Tensor:
    """Gradient ascent on the points."""
    x = at.points
    for _ in range(passes):
        leaf = x.detach().requires_grad_()
        [g] = torch.autograd.grad(at.proxy(leaf, at.told).sum(), leaf)
        x = x + strength / passes * g
    return x.detach()


def guided(at: Setting, strength: float) -> Tensor:
    """Inversion, and the way back guided by the gradient at the clean output."""
    count = max(1, round(DEPTH * at.how.steps))
    first, quiet = at.how.steps - count, Denoise(at.how.steps, eta=0.0)
    times = at.policy.process.times(at.how.steps)[first:]
    path = source_path(
        at.policy.process, lambda x, t: at.policy.module(x, t, at.told), at.points, times, "inversion",
        torch.Generator(),
    )  # fmt: skip
    starts = [Sample(s.prompt, Latent(x, first), ended="cut") for s, x in zip(at.sources, path[0], strict=True)]
    with torch.no_grad():
        drawn = dps(at.policy, at.proxy, strength).sample(starts, sampling=quiet, seed=0)
    return torch.stack([s.output for s in drawn.samples])


def controlled(
    at: Setting,
    strength: float,
    *,
    run: Run,
    source: Source = "inversion",
    depth: float = DEPTH,
    iterations: int = 30,
    deaf: bool = False,
) -> Tensor:
    """ITOC; ``deaf`` adjoints do not pass through the denoiser."""
    policy = at.policy
    if deaf:
        policy = copy.copy(policy)
        policy.call = lambda module, x, time, told: module(x, time, told).detach()
    adam = Adam(iterations=run.size(iterations, 2), lr=0.05)
    edited = trajectory_adjoint_control(
        policy, lambda x, samples: at.proxy(x, at.told), lam=strength, depth=depth, source=source, adam=adam
    )
    drawn = edited.sample(at.sources, sampling=at.how, seed=run.seed)
    return torch.stack([s.output for s in drawn.samples])


def figures(run: Run, method: Callable[..., Tensor], top: float, **options: Any) -> dict[str, Any]:
    """Distance, energy and gold where the method is as good by proxy, by interpolation between strengths."""
    at = setting(run.seed, run.smoke)
    found: dict[str, list[float]] = {
        "proxy": [float(at.proxy(at.points, at.told).mean())],
        "distance": [0.0],
        "energy": [energy(at, at.points)],
    }
    found["gold"] = [gold(at, at.points)]
    for strength in np.geomspace(top / 64, top, run.size(9, 2)):
        x = method(at, float(strength), **options)
        found["proxy"].append(float(at.proxy(x, at.told).mean()))
        found["distance"].append(float((x - at.points).norm(dim=1).mean()))
        found["energy"].append(energy(at, x))
        found["gold"].append(gold(at, x))
    want = good(at, run)
    order = np.argsort(found["proxy"])
    reached = max(found["proxy"]) >= want
    curves = {f"{k} by strength": v for k, v in found.items()}
    sorted_by = {k: np.asarray(v)[order] for k, v in found.items()}
    return curves | {
        k: float(np.interp(want, sorted_by["proxy"], sorted_by[k])) if reached else float("nan")
        for k in ("distance", "energy", "gold")
    }


def good(at: Setting, run: Run) -> float:
    """The 0.9 quantile of the proxy over fresh demonstrations, a mean over prompts."""
    shown = WORLD.demonstrations(run.size(2000, 40), 900)
    told = torch.stack([WORLD.condition(s.prompt) for s in shown])
    values = at.proxy(torch.stack([s.output for s in shown]), told).detach()
    return float(values.reshape(-1, len(WORLD.prompts)).quantile(0.9, dim=0).mean())


def energy(at: Setting, x: Tensor) -> float:
    """Minus the log-density of the world's own data, nats a point."""
    logs = [WORLD.data[str(s.prompt)].log_prob(p[None])[0] for s, p in zip(at.sources, x, strict=True)]
    return -float(torch.stack(logs).mean())


def gold(at: Setting, x: Tensor) -> float:
    """Held-out reward."""
    return float(WORLD.gold.of(x, [str(s.prompt) for s in at.sources]).mean())


def _itoc(run: Run, top: float = 64.0, **options: Any) -> dict[str, Any]:
    return figures(run, partial(controlled, run=run, **options), top)


RECIPE = Recipe(
    slug="itoc",
    arms={
        "itoc": Arm(_itoc, tuned=False),
        "itoc, noising": Arm(partial(_itoc, source="noising"), tuned=False),
        "gradient ascent": Arm(lambda run: figures(run, ascent, 8.0), tuned=False),
        "inversion and dps": Arm(lambda run: figures(run, guided, 64.0), tuned=False),
        "itoc, deaf adjoints": Arm(partial(_itoc, deaf=True), tuned=False),
        "itoc, last step": Arm(partial(_itoc, depth=0.01, iterations=300, top=1024.0), tuned=False),
    },
    expectations=[
        Expect("nearer the data than gradient ascent", "energy", "itoc", "gradient ascent", high=0),
        Expect("nearer the data than inversion and DPS", "energy", "itoc", "inversion and dps", high=0),
        Expect("nearer the source than gradient ascent", "distance", "itoc", "gradient ascent", high=0),
        Expect("nearer the source than inversion and DPS", "distance", "itoc", "inversion and dps", high=0),
        Expect("no less gold than gradient ascent, to 0.02", "gold", "itoc", "gradient ascent", low=-0.02),
        Expect("no less gold than inversion and DPS, to 0.02", "gold", "itoc", "inversion and dps", low=-0.02),
        Expect("from noising: nearer the data than gradient ascent", "energy", "itoc, noising", "gradient ascent",
               high=0),
        Expect("deaf adjoints leave the data further behind", "energy", "itoc, deaf adjoints", "itoc", low=0),
        Expect("so does control of the last step alone", "energy", "itoc, last step", "itoc", low=0),
    ],
    seeds=range(5),
    scale="160 points in the plane with an exact denoiser of 20 steps instead of images",
)  # fmt: skip
