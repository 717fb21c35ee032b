"""PACS against GRPO and PPO on verifiable chains of sums, at equal numbers of sampled replies.

On world ``arithmetic``, chains of two to four operations, 80 turns of 8 prompts with 8 replies. PACS classifies the
group's replies as right or wrong by how much likelier each became; two updates a turn, as for the others. Held out:
pass@1, pass@16 and entropy; and, exactly, that at the policy which sampled its gradient without class weights is that
of REINFORCE with a leave-one-out baseline. A control arm leaves the class weights out. The learning rate is chosen by
the share of right replies in training. Left out: the average log-prob as the score, long chains of thought, pass@256,
and the schedule of the paper's clipping. About five minutes on one core.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from rewardkit.credit.base import apply, chain
from rewardkit.credit.group import group_relative, rloo, whiten
from rewardkit.credit.returns import gae, total
from rewardkit.objectives.pacs import pacs
from rewardkit.objectives.policy import clipped, reinforce
from rewardkit.objectives.value import value_loss
from rewardkit.papers.arithmetic import Figures, base, figures, train
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.language import Critic, LanguagePolicy
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.worlds.arithmetic import Arithmetic

WORLD, STEPS = Arithmetic((2, 3, 4)), 80


def classified(run: Run, balanced: bool) -> Figures:
    """PACS."""
    policy = base(WORLD, run)
    gap = gradient_gap(run, policy)
    objective = partial(pacs, beta=1.0, balanced=balanced)
    shares = train(run, WORLD, policy, WORLD.gold, total, objective, steps=STEPS, lr=_lr(run), inner=2)
    return {**figures(run, WORLD, policy, shares), "gradient_gap": gap}


def grpo(run: Run) -> Figures:
    """Group-relative advantages and the clipped ratio."""
    policy = base(WORLD, run)
    shares = train(run, WORLD, policy, WORLD.gold, group_relative, clipped, steps=STEPS, lr=_lr(run), inner=2)
    return figures(run, WORLD, policy, shares)


def ppo(run: Run) -> Figures:
    """A critic, GAE and the clipped ratio."""
    policy = base(WORLD, run)
    critic = Learner(Critic.from_policy(policy, seed=run.seed), lr=1e-3)
    credit = chain(partial(gae, lam=0.95), whiten)
    options: dict[str, Any] = {"critic": critic, "value_objective": partial(value_loss, clip=0.2), "inner": 2}
    shares = train(run, WORLD, policy, WORLD.gold, credit, clipped, steps=STEPS, lr=_lr(run), **options)
    return figures(run, WORLD, policy, shares)


def start(run: Run) -> Figures:
    """The base policy."""
    return figures(run, WORLD, base(WORLD, run), [])


def gradient_gap(run: Run, policy: LanguagePolicy) -> float:
    """Largest difference between the gradients of unweighted PACS and of RLOO, relative to the largest entry."""
    rollout = policy.sample(WORLD.prompts(run.size(16, 2), run.seed), 4, sampling=WORLD.sampling, seed=run.seed)
    with torch.no_grad():
        rollout = rollout.with_tensors(old_logps=policy.evaluate(rollout)["logps"])
    scores, learner = WORLD.gold(rollout), Learner(policy, lr=0.0)
    ours = learner.grads(Term(apply(total, rollout, scores), partial(pacs, balanced=False)))
    theirs = learner.grads(Term(apply(rloo, rollout, scores), reinforce, reduce="sequence_sums"))
    largest = max(float(g.abs().max()) for g in theirs.values())
    return max(float((ours[n] - theirs[n]).abs().max()) for n in ours) / max(largest, 1e-12)


def _lr(run: Run) -> float:
    return float(run.point.get("lr", 1e-3))


RECIPE = Recipe(
    slug="pacs",
    arms={
        "pacs": Arm(partial(classified, balanced=True)),
        "pacs, no class weights": Arm(partial(classified, balanced=False)),
        "grpo": Arm(grpo),
        "ppo": Arm(ppo),
        "start": Arm(start, tuned=False),
    },
    expectations=[
        Expect("the gradient at the sampling policy is RLOO's, to 1e-4", "gradient_gap", "pacs", high=1e-4, every=True),
        Expect("PACS is right more often than its start", "gold", "pacs", "start", low=0),
        Expect("PACS has more pass@1 than GRPO", "gold", "pacs", "grpo", low=0),
        Expect("PACS has more pass@1 than PPO", "gold", "pacs", "ppo", low=0),
        Expect("PACS has at least GRPO's pass@16, to 0.02", "pass@k", "pacs", "grpo", low=-0.02),
        Expect("PACS keeps more entropy than GRPO", "entropy", "pacs", "grpo", low=0),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}),
    tune="reward",
    scale="a 56,000-weight model, chains of two to four operations, 5,120 sampled replies an arm, pass@16",
)
