"""What a run remembers of its data: what counts, whether it is the same, which prompts were trained on.

Prompts themselves are not stored, only 16 hexadecimal digits of each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rewardkit.data.whole import write_text
from rewardkit.types import Judgement, Sample

Kind = TypeVar("Kind", Judgement, Sample, Judgement | Sample)

SEEN = "prompts_seen.txt"
"""In a policy's folder: a digest a line of every prompt that it was trained on, by this run and those before it."""


def counted(items: Iterable[Kind]) -> list[Kind]:
    """Items without the judgements of weight 0, which are as if they were not there.

    >>> pair = (Sample("x", "a"), Sample("x", "b"))
    >>> len(counted([Judgement(pair, rank=(0, 1)), Judgement(pair, rank=(0, 1), weight=0.0)]))
    1
    """
    return [item for item in items if not (isinstance(item, Judgement) and item.weight == 0)]


def data_digest(items: Iterable[Judgement | Sample]) -> str:
    """16 hexadecimal digits of all that trains: prompts, outputs, what was judged of them and how much it counts."""
    found = hashlib.blake2b(digest_size=8)
    for item in items:
        if isinstance(item, Sample):
            found.update(_bytes([item.prompt, item.output]))
            continue
        said = [item.rank, item.p, item.rating, item.strength, item.weight]
        found.update(_bytes([[[s.prompt, s.output] for s in item.items], said]))
    return found.hexdigest()


def prompt_digests(items: Iterable[Judgement | Sample]) -> set[str]:
    """A digest of each item's prompt, the user's own words, whatever file it stood in and however that was split."""
    firsts = (item.items[0] if isinstance(item, Judgement) else item for item in items)
    return {hashlib.blake2b(_bytes(s.asked), digest_size=8).hexdigest() for s in firsts}


def seen_by(folder: str | Path) -> set[str]:
    """Digests of the prompts that the policy in ``folder`` was trained on; none where the folder does not say."""
    kept = Path(folder) / SEEN
    return set(kept.read_text(encoding="utf-8").split()) if kept.is_file() else set()


def write_seen(folder: Path, digests: Iterable[str]) -> None:
    """Write :data:`SEEN` beside a policy."""
    write_text(folder / SEEN, "".join(f"{d}\n" for d in sorted(digests)))


def check_unseen(seen: Collection[str], held_out: Sequence[Judgement | Sample], policy: str) -> None:
    """Held-out prompts are ones that the policy was not trained on.

    Args:
        seen: of :func:`seen_by`. held_out: items. policy: its name, for the message.

    Raises:
        ValueError: if some were.
    """
    prompts = prompt_digests(held_out)
    both = prompts & set(seen)
    if both:
        raise ValueError(
            f"{policy} was trained on another split and has seen prompts that this run would hold out, {len(both)} of "
            f"{len(prompts)}: use the --seed and the --held-out of the run that trained it"
        )


def _bytes(value: Any) -> bytes:
    # Images and audio count by their kind alone: their text forms hold addresses that change from run to run.
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=lambda thing: type(thing).__name__)
    return text.encode("utf-8", "surrogatepass")
