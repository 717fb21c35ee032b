"""The pairs of both preference trainers, as TRL's rows and as our judgements."""

from __future__ import annotations

from benchmarks.speed.data import examples, text
from benchmarks.speed.settings import Setting
from rewardkit.data.rows import Rows, comparison_rows
from rewardkit.types import Judgement, Sample


def their_rows(setting: Setting) -> list[dict[str, str]]:
    """Texts; TRL adds the EOS."""
    return [
        {"prompt": text(e.prompt), "chosen": text(e.responses[0]), "rejected": text(e.responses[1])}
        for e in examples(setting)
    ]


def our_rows(setting: Setting) -> Rows:
    """Two rows a pair, the chosen one first; the codec adds the EOS."""
    return comparison_rows(
        Judgement((Sample(r["prompt"], r["chosen"]), Sample(r["prompt"], r["rejected"])), rank=(0, 1))
        for r in their_rows(setting)
    )
