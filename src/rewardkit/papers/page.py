"""The catalogue as one page that needs no network: a search box, three filters, every row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rewardkit.papers.works import Row

TEMPLATE = Path(__file__).parent / "page.html"


def page(rows: Sequence[Row]) -> str:
    """The HTML of the catalogue, with its data, style and script inside."""
    data = json.dumps([r.as_dict() for r in rows], ensure_ascii=False, separators=(",", ":"))
    # "</script>" or "<!--" inside a string would end the script element: escape every "<"
    return TEMPLATE.read_text(encoding="utf-8").replace("/*ROWS*/[]", data.replace("<", "\\u003c"))
