"""How far a reward agrees with comparisons, and how much of that is length."""

from __future__ import annotations

from collections.abc import Iterable

from rewardkit.measures.length import Rule
from rewardkit.measures.pairs import PairReport, summarise
from rewardkit.protocols import Reward
from rewardkit.registry import entry
from rewardkit.rewards.scoring import compare
from rewardkit.types import Judgement


@entry("evals:pairwise", aliases=("pairwise_accuracy",), tags=("comparisons",))
def pairwise(
    reward: Reward, judgements: Iterable[Judgement], *, rule: Rule | None = None, batch: int = 256
) -> PairReport:
    """Evaluate a reward on comparisons: accuracy with interval, calibration, and what length alone explains.

    Args:
        reward: any with one number a reply. judgements: pairs or k-way, ties allowed; a stream stays one.
        rule: the length rule, if it was chosen on other pairs (training's); ``None`` takes the better one here.
        batch: judgements scored at once.

    >>> from rewardkit.rewards.load import load_reward
    >>> from rewardkit.types import Sample
    >>> longer = load_reward({"name": "rewards.rules:length"})
    >>> judged = [Judgement((Sample("q", "a long reply"), Sample("q", "short")), rank=(0, 1))]
    >>> report = pairwise(longer, judged)
    >>> report.accuracy.value, report.length_rule
    (1.0, 'longer')
    """
    return summarise(compare(reward, judgements, batch=batch), rule=rule)
