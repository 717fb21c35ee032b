"""A reward model from pairs, by Bradley-Terry."""

from __future__ import annotations

from pathlib import Path

from benchmarks.speed import peer as trl_side
from benchmarks.speed.preferences import our_rows, their_rows
from benchmarks.speed.settings import FORWARD_TOKENS, Setting
from benchmarks.speed.timing import Clock, Run


def ours(setting: Setting, folder: Path) -> Run:
    """``fit`` of a :class:`rewardkit.rewards.learned.scalar.ScalarReward`, tokenised beforehand."""
    from rewardkit.data.rows import attach
    from rewardkit.objectives.reward import bradley_terry
    from rewardkit.rewards.learned.scalar import ScalarReward
    from rewardkit.training.fit import fit
    from rewardkit.training.learner import Learner

    reward = ScalarReward.load(
        folder, dtype=setting.dtype, device=setting.device, append_eos=True, batch_tokens=FORWARD_TOKENS
    )
    rows = our_rows(setting)
    data = attach(reward.encode(rows.samples), rows)
    clock, losses = Clock(setting.device), []
    for step in fit(Learner(reward, lr=setting.lr), data, bradley_terry, batch=setting.batch, shuffle=False):
        losses.append(step.metrics["loss"])
        clock.tick()
    return Run(clock.seconds(setting.steps), losses)


def peer(setting: Setting, folder: Path) -> Run:
    """TRL's ``RewardTrainer``."""
    from trl import RewardConfig, RewardTrainer

    config = RewardConfig(**trl_side.arguments(setting, folder, max_length=None))
    return trl_side.train(setting, RewardTrainer, config, folder, their_rows(setting))
