"""What a report is made of, whatever format it is written in."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Text:
    """A paragraph; `kind` note marks what a reader must not overlook."""

    text: str
    kind: str = "plain"


@dataclass(frozen=True)
class Table:
    """A table; `numeric` columns are set right. `strong` marks rows."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[int] = frozenset()
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture as PNG bytes, with words for those who cannot see it."""

    caption: str
    png: bytes
    alt: str


Block = Text | Table | Figure


@dataclass
class Section:
    """A heading and its blocks."""

    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass
class Document:
    """A whole report."""

    title: str
    subtitle: str
    sections: list[Section] = field(default_factory=list)
