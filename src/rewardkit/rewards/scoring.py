"""Scores of samples that no policy of ours made: comparisons in files, benchmarks."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import torch

from rewardkit.data.dialogue import characters
from rewardkit.data.rows import places
from rewardkit.measures.pairs import Compared
from rewardkit.protocols import Reward
from rewardkit.rewards.base import errors
from rewardkit.types import Judgement, Rollout, Sample, Scores

log = logging.getLogger(__name__)


def score_groups(reward: Reward, groups: Iterable[Sequence[Sample]], *, batch: int = 256) -> Iterator[Scores]:
    """Scores of each group of samples (a pair, a list), in order; a stream stays a stream.

    Args:
        reward: any whose scores have an outcome. One of scope ``batch`` sees everything at once, all others ``batch``
            groups.
        groups: samples that answer one prompt.
        batch: groups scored at once.

    Raises:
        ValueError: for a reward without outcomes.
    """
    stream = iter(groups)
    while part := list(stream if reward.scope == "batch" else itertools.islice(stream, batch)):
        samples = [s for group in part for s in group]
        number = torch.tensor([i for i, group in enumerate(part) for _ in group], dtype=torch.long)
        scores = reward(Rollout(samples, torch.ones(len(samples), 1), group=number))
        if scores.outcome is None:
            raise ValueError(
                f"reward {reward.name!r} has no outcome, one number a reply: a dense reward ranks no replies"
            )
        at = 0
        for group in part:
            rows = slice(at, at + len(group))
            at += len(group)
            yield Scores(
                outcome=scores.outcome[rows].detach().float().cpu(),
                status=scores.status[rows].cpu(),
                why=None if scores.why is None else scores.why[rows],
            )


def better_pairs(judgement: Judgement) -> tuple[list[tuple[int, int]], int]:
    """Every (better, worse) pair of item numbers of a judgement, and how many pairs it calls equal."""
    if len(judgement.items) < 2:
        raise ValueError("pairwise evaluation needs comparisons of two or more items; this judgement is of one")
    at = places(judgement)
    both = list(itertools.combinations(range(len(at)), 2))
    return [(i, j) if at[i] < at[j] else (j, i) for i, j in both if at[i] != at[j]], sum(
        at[i] == at[j] for i, j in both
    )


def compare(reward: Reward, judgements: Iterable[Judgement], *, batch: int = 256) -> Compared:
    """Score both sides of every pair of every judgement; k-way judgements give all their pairs.

    Pairs with a reply that the reward failed on are left out and counted; the commonest reasons go to the log.
    """
    differences: list[float] = []
    lengths: list[tuple[int, int]] = []
    unscored = undecided = 0
    reasons: Counter[str] = Counter()
    kept: list[Judgement] = []

    def items() -> Iterator[Sequence[Sample]]:
        for judgement in judgements:
            kept.append(judgement)
            yield judgement.items

    for scores in score_groups(reward, items(), batch=batch):
        judgement = kept.pop(0)
        pairs, equal = better_pairs(judgement)
        undecided += equal
        assert scores.outcome is not None
        reasons.update(errors(scores))
        value, ok = scores.outcome.tolist(), scores.ok.tolist()
        size = [characters(s.output) for s in judgement.items]
        for i, j in pairs:
            if ok[i] and ok[j]:
                differences.append(value[i] - value[j])
                lengths.append((size[i], size[j]))
            else:
                unscored += 1
    if reasons:
        said = "; ".join(f"{why} ({times}x)" for why, times in reasons.most_common(3))
        log.warning("reward %r failed on %d replies: %s", reward.name, reasons.total(), said)
    table = torch.tensor(lengths, dtype=torch.long).reshape(-1, 2)
    return Compared(torch.tensor(differences, dtype=torch.float64), table, unscored, undecided)
