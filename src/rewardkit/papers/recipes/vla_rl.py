"""VLA-RL: PPO on actions of several tokens, with a potential of learned progress, a curriculum and a warm critic.

In world ``pick_place`` a policy of 28,000 weights, cloned from demonstrations of mixed skill, drives a hand: an action
is a push on each axis, the gripper and EOS, four tokens, and an episode a conversation of at most nine actions. All
arms see 288 episodes of six tasks: PPO with one ratio, clip, discount (0.99) and advantage an action on sparse success;
with the process reward, a classifier of progress that sees the start and the present, fitted to successful
demonstrations whose segments were cut at changes of the gripper and at rest, paid as a potential; with tasks drawn by
``exp((0.5 - success) / 0.2)``; and with two of the turns spent on the critic alone, which is the method. Two controls
are the method with a mistake: progress paid in full at every action, so that holding the object earns more than placing
it; tokens as steps, each with its own ratio and discount. The learning rate is chosen by success in training. Left out:
images, a pretrained model, parallel simulators, the time to 80% success (success half-way stands for it), and test-time
scaling. About seven minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from itertools import chain as after
from typing import Any

import numpy as np

from rewardkit.credit.base import Rule, chain
from rewardkit.credit.group import whiten
from rewardkit.credit.returns import gae
from rewardkit.credit.segments import macro_action_gae
from rewardkit.loops.curriculum import SuccessCurriculum
from rewardkit.loops.online import Step, online
from rewardkit.loops.prompts import PromptSet
from rewardkit.loops.warmup import critic_warmup
from rewardkit.objectives.policy import clipped
from rewardkit.objectives.segment import segment_ce
from rewardkit.objectives.segment_policy import macro_clipped
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.language import Critic
from rewardkit.protocols import Prompts
from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.learned.progress import Paid, ProgressReward
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.worlds.control.arm import PickPlaceWorld
from rewardkit.worlds.control.pick import TASKS

WORLD, GAMMA = PickPlaceWorld(), 0.99
TURNS, WARM, EPISODES = 12, 2, 24
Figures = dict[str, Any]


def base(run: Run) -> Any:
    """The policy that was cloned from demonstrations."""
    return WORLD.base_policy(steps=run.size(300, 1))


@cache
def classifier(smoke: bool) -> Critic:
    """The classifier of progress, one for all arms and seeds."""
    run = Run(0, smoke)
    policy = base(run)
    done, shares = WORLD.progress(WORLD.demonstrations(run.size(600, 12), seed=2000))
    reward = ProgressReward(policy, gamma=GAMMA)
    data = reward.labelled(done, shares)
    learner = Learner(reward, lr=3e-3, schedule="cosine", warmup=0.05)
    for _ in fit(learner, data, segment_ce, epochs=run.size(6, 1), batch=128, seed=0):
        pass
    return reward.model


def train(
    run: Run, paid: Paid | None = "potential", *, curriculum: bool = True, warm: bool = True, tokens: bool = False
) -> Figures:
    """One arm: how progress is paid, whether tasks are chosen, whether the critic begins first, tokens as steps."""
    policy = base(run)
    success: RewardBase = WORLD.gold
    reward = success
    if paid is not None:
        reward = success + ProgressReward(policy, classifier(run.smoke), gamma=GAMMA, paid=paid)
    starts = WORLD.prompts(run.size(40, 1), 50 + run.seed)
    part = None if paid is None else success.name
    prompts: Prompts = PromptSet(starts, seed=run.seed)
    if curriculum:
        prompts = SuccessCurriculum(starts, part=part, seed=run.seed)
    rule: Rule = partial(gae, gamma=GAMMA, lam=0.95) if tokens else partial(macro_action_gae, gamma=GAMMA, lam=0.95)
    critic = Learner(Critic.from_policy(policy, seed=run.seed), lr=3e-3)
    shared: dict[str, Any] = {
        "critic": critic, "batch": run.size(EPISODES, 3), "n": 1, "env": WORLD.env, "sampling": WORLD.sampling,
    }  # fmt: skip
    credit, first = chain(rule, whiten), run.size(WARM, 1) if warm else 0

    def loop() -> Iterator[Step]:
        learner = Learner(policy, lr=float(run.point.get("lr", 1e-3)))
        return online(
            learner, prompts, reward, credit, clipped if tokens else macro_clipped, reference=None,
            steps=run.size(TURNS, 2) - first, inner=run.size(4, 1), seed=run.seed, **shared,
        )  # fmt: skip

    warming = (
        critic_warmup(policy, prompts, reward, credit, steps=first, inner=run.size(4, 1), seed=500 + run.seed, **shared)
        if warm
        else ()
    )
    won, drawn, early = [], [], float("nan")
    for count, turn in enumerate(after(warming, loop()), 1):
        won.append(float(success(turn.rollout).outcome.mean()))  # type: ignore[union-attr]
        drawn.append(float(np.mean([TASKS[s.hidden["task"]][0] > 1 for s in turn.rollout.samples])))
        if count == run.size(TURNS // 2, 1):
            early = WORLD.measure(policy, n=run.size(8, 1), seed=9)["gold"]
    return {
        **WORLD.measure(policy, n=run.size(16, 1), seed=10),
        "early": early,
        "trained": float(np.mean(won[-TURNS // 3 :])),
        "long drawn": float(np.mean(drawn)),
        "success by turn": won,
    }


RECIPE = Recipe(
    slug="vla_rl",
    arms={
        "vla_rl": Arm(train),
        "no warm-up": Arm(partial(train, warm=False)),
        "process": Arm(partial(train, warm=False, curriculum=False)),
        "sparse": Arm(partial(train, paid=None, warm=False, curriculum=False)),
        "paid each action": Arm(partial(train, paid="each")),
        "tokens as steps": Arm(partial(train, tokens=True)),
        "start": Arm(lambda run: WORLD.measure(base(run), n=run.size(16, 1), seed=10), tuned=False),
    },
    expectations=[
        Expect("VLA-RL succeeds more often than the cloned policy", "gold", "vla_rl", "start", low=0),
        Expect("process reward solves more of the long tasks than sparse", "long", "process", "sparse", low=0),
        Expect("process reward as a potential does not lower success", "gold", "process", "sparse", low=-0.1),
        Expect("process reward succeeds more half-way", "early", "process", "sparse", low=0),
        Expect("the curriculum does not lower success", "gold", "no warm-up", "process", low=-0.1),
        Expect("the curriculum draws long tasks more often", "long drawn", "no warm-up", "process", low=0),
        Expect("a warm critic, of the same budget, does not lower success", "gold", "vla_rl", "no warm-up", low=-0.1),
        Expect("progress paid at each action succeeds less", "gold", "vla_rl", "paid each action", low=0),
        Expect("progress paid at each action takes more actions", "actions", "paid each action", "vla_rl", low=0),
        Expect("tokens as steps succeed less", "gold", "vla_rl", "tokens as steps", low=0),
    ],
    grid=({"lr": 5e-4}, {"lr": 1.5e-3}),
    tune="trained",
    scale="six tasks of two axes and a gripper, nine actions an episode, 288 episodes; the paper has 40 LIBERO tasks",
)
