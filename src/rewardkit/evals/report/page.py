"""One HTML file that explains itself: text is escaped, charts are inline SVG, nothing is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reply:
    """One completion shown under its prompt: who wrote it, the text, and a line of marks."""

    who: str
    text: str
    marks: str


@dataclass(frozen=True)
class Shown:
    """A prompt with several replies to compare."""

    prompt: str
    replies: Sequence[Reply]


@dataclass(frozen=True)
class Table:
    """A table of ready-made strings."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, charts (SVG), one table and samples, each optional."""

    title: str
    texts: Sequence[str] = ()
    charts: Sequence[str] = ()
    table: Table | None = None
    samples: Sequence[Shown] = ()


@dataclass(frozen=True)
class Tile:
    """One figure with what it means."""

    value: str
    label: str


@dataclass(frozen=True)
class Page:
    """A report: it leads with a verdict and a chart, and explains them below."""

    title: str
    lede: str
    verdict: str
    lead_chart: str
    lead_caption: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    footer: Sequence[str] = field(default_factory=tuple)

    def html(self) -> str:
        """The page as text."""
        from jinja2 import Environment, PackageLoader

        environment = Environment(loader=PackageLoader("rewardkit.evals.report", "."), autoescape=True)
        return environment.get_template("page.html").render(**vars(self))
