"""DRAKES: backpropagation of an oracle through the relaxed sampler of a masked diffusion model, with a KL of rates.

On world ``motifs`` (DNA of 20 letters, two motifs and a rule of spacing) a base policy learned natural sequences, and
an oracle was fitted on 2,000 noisy assays of them. DRAKES (alpha 0.05) has the path KL at every step and the reward's
gradient through the last 5 of 10 steps; the arms beside it are the same with alpha 0, REINFORCE with the clipped ratio
and the same KL in the reward on as many sampled sequences (3,200), best of 16, and the base. The training oracle, gold
and the correlation of 3-mers with natural sequences are measured on hard samples; learning rates are chosen by an
oracle that nothing is trained against. For sequences of length 4 the policy's exact distribution is compared with
``p_pre * exp(r / alpha)``, in total variation. Two things differ from the authors' code: which positions are unmasked
is drawn and not relaxed (tokens are, straight-through), and the KL has the step's length in it, so that it is that of
the paths. Left out: proteins, guidance and SMC baselines, the warm-up of alpha, real enhancers.
"""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import Tensor, nn

from rewardkit.credit.base import chain
from rewardkit.credit.group import group_relative
from rewardkit.credit.kl import kl_penalty
from rewardkit.guidance.best_of_n import best_of_n
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import clipped
from rewardkit.papers.motifs import backpropagation
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.masked import Alphabet, MaskedPolicy, SequenceNet, Unmask
from rewardkit.rewards.learned.tensor import TensorReward
from rewardkit.training.learner import Learner
from rewardkit.types import Rollout, Sample
from rewardkit.worlds.motifs import HOW, LETTERS, PROMPT, Motifs, one_hot

ALPHA, UPDATES, N = 0.05, 100, 32
SHORT_ALPHA, SHORT = 0.5, Unmask(8)
"""For length 4: with twice as many steps as letters, tokens are mostly written one at a time."""


def _setting(run: Run) -> tuple[Motifs, MaskedPolicy, TensorReward]:
    world = Motifs()
    oracle = world.oracle(1 + run.seed, n=run.size(2000, 32), epochs=run.size(12, 0.5))
    return world, world.base_policy(steps=run.size(1500, 2)), oracle


def _figures(run: Run, world: Motifs, oracle: TensorReward, sequences: list[str]) -> dict[str, float]:
    scores = oracle(Rollout([Sample(PROMPT, s) for s in sequences], torch.ones(len(sequences), 1)))
    held_out = world.oracle(0, n=run.size(2000, 32), epochs=run.size(12, 0.5))
    assert scores.outcome is not None
    return {"oracle": float(scores.outcome.mean())} | world.figures(sequences, held_out)


def _measured(run: Run, world: Motifs, oracle: TensorReward, policy: MaskedPolicy) -> dict[str, float]:
    drawn = policy.sample(world.prompts, run.size(512, 4), sampling=HOW, seed=9_000 + run.seed)
    kl = {"kl": world.path_kl(policy, drawn)}
    return _figures(run, world, oracle, [str(s.output) for s in drawn.samples]) | kl


def drakes(run: Run, alpha: float) -> dict[str, float]:
    """Backpropagation through the last half of the sampler."""
    world, policy, oracle = _setting(run)
    backpropagation(
        policy, oracle, world.prompts, alpha=alpha, last=5, n=run.size(N, 2), steps=run.size(UPDATES, 1),
        lr=run.point.get("lr", 1e-3), sampling=HOW, seed=run.seed,
    )  # fmt: skip
    return _measured(run, world, oracle, policy)


def reinforce(run: Run) -> dict[str, float]:
    """The clipped policy gradient on as many sequences, the KL in the reward."""
    world, policy, oracle = _setting(run)
    credit = chain(partial(kl_penalty, coef=ALPHA), group_relative)
    for _ in online(
        Learner(policy, lr=run.point.get("lr", 1e-3)), PromptSet(world.prompts), oracle, credit, clipped,
        reference="start", n=run.size(N, 2), batch=1, steps=run.size(UPDATES, 1), sampling=HOW, seed=run.seed,
    ):  # fmt: skip
        pass
    return _measured(run, world, oracle, policy)


def best_of_16(run: Run) -> dict[str, float]:
    """The best of 16 by the training oracle."""
    world, policy, oracle = _setting(run)
    chooser = best_of_n(policy, oracle, 16)
    drawn = chooser.sample(world.prompts, run.size(256, 2), sampling=HOW, seed=9_000 + run.seed)
    return _figures(run, world, oracle, [str(s.output) for s in drawn.samples]) | {"kl": chooser.kl_bound}


def base(run: Run) -> dict[str, float]:
    """The base policy."""
    world, policy, oracle = _setting(run)
    return _measured(run, world, oracle, policy)


class Pairs(nn.Module):
    """A random reward of letters at places and of neighbours."""

    def __init__(self, length: int, seed: int) -> None:
        super().__init__()
        chance = torch.Generator().manual_seed(seed)
        self.single = torch.randn((length, 4), generator=chance)
        self.pair = torch.randn((length - 1, 4, 4), generator=chance)

    def forward(self, outputs: Tensor, condition: Tensor) -> Tensor:
        x = outputs[..., :4]
        singles = torch.einsum("nlv,lv->n", x, self.single)
        return 0.5 * (singles + torch.einsum("nlv,nlw,lvw->n", x[:, :-1], x[:, 1:], self.pair))


def short(run: Run, alpha: float) -> dict[str, float]:
    """Length 4, exactly: the distance to ``p_pre * exp(r / SHORT_ALPHA)`` before and after."""
    length = run.size(4, 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        policy = MaskedPolicy(SequenceNet(5, width=32, depth=2), Alphabet(LETTERS), length)
    reward = TensorReward(Pairs(length, run.seed), read=one_hot)
    samples, before = policy.enumerate(PROMPT, sampling=SHORT)
    scores = reward(Rollout(samples, torch.ones(len(samples), 1))).outcome
    assert scores is not None
    target = (before.detach().log() + scores / SHORT_ALPHA).softmax(0)
    trained = backpropagation(
        copy.deepcopy(policy), reward, [PROMPT], alpha=alpha, last=SHORT.steps, n=run.size(64, 2),
        steps=run.size(120, 1), lr=3e-3, sampling=SHORT, seed=run.seed,
    )  # fmt: skip
    after = trained.enumerate(PROMPT, sampling=SHORT)[1].detach()
    distance, began = (float(0.5 * (p - target).abs().sum()) for p in (after, before.detach()))
    return {"distance": distance, "distance at the start": began}


RECIPE = Recipe(
    slug="drakes",
    arms={
        "drakes": Arm(partial(drakes, alpha=ALPHA)),
        "alpha = 0": Arm(partial(drakes, alpha=0.0)),
        "reinforce": Arm(reinforce),
        "best of 16": Arm(best_of_16, tuned=False),
        "base": Arm(base, tuned=False),
        "length 4": Arm(partial(short, alpha=SHORT_ALPHA), tuned=False),
        "length 4, alpha = 0": Arm(partial(short, alpha=0.0), tuned=False),
    },
    expectations=[
        Expect("alpha = 0 wins the training oracle", "oracle", "alpha = 0", "drakes", low=0),
        Expect("and loses gold", "gold", "drakes", "alpha = 0", low=0),
        Expect("and loses the correlation of 3-mers", "kmer_correlation", "drakes", "alpha = 0", low=0),
        Expect("DRAKES has more gold than best of 16", "gold", "drakes", "best of 16", low=0),
        Expect("DRAKES keeps the base's 3-mer correlation to 0.1", "kmer_correlation", "drakes", "base", low=-0.1),
        Expect("DRAKES has more gold than REINFORCE on as many samples", "gold", "drakes", "reinforce", low=0),
        Expect(
            "length 4: the policy comes closer to p_pre exp(r / alpha)",
            "distance",
            "length 4",
            "length 4",
            high=0,
            over_figure="distance at the start",
        ),
        Expect("and closer than with alpha = 0", "distance", "length 4", "length 4, alpha = 0", high=0),
    ],
    grid=({"lr": 1e-3}, {"lr": 3e-3}),
    tune="held_out",
    scale="DNA of 20 letters, a 40-channel network, 10 steps, 3,200 sampled sequences an arm",
)
