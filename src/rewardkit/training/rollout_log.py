"""Rollouts as one reads them: JSON lines, and a page that needs nothing but a browser."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rewardkit.data.whole import write_text
from rewardkit.registry import entry
from rewardkit.types import ERROR, OK, Rollout, Sample, Scores

HEAT = ("advantages", "old_logps", "ref_logps", "values")
"""Tensors over positions that the page can colour by, in order of preference."""


def rows(rollout: Rollout, scores: Scores | None = None) -> Iterator[dict[str, Any]]:
    """Each row as plain data: prompt, output, how it ended, reward with its parts, every tensor of the rollout.

    Tensors over positions are cut to the positions that the row has.
    """
    for i, sample in enumerate(rollout.samples):
        length = _length(rollout.mask[i])
        row = _sample(sample) | {"group": int(rollout.group[i])}
        if scores is not None:
            row["reward"] = _scores(scores, i)
        row["trained"] = [round(float(m), 4) for m in rollout.mask[i, :length]]
        row["tensors"] = {
            name: _plain(value[i, :length] if value.shape[1:2] == rollout.mask.shape[1:] else value[i])
            for name, value in rollout.tensors.items()
        }
        yield row


@entry("training:write_rollouts", tags=("logging",))
def write_rollouts(
    path: str | Path, rollout: Rollout, scores: Scores | None = None, *, step: int | None = None, append: bool = True
) -> None:
    """Rollouts as JSON lines.

    Args:
        path: the file. scores: what the reward said. step: a column of that name. append: or write anew.

    >>> import tempfile
    >>> import torch
    >>> path = Path(tempfile.mkdtemp()) / "rollouts.jsonl"
    >>> write_rollouts(path, Rollout([Sample("Hi", "Hello")], torch.ones(1, 1)), Scores(torch.tensor([1.0])))
    >>> json.loads(path.read_text())["reward"]["outcome"]
    1.0
    """
    head = {} if step is None else {"step": step}
    with Path(path).open("a" if append else "w", encoding="utf-8") as file:
        for row in rows(rollout, scores):
            file.write(json.dumps(head | row, ensure_ascii=False) + "\n")


@entry("training:rollout_page", tags=("logging",))
def rollout_page(
    path: str | Path,
    rollout: Rollout,
    scores: Scores | None = None,
    *,
    title: str = "Rollouts",
    pieces: Sequence[Sequence[str]] | None = None,
    limit: int = 200,
) -> None:
    """Rollouts as one HTML file without scripts, fonts or anything from a network; all text is escaped.

    Args:
        path: the file. scores: what the reward said. title: the heading.
        pieces: the text of each position of each row (``tokenizer.convert_ids_to_tokens``); positions are numbered
            without it. They are coloured by advantage, or by log-prob where there is none.
        limit: rows shown.

    >>> import tempfile
    >>> import torch
    >>> path = Path(tempfile.mkdtemp()) / "rollouts.html"
    >>> rollout_page(path, Rollout([Sample("<b>", "Hello")], torch.ones(1, 1)))
    >>> "&lt;b&gt;" in path.read_text()
    True
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    page = Environment(
        loader=PackageLoader("rewardkit.training", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template("rollouts.html")
    shown = []
    for i, row in zip(range(limit), rows(rollout, scores), strict=False):
        heat = {n: v for n in HEAT if isinstance(v := row["tensors"].get(n), list)}
        name = next(iter(heat), None)
        values = heat[name] if name else []
        texts = list(pieces[i]) if pieces is not None else [str(t) for t in range(len(values))]
        cells = [
            {"text": t, "value": v, "colour": _colour(v, values), "trained": w > 0}
            for t, v, w in zip(texts, values, row["trained"], strict=False)
        ]
        shown.append(row | {"heat": name, "cells": cells})
    text = page.render(title=title, rows=shown, total=len(rollout), how=_plain(rollout.how))
    write_text(path, text)


def _sample(sample: Sample) -> dict[str, Any]:
    found = {"prompt": _plain(sample.prompt), "output": _plain(sample.output), "ended": sample.ended}
    if sample.source is not None:
        found["source"] = _plain(sample.source)
    if sample.hidden:
        found["hidden"] = _plain(dict(sample.hidden))
    return found


def _scores(scores: Scores, i: int) -> dict[str, Any]:
    """One row of scores with its parts; a row that is not OK has a status and no number."""
    status = int(scores.status[i])
    found: dict[str, Any] = {"status": {OK: "ok", ERROR: "error"}.get(status, "missing")}
    if status == OK and scores.outcome is not None:
        found["outcome"] = float(scores.outcome[i])
    if scores.why is not None and scores.why[i]:
        found["why"] = scores.why[i]
    if scores.parts:
        found["parts"] = {n: _scores(p, i) | {"weight": scores.weights[n]} for n, p in scores.parts.items()}
    return found


def _length(mask_T: Tensor) -> int:
    used = (mask_T > 0).nonzero()
    return int(used[-1]) + 1 if len(used) else 0


def _plain(value: Any) -> Any:
    """Anything as what JSON can hold; numbers that are not finite become null."""
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, (str, int, bool)) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [_plain(v) for v in value]
    return str(value)


def _colour(value: float | None, among: Sequence[float | None]) -> str:
    """Green above 0, red below, paler towards 0, by the row's largest magnitude."""
    most = max((abs(v) for v in among if v is not None), default=0.0)
    if value is None or most == 0.0:
        return "transparent"
    return f"rgba({'30,140,60' if value > 0 else '200,50,40'},{0.6 * abs(value) / most:.2f})"
