"""CaRL: progress along the route times soft penalties, instead of a sum of shaped terms, at growing mini-batches.

PPO drives a curved lane with slower cars ahead and traffic lights, once on the product (a step off the lane earns
nothing; an infraction ends the episode and costs little; the end of the route is a truncation, and the critic is asked
what would come behind it), once on the usual sum of terms with a target speed. Mini-batches of 256, 1,024 and 4,096
steps see equal samples in equal passes; the learning rate grows with the square root of the mini-batch, alike for
both rewards, and nothing is tuned for either. A control subtracts the same penalties from progress instead of
multiplying by them. The figure is the driving score of greedy episodes on tracks that training never saw. Left out:
CARLA and nuPlan, mini-batches of 16,384, hundreds of millions of samples, training on several machines, images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from rewardkit.credit.base import chain
from rewardkit.credit.group import whiten
from rewardkit.credit.returns import gae
from rewardkit.evals.batch_size_scaling import batch_size_scaling
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import clipped
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.control import ControlCritic, Steps
from rewardkit.protocols import Reward
from rewardkit.training.learner import Learner
from rewardkit.worlds.driving import Driving, additive, simple, subtracted
from rewardkit.worlds.driving.physics import Scene

SIZES = (256, 1024, 4096)
COPIES, FIRST_LR, UNSEEN = 64, 1e-3, 1_000_000
MOVING = Scene(speed=6.0)
"""Cars begin in motion: from rest, the sum of terms did not set off with the two mini-batches that were looked at."""
REWARDS: dict[str, Callable[[], Reward]] = {"product": simple, "sum": additive, "subtracted": subtracted}


@cache
def _drive(seed: int, smoke: bool, reward: str, size: int) -> dict[str, float]:
    """Figures of a policy after PPO with mini-batches of ``size`` steps."""
    run = Run(seed, smoke)
    copies, steps = run.size((COPIES, 64), (4, 4))
    world = Driving(copies, scene=MOVING)
    policy, envs = world.policy(seed=seed), world.envs(copies, seed=seed * 100_000)
    lr = FIRST_LR * (size / SIZES[0]) ** 0.5
    learner = Learner(policy, lr=lr, clip=0.5)
    critic = Learner(ControlCritic.scratch(envs, seed=seed + 1), lr=lr, clip=0.5)
    for _ in online(
        learner, PromptSet(range(copies), shuffle=False), REWARDS[reward](),
        chain(partial(gae, gamma=0.99, lam=0.95), whiten), clipped,
        critic=critic, reference=None, env=envs, sampling=Steps(steps), rows="steps", batch=copies, n=1,
        inner=run.size(8, 1), minibatch=size, steps=run.size(13, 1), seed=seed,
    ):  # fmt: skip
        pass
    return Driving(run.size(100, 2), first=UNSEEN, scene=MOVING).measure(policy, greedy=True)


def drive(run: Run, *, reward: str, size: int) -> dict[str, float]:
    """One reward at one mini-batch."""
    found = _drive(run.seed, run.smoke, reward, size)
    return {"driving score": found["gold"], **found}


def scaling(run: Run, *, reward: str) -> dict[str, float]:
    """What a quadrupled mini-batch adds to the driving score, over all sizes."""
    each = {size: [_drive(run.seed, run.smoke, reward, size)["gold"]] for size in SIZES}
    return {"slope": batch_size_scaling(each).value}


METHOD = "product, 4096"

RECIPE = Recipe(
    slug="carl",
    arms={METHOD: Arm(partial(drive, reward="product", size=4096), tuned=False)}
    | {
        f"{reward}, {size}": Arm(partial(drive, reward=reward, size=size), tuned=False)
        for reward in ("product", "sum")
        for size in SIZES
        if (reward, size) != ("product", 4096)
    }
    | {
        "subtracted, 1024": Arm(partial(drive, reward="subtracted", size=1024), tuned=False),
        "product, all sizes": Arm(partial(scaling, reward="product"), tuned=False),
        "sum, all sizes": Arm(partial(scaling, reward="sum"), tuned=False),
    },
    expectations=[
        *(
            Expect(f"at {size} the product drives better than the sum", "driving score", f"product, {size}",
                   f"sum, {size}", low=0)
            for size in SIZES
        ),
        Expect("the sum falls as the mini-batch grows", "slope", "sum, all sizes", high=0),
        Expect("the product does not, to 5 points a quadrupling", "slope", "product, all sizes", low=-5),
        Expect("its slope is the larger", "slope", "product, all sizes", "sum, all sizes", low=0),
        Expect("at 4,096 the sum stands still more often", "blocked", "sum, 4096", METHOD, low=0),
        Expect("multiplying beats subtracting the same penalties", "driving score", "product, 1024",
               "subtracted, 1024", low=0),
    ],
    seeds=range(3),
    scale="a track of 120 m with two lights and two other cars, 53,248 samples, networks of 64 and 64",
)  # fmt: skip
