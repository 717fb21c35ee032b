"""A contrastive image-text encoder as the only reward of soft actor-critic, and the goal-baseline projection.

World ``control``: small CLIPs of three sizes are trained on 4,000 captioned frames; the reward of a step is the cosine
of the frame and "a point on the goal". Soft actor-critic then trains an actor on it alone. EPIC distance to labelled
success is measured on states at all distances, and success by the state itself. Then a nuisance: the paper's colour
changes with the place of the point. Arms with ``alpha`` 0, with ``alpha`` picked by EPIC on 64 labelled states (the
baseline "a point"), and the same ``alpha`` with an unrelated baseline. A control trains on minus
the true distance. Left out: MuJoCo, published CLIPs (the same class loads them by hub name), camera poses, DQN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewardkit.data.replay import Replay
from rewardkit.loops.offpolicy import replayed, sac
from rewardkit.measures.epic import pearson_distance
from rewardkit.objectives.contrastive import contrastive
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.control import ControlPolicy, ControlQ, Temperature
from rewardkit.protocols import Model
from rewardkit.rewards.learned.clip import EmbeddingSimilarity, embeddings
from rewardkit.rewards.learned.step import StepReward
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.worlds.control import Control, frames
from rewardkit.worlds.control.captions import GOAL, PAPERS, PLAIN, captioned, positions
from rewardkit.worlds.control.physics import NEAR, distance

WORLD = Control(48)
WIDTHS = {"small": (16, 1), "medium": (32, 1), "large": (64, 2)}
ALPHAS = (0.25, 0.5, 0.75, 1.0)


@cache
def _clip(seed: int, smoke: bool, size: str) -> EmbeddingSimilarity:
    run, (width, layers) = Run(seed, smoke), WIDTHS[size]
    data = captioned(run.size(4000, 8), seed=seed)
    found = EmbeddingSimilarity.scratch([s.prompt for s in data], width=width, layers=layers, seed=seed)
    steps = fit(
        Learner(found, lr=2e-3, schedule="cosine", warmup=0.1),
        data,
        terms=lambda rows: [Term(rows, contrastive, want=(embeddings,))],
        encode=found.encode,
        epochs=run.size(6, 1),
        batch=64,
        seed=seed,
    )
    for _ in steps:
        pass
    return found


def plain(observations: Tensor) -> Tensor:
    """White paper."""
    return frames(observations)


def nuisance(observations: Tensor) -> Tensor:
    """Paper whose colour says which quarter the point is in."""
    quarter = 2 * (observations[:, 0] > 0).long() + (observations[:, 1] > 0).long()
    return frames(observations, background=torch.tensor(list(PAPERS.values()))[quarter])


class Seen(nn.Module):
    """What a CLIP says of the frame after a step."""

    def __init__(self, clip: EmbeddingSimilarity, render: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.clip, self.render = clip.module, clip, render

    def forward(self, before: Tensor, actions: Tensor, after: Tensor) -> Tensor:
        return self.clip.of(self.render(after), [None] * len(after))


class Distance(nn.Module):
    """Minus the true distance."""

    def forward(self, before: Tensor, actions: Tensor, after: Tensor) -> Tensor:
        return -distance(after)


@torch.no_grad()
def _epic(reward: StepReward, n: int, seed: int) -> float:
    """Distance to labelled success; both are of the state reached alone, so that shaping cancels."""
    states = positions(n, seed)
    return pearson_distance(reward.module(states, states[:, :2], states), (distance(states) < NEAR).double())


def _trained(run: Run, reward: StepReward) -> dict[str, float]:
    """Soft actor-critic on the reward alone."""
    envs, hidden = WORLD.envs(16, seed=run.seed * 1000), (64, 64)
    policy = ControlPolicy.scratch(envs, squashed=True, hidden=hidden, seed=run.seed)
    critic = ControlQ.scratch(envs, hidden=hidden, seed=run.seed)
    models: tuple[Model, ...] = (policy, critic, Temperature(0.2))
    learners = [Learner(m, lr=1e-3) for m in models]
    update = sac(*learners, gamma=0.95, rate=0.02, seed=run.seed)
    reward.standardise(WORLD.demonstrations(run.size(40, 2), seed=run.seed))
    turns = replayed(
        policy,
        envs,
        Replay(20_000, seed=run.seed),
        update,
        reward=reward,
        steps=run.size(4000, 32),
        batch=128,
        updates=run.size(4, 1),
        begin=run.size(500, 1),
        seed=run.seed,
    )
    for _ in turns:
        pass
    found = WORLD.measure(policy, n=1, greedy=True)
    return {"success": found["success"], "gold": found["gold"]}


def by_clip(run: Run, size: str = "large") -> dict[str, float]:
    """The cosine on white paper; how far it is from one that torch computes."""
    clip = _clip(run.seed, run.smoke, size).about(GOAL)
    reward, states = StepReward(Seen(clip, plain)), positions(16, 3)
    with torch.no_grad():
        cosine = F.cosine_similarity(clip.images(plain(states)), clip.texts([GOAL]))
        at_zero = clip.about(GOAL, baseline=PLAIN, alpha=0.0).of(plain(states), [None] * 16)
    gap = float((cosine - at_zero).abs().max())
    return {"epic": _epic(reward, run.size(1000, 16), 77), "cosine_gap": gap, **_trained(run, reward)}


def with_nuisance(run: Run, baseline: str | None) -> dict[str, float]:
    """Paper that changes; ``alpha`` is 0 without a baseline, else the one that 64 labelled states prefer."""
    clip, alpha = _clip(run.seed, run.smoke, "large"), 0.0
    if baseline is not None:
        rewards = {a: StepReward(Seen(clip.about(GOAL, baseline=PLAIN, alpha=a), nuisance)) for a in ALPHAS}
        alpha = min(ALPHAS, key=lambda a: _epic(rewards[a], 64, 500 + run.seed))
    reward = StepReward(Seen(clip.about(GOAL, baseline=baseline, alpha=alpha), nuisance))
    return {"epic": _epic(reward, run.size(1000, 16), 77), "alpha": alpha, **_trained(run, reward)}


def truth(run: Run) -> dict[str, float]:
    """Soft actor-critic on minus the distance."""
    return _trained(run, StepReward(Distance()))


RECIPE = Recipe(
    slug="vlm_rm",
    arms={
        "large": Arm(by_clip, tuned=False),
        "medium": Arm(partial(by_clip, size="medium"), tuned=False),
        "small": Arm(partial(by_clip, size="small"), tuned=False),
        "nuisance, alpha 0": Arm(partial(with_nuisance, baseline=None), tuned=False),
        "nuisance, alpha picked": Arm(partial(with_nuisance, baseline=PLAIN), tuned=False),
        "nuisance, unrelated baseline": Arm(partial(with_nuisance, baseline="grey paper"), tuned=False),
        "true distance": Arm(truth, tuned=False),
    },
    expectations=[
        Expect("at alpha 0 the reward is the cosine", "cosine_gap", "large", high=1e-5, every=True),
        Expect("one sentence is enough: success above 80%", "success", "large", low=0.8),
        Expect("a larger encoder is nearer to success by EPIC", "epic", "large", "small", high=0),
        Expect("the medium one too", "epic", "medium", "small", high=0),
        Expect("and trains an actor that succeeds more often", "success", "large", "small", low=0),
        Expect(
            "with changing paper some alpha beats 0", "success", "nuisance, alpha picked", "nuisance, alpha 0", low=0
        ),
        Expect(
            "an unrelated baseline does not, to 0.05",
            "success",
            "nuisance, unrelated baseline",
            "nuisance, alpha 0",
            high=0.05,
        ),
    ],
    seeds=range(3),
    scale="a point mass, 32x32 frames, encoders of 10,000 to 160,000 weights, 4,000 steps of experience",
)
