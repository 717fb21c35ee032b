"""``rewardkit papers``: the catalogue and each row's state, as a list, as JSON or as a page."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rewardkit.cli.common import outcome_line
from rewardkit.papers.works import Row, find, load, row, rows

NAME = "papers"
HELP = "The catalogue of published works on learning from rewards, and how far each one is built here."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``rewardkit papers``."""
    parser.add_argument("slug", nargs="?", help="show one work, by its slug or number")
    parser.add_argument("--json", action="store_true", help="write the rows as JSON to standard output")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a self-contained page with a search box")
    parser.add_argument("--state", choices=["done", "partial", "missing"], help="only works of this state")


def run(args: argparse.Namespace) -> int:
    """List the catalogue, or show one work."""
    if args.slug:
        from rewardkit.registry import Registry

        one = row(find(load(), args.slug), Registry.load())
        chosen = [one]
    else:
        chosen = [r for r in rows() if args.state in (None, r.state)]
    if args.html:
        from rewardkit.data.whole import write_text
        from rewardkit.papers.page import page

        write_text(args.html, page(chosen))
    if args.json:
        print(json.dumps([r.as_dict() for r in chosen], ensure_ascii=False, indent=1))
    elif args.html:
        print(args.html)
    elif args.slug:
        print(_whole(chosen[0]))
    else:
        print(_table(chosen))
    return 0


def _table(chosen: Sequence[Row]) -> str:
    lines = [f"{'n':>4}  {'state':<8} {'verdict':<25} {'slug':<34} title"]
    for r in chosen:
        verdict = (r.verdict or "-") + ("*" if r.stale else "")
        lines.append(
            f"{r.work.n:>4}  {r.state:<8} {verdict:<25} {r.work.slug:<34} {textwrap.shorten(r.work.title, 80)}"
        )
    if any(r.stale for r in chosen):
        lines.append("* the code behind it has changed since: rewardkit reproduce SLUG")
    count = Counter(r.state for r in chosen)
    lines.append(f"{len(chosen)} works: " + ", ".join(f"{count[s]} {s}" for s in ("done", "partial", "missing")))
    return "\n".join(lines)


def _whole(r: Row) -> str:
    work = r.work
    parts = [
        f"{work.n}. {work.title}",
        f"{work.slug}; {work.kind}; {', '.join(work.modality)}" + (f"; arXiv {work.arxiv}" if work.arxiv else ""),
        f"state: {r.state}" + (f"; verdict: {r.verdict}" if r.verdict else ""),
        *(f"  {outcome_line(o)}" for o in r.outcomes),
        *([f"  (the code behind it has changed since: rewardkit reproduce {work.slug})"] if r.stale else []),
        "components: " + ", ".join(h + (" (missing)" if h in r.missing_components else "") for h in work.home),
    ]
    for name in ("mechanism", "claim", "check", "trap"):
        body = "\n".join(textwrap.fill(line, 110) for line in getattr(work, name).splitlines())
        parts.append(f"\n{name}\n{textwrap.indent(body, '  ')}")
    return "\n".join(parts)
