"""DPO on pairs; each side computes its reference's log-probs inside the measured time, once a row."""

from __future__ import annotations

from pathlib import Path

from benchmarks.speed import peer as trl_side
from benchmarks.speed.preferences import our_rows, their_rows
from benchmarks.speed.settings import FORWARD_TOKENS, Setting
from benchmarks.speed.timing import Clock, Run


def ours(setting: Setting, folder: Path) -> Run:
    """``fit`` with the reference attached batch by batch, as ``rewardkit align`` does it; tokenised beforehand."""
    from rewardkit.data.rows import attach
    from rewardkit.objectives.preference import dpo
    from rewardkit.policies.language.policy import LanguagePolicy
    from rewardkit.training.fit import fit
    from rewardkit.training.learner import Learner
    from rewardkit.types import Rollout

    policy = LanguagePolicy.load(folder, dtype=setting.dtype, device=setting.device, max_tokens=FORWARD_TOKENS)
    learner, reference = Learner(policy, lr=setting.lr), policy.at("start")
    rows = our_rows(setting)
    whole = attach(policy.encode(rows.samples), rows)

    def encode(pairs: list[int]) -> Rollout:
        return learner.attach(whole.select([row for i in pairs for row in (2 * i, 2 * i + 1)]), reference)

    clock, losses = Clock(setting.device), []
    pairs = range(len(whole) // 2)
    for step in fit(learner, pairs, dpo, encode=encode, batch=setting.batch, shuffle=False):
        losses.append(step.metrics["loss"])
        clock.tick()
    return Run(clock.seconds(setting.steps), losses)


def peer(setting: Setting, folder: Path) -> Run:
    """TRL's ``DPOTrainer``, with its own frozen copy as the reference."""
    from trl import DPOConfig, DPOTrainer

    config = DPOConfig(**trl_side.arguments(setting, folder, max_length=None))
    return trl_side.train(setting, DPOTrainer, config, folder, their_rows(setting))
