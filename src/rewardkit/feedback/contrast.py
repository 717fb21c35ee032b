"""Comparisons without a judge: the same policy answers under a good principle and under a bad one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from rewardkit.objectives.steering import BAD, GOOD, PLAIN
from rewardkit.registry import entry
from rewardkit.types import Rollout, Sample

Rewrite = Callable[[Any], Any]
"""A prompt to the prompt with a principle before, behind or around it."""


@entry(
    "feedback:principle_contrast_pairs",
    tags=("pairs", "on-policy"),
    source="Xiang et al. 2024 (SSO), arXiv:2410.17131, section 3; under one context only: Yang et al. 2023 (RLCD), "
    "arXiv:2307.12950",
)
def principle_contrast_pairs(
    policy: Any, prompts: Sequence[Any], good: Rewrite, bad: Rewrite, *, sampling: Any = None, seed: int | None = None
) -> Rollout:
    """For each prompt one reply under the good principle and one under the bad one, encoded under all three prompts.

    Args:
        policy: answers, and encodes. prompts: the questions; the principle is in none of them.
        good, bad: a question to the question with the principle. sampling: the policy's own. seed: of both replies.

    Returns:
        six rows a question, one group: the better and the worse reply under the bare question (``context`` 0), the
        good principle (1) and the bad one (2), under which ``rank`` is the other way round. ``source`` is the question.
        Rows of context 0 alone are plain comparisons.

    >>> from rewardkit.policies.table import TablePolicy
    >>> policy = TablePolicy(["x", "+x", "-x"], ["a", "b"])
    >>> rows = principle_contrast_pairs(policy, ["x"], lambda p: f"+{p}", lambda p: f"-{p}", seed=0)
    >>> [s.prompt for s in rows.samples], rows["rank"].tolist(), rows["context"].tolist()
    (['x', 'x', '+x', '+x', '-x', '-x'], [0, 1, 0, 1, 1, 0], [0, 0, 1, 1, 2, 2])
    """
    drawn = [
        policy.sample([Sample(write(p), source=p) for p in prompts], sampling=sampling, seed=s)
        for write, s in zip((good, bad), (None, None) if seed is None else (2 * seed, 2 * seed + 1), strict=True)
    ]
    contexts: dict[int, Rewrite] = {PLAIN: lambda p: p, GOOD: good, BAD: bad}
    under = {c: [d.under([write(p) for p in prompts]).samples for d in drawn] for c, write in contexts.items()}
    samples, rank, context = [], [], []
    for question in range(len(prompts)):
        for c, pair in under.items():
            samples += [side[question] for side in pair]
            rank += [1, 0] if c == BAD else [0, 1]
            context += [c] * 2
    rows = policy.encode(samples)
    device = rows.mask.device
    group = torch.arange(len(prompts), device=device).repeat_interleave(2 * len(contexts))
    return replace(rows, group=group, family=group).with_tensors(
        rank=torch.tensor(rank, device=device), context=torch.tensor(context, device=device)
    )
