"""Loops one after the other: each begins when the one before has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rewardkit.registry import entry

Loop = Callable[[], Iterable[Any]]


@dataclass(frozen=True)
class Stage:
    """What one loop gave, with the name of its stage."""

    name: str
    item: Any


@entry(
    "loops:stages",
    aliases=("rlhf_three_stage", "sft_then_rl", "sft_rm_dpo_pipeline", "sft_dpo_rlvr", "staged_curriculum"),
    tags=("composition",),
    source="Stiennon et al. 2020, arXiv:2009.01325; Ouyang et al. 2022, arXiv:2203.02155",
)
def stages(**loops: Loop) -> Iterator[Stage]:
    """Run loops in order. The three stages of RLHF are ``fit`` of ``sft``, ``fit`` of ``bradley_terry``, ``online``.

    Args:
        loops: by name, each a function that makes its iterable. It is called when the loops before it have ended, so
            it may use what they trained.

    >>> [(s.name, s.item) for s in stages(first=lambda: [1, 2], second=lambda: [3])]
    [('first', 1), ('first', 2), ('second', 3)]
    """
    if not loops:
        raise ValueError("stages needs at least one loop")
    for name, make in loops.items():
        for item in make():
            yield Stage(name, item)
