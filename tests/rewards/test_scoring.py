"""Scores of samples in files."""

import torch

from rewardkit.rewards.function import function_reward
from rewardkit.rewards.scoring import compare, score_groups
from rewardkit.types import ERROR, OK, Judgement, Sample


def test_why_replies_could_not_be_scored_is_passed_on_and_logged(caplog) -> None:
    def picky(sample):
        return 1.0 / (len(sample.output) - 3)

    pairs = [Judgement((Sample("x", "a"), Sample("x", worse)), rank=(0, 1)) for worse in ("bb", "ccc", "ddd")]
    reward = function_reward(picky)
    scores = list(score_groups(reward, [p.items for p in pairs]))
    assert [s.status.tolist() for s in scores] == [[OK, OK], [OK, ERROR], [OK, ERROR]]
    assert scores[1].why == [None, "ZeroDivisionError: float division by zero"]
    found = compare(reward, pairs)
    assert (len(found.difference), found.unscored) == (1, 2)
    assert "'picky' failed on 2 replies: ZeroDivisionError: float division by zero (2x)" in caplog.text
    caplog.clear()
    compare(reward, pairs[:1])
    assert not caplog.text
    assert torch.isfinite(found.difference).all()
