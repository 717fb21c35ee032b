"""The next batch is sampled while this one is scored."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rewardkit.credit.group import group_relative
from rewardkit.loops import PromptSet, online
from rewardkit.loops.ahead import parts_of, reaches
from rewardkit.objectives.policy import clipped, reinforce
from rewardkit.policies.table import TablePolicy
from rewardkit.rewards.base import Constant, RewardBase
from rewardkit.rewards.function import function_reward
from rewardkit.rewards.learned.implicit import ImplicitReward
from rewardkit.training import Checkpoints, Learner, Tracker
from rewardkit.types import Rollout, Scores

ACTIONS = ["a", "b", "c", "d"]
WORTH = {"a": 0.0, "b": 0.5, "c": 1.0, "d": 2.0}
OTHER = TablePolicy(["x"], ["a"])


def worth(completions: list[str], **_: Any) -> list[float]:
    return [WORTH[c] for c in completions]


def table() -> TablePolicy:
    return TablePolicy(["x", "y"], ACTIONS, logits=torch.tensor([[[0.5, 0.0, 0.0, -0.5]], [[0.0, 0.3, 0.0, 0.0]]]))


def run(learner: Learner, reward: Any = worth, **options: Any) -> Any:
    settings = {"reference": "start", "n": 16, "batch": 4, "steps": 6, "ahead": 1, **options}
    objective = settings.pop("objective", clipped)
    return online(learner, PromptSet(["x", "y"]), reward, group_relative, objective, **settings)


class Sampling(TablePolicy):
    """Says when it has sampled: a number for each time goes to ``times``."""

    def __init__(self, times: list[int], said: threading.Condition) -> None:
        super().__init__(["x", "y"], ACTIONS)
        self.times, self.said = times, said

    def sample(self, *args: Any, **options: Any) -> Rollout:
        rollout = super().sample(*args, **options)
        with self.said:
            self.times.append(len(self.times) + 1)
            self.said.notify_all()
        return rollout


@pytest.mark.parametrize("ahead", [0, 1])
def test_the_next_batch_is_sampled_before_the_reward_is_known(ahead: int) -> None:
    """The reward of each turn ends when the next turn has sampled, and not before; that of the last turn, at once."""
    times: list[int] = []
    said, before = threading.Condition(), []

    def slow(completions: list[str], trainer_state: Any, **_: Any) -> list[float]:
        turn = trainer_state.global_step
        with said:
            if ahead and turn < 4:
                assert said.wait_for(lambda: len(times) > turn, timeout=60), "nothing was sampled meanwhile"
            before.append(len(times))
        return worth(completions)

    list(run(Learner(Sampling(times, said), lr=0.1), slow, steps=4, ahead=ahead))
    assert before == ([2, 3, 4, 4] if ahead else [1, 2, 3, 4])


def test_a_batch_is_of_the_weights_before_the_last_update() -> None:
    """Its old log-probs too, its divergence as well; the first batch, and a run that is not ahead, are on-policy."""
    for ahead in (0, 1):
        learner = Learner(table(), lr=0.3)
        weights = [table()]
        steps = []
        for step in run(learner, ahead=ahead):
            steps.append(step)
            weights.append(TablePolicy(["x", "y"], ACTIONS, logits=learner.model.logits.detach().clone()))
        for number, step in enumerate(steps):
            sampler = weights[max(0, number - ahead)]
            torch.testing.assert_close(step.rollout["old_logps"], sampler.evaluate(step.rollout)["logps"].detach())
            gap = step.rollout["old_logps"] - step.rollout["start_logps"]
            assert step.metrics["kl/k1_response"] == pytest.approx(float(gap.sum(1).mean()), abs=1e-6)
        assert steps[1].metrics["clipped/ratio"] != 1.0 or not ahead
        assert (abs(steps[1].metrics["clipped/old_kl"]) > 1e-4) == bool(ahead)


def test_a_run_ahead_samples_by_the_seeds_of_its_turns() -> None:
    """At a learning rate of 0 all weights are equal, and so are the runs."""
    first, second = (list(run(Learner(table(), lr=0.0), ahead=ahead)) for ahead in (0, 1))
    for one, other in zip(first, second, strict=True):
        assert [s.output for s in one.rollout.samples] == [s.output for s in other.rollout.samples]
        assert one.metrics == other.metrics


def test_it_learns_what_the_run_in_step_learns() -> None:
    found = [list(run(Learner(table(), lr=0.1), steps=40, ahead=ahead))[-1].metrics["reward"] for ahead in (0, 1)]
    assert min(found) > 1.5


def test_a_killed_run_goes_on_to_the_same_curve_and_no_batch_crosses_a_checkpoint(tmp_path: Path) -> None:
    def begin(folder: Path) -> Any:
        tracker = Tracker(folder, tensorboard=False)
        return run(
            Learner(table(), lr=0.1), steps=12, inner=2, tracker=tracker, checkpoint=Checkpoints(folder / "c", every=4)
        )

    whole = {s.step: s.rollout.versions for s in begin(tmp_path / "whole")}
    assert len(whole) == 12
    for stop in (2, 4, 7, 11):
        folder = tmp_path / f"stopped-{stop}"
        for step in begin(folder):
            if step.step == stop:
                break
        list(begin(folder))
        assert (folder / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()
    plain = [
        s.metrics["clipped/old_kl"]
        for s in run(Learner(table(), lr=0.1), steps=12, inner=1, checkpoint=Checkpoints(tmp_path / "p", every=4))
    ]
    on_policy = [i + 1 for i, kl in enumerate(plain) if abs(kl) < 1e-7]
    assert on_policy == [1, 5, 9]
    with pytest.raises(ValueError, match="checkpoint_every was 4 and is 3"):
        next(run(Learner(table(), lr=0.1), steps=20, checkpoint=Checkpoints(tmp_path / "p", every=3)))


def test_what_goes_wrong_in_the_reward_is_raised_in_the_loop() -> None:
    def broken(completions: list[str], absent: Any, **_: Any) -> list[float]:
        return []

    with pytest.raises(ValueError, match="asks for"):
        next(run(Learner(table(), lr=0.1), broken))


def test_what_cannot_be_ahead_is_refused_with_the_mend() -> None:
    with pytest.raises(ValueError, match="reinforce has no importance ratio"):
        next(run(Learner(table(), lr=0.1), objective=reinforce))
    with pytest.raises(ValueError, match="not the weights that sampled"):
        next(run(Learner(table(), lr=0.1), reference="last"))
    with pytest.raises(ValueError, match="ahead is 0, or 1"):
        next(run(Learner(table(), lr=0.1), ahead=2))


class Holds(RewardBase):
    name = "holds"

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    def __call__(self, rollout: Rollout, ctx: Any = None) -> Scores:
        return Scores(torch.zeros(len(rollout)))


def test_rewards_that_use_the_policy_itself_are_refused_and_frozen_copies_are_not() -> None:
    learner = Learner(table(), lr=0.1)
    policy = learner.model

    def closed(completions: list[str], **_: Any) -> list[float]:
        return [float(policy.parameters)] * len(completions)

    live: list[Any] = [
        Holds(policy),
        Constant(1.0) + 0.5 * Holds(learner),
        Holds({"judges": [(policy.module,)]}),
        Holds(functools.partial(print, policy)),
        Holds(policy.enumerate),
        ImplicitReward(policy, policy.at("start")),
        closed,
    ]
    for reward in live:
        with pytest.raises(ValueError, match="policy, the critic, the prompts or the environment itself"):
            next(run(learner, reward))
    next(run(learner, Holds(policy.keep("judge"))))
    next(run(learner, Holds(table()) + function_reward(worth)))


def test_names_that_a_function_reads_are_looked_into() -> None:
    def reads(sample: Any) -> float:
        return max(float(x) for x in OTHER.logits.flatten())

    def does_not(sample: Any) -> float:
        return float(sample.OTHER)

    wanted = parts_of([OTHER])
    assert reaches(reads, wanted)
    assert not reaches(does_not, wanted)
    assert reaches(Holds([nn.Sequential(OTHER.module)]), wanted)
