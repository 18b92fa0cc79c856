"""The parts of a report, whatever its format. Every number in it has its source.

A document is sections of blocks; a block's text is a sequence of spans. A number that was computed is a `Number`,
which carries file, JSON path and rounding; prose with a figure in it that has no source does not build.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

_CODE = re.compile(r"`[^`]*`")
_FIGURE = re.compile(r"(?<![\w.\-])[+\-]?\d")  # a digit that is not part of a name such as F1 or ResNet18
_BREAKS = re.compile(r"(?<=[+_.])(?=[A-Za-z])")  # where a long name may break
OPERATIONS: dict[str, Callable[[list[float]], float]] = {
    "value": lambda values: values[0],
    "sum": sum,
    "difference": lambda values: values[0] - values[1],
    "ratio": lambda values: values[0] / values[1],
    "share": lambda values: values[0] / sum(values),
    "count": lambda values: float(len(values)),
}


@dataclass(frozen=True)
class Source:
    """Where a value stands: a file below the report's folder and an RFC 9535 JSON path (in `.jsonl`, `$[line]`)."""

    file: str
    path: str


@dataclass(frozen=True)
class Rounding:
    """How a value becomes text: multiplied by `scale`, then written with `digits`."""

    digits: int = 3
    scale: float = 1.0
    style: Literal["fixed", "signed", "count", "significant"] = "fixed"

    def apply(self, value: float, *, separator: str = ",") -> str:
        """The text of `value`."""
        scaled = value * self.scale
        if self.style == "count":
            return f"{scaled:,.{self.digits}f}".replace(",", separator)
        if self.style == "significant":
            return f"{scaled:.{self.digits}g}"
        text = f"{scaled:{'+' if self.style == 'signed' else ''}.{self.digits}f}"
        if text.startswith("-") and not text.strip("-0."):  # rounded to nothing
            return text.replace("-", "+" if self.style == "signed" else "")
        return text


@dataclass(frozen=True)
class Number:
    """A number with what it was read from; `operation` joins several values, `count` counts the sources.

    Raises `ValueError` without a source, and for what is not finite.
    """

    value: float
    sources: tuple[Source, ...]
    rounding: Rounding = Rounding()
    operation: str = "value"

    def __post_init__(self) -> None:
        """Refuse a number without a source."""
        if not self.sources:
            raise ValueError(f"the number {self.value} has no source")
        if not math.isfinite(self.value):
            raise ValueError(f"{self.sources[0]} holds {self.value}, which is no number")

    @property
    def text(self) -> str:
        """The number as it is written."""
        return self.rounding.apply(self.value)


@dataclass(frozen=True)
class Estimate:
    """A number and its interval."""

    value: Number
    low: Number
    high: Number

    @property
    def text(self) -> str:
        """The estimate as it is written: `value [low, high]`."""
        return f"{self.value.text} [{self.low.text}, {self.high.text}]"


@dataclass(frozen=True)
class Quote:
    """Words of an artefact, quoted as they are."""

    text: str
    source: Source


@dataclass(frozen=True)
class Constant:
    """A number of the method or of a law, not of this study; `why` says which."""

    text: str
    why: str


@dataclass(frozen=True)
class Blank:
    """Words where a number is missing, and the command that makes it."""

    text: str
    command: str

    def __post_init__(self) -> None:
        """Refuse a blank without words or without a command that fills it."""
        if not self.text or not self.command:
            raise ValueError("a cell without a number needs words and a command")


Span = str | Number | Estimate | Quote | Constant | Blank
Spans = tuple[Span, ...]
Row = tuple[Span | Spans, ...]


def phrase(template: str, *parts: Span | Spans) -> Spans:
    """Prose whose `{}` are the parts, in order."""
    out: list[Span] = []
    words = template.split("{}")
    for text, part in zip(words, (*parts, ()), strict=True):
        out += [text, *(part if isinstance(part, tuple) else (part,))]
    return tuple(span for span in out if span != "")


def row(*cells: Span | Spans) -> Row:
    """The cells of one row of a table."""
    return cells


def spans(content: Span | Spans) -> Spans:
    """The spans of a text or cell. Raises `ValueError` for prose with a figure that has no source."""
    parts = content if isinstance(content, tuple) else (content,)
    for span in parts:
        if isinstance(span, str) and _FIGURE.search(_CODE.sub("", span)):
            raise ValueError(f"a number without a source: {span!r}")
    return parts


def marked(text: str) -> list[tuple[str, bool]]:
    """A text cut at its backticks: each piece, and whether it is code."""
    return [(piece, bool(i % 2)) for i, piece in enumerate(text.split("`")) if piece]


def breakable(text: str) -> str:
    """A quoted name with zero-width spaces where a line may break in it: `a+b.pool` after + and the point."""
    return _BREAKS.sub("\u200b", text)


def plain(content: Span | Spans) -> str:
    """The text as a reader sees it, without the signs of code."""
    return "".join(s if isinstance(s, str) else s.text for s in spans(content)).replace("`", "")


@dataclass(frozen=True)
class Text:
    """A paragraph. `note` marks what must not be overlooked, `warning` what is wrong."""

    content: Span | Spans
    kind: Literal["plain", "note", "warning"] = "plain"

    def __post_init__(self) -> None:
        """Check its numbers."""
        spans(self.content)


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of points."""

    items: tuple[Span | Spans, ...]

    def __post_init__(self) -> None:
        """Check its numbers."""
        for item in self.items:
            spans(item)


@dataclass(frozen=True)
class Code:
    """Commands, or a text of a file."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table; `name` is its anchor and the name of its CSV file, `strong` are marked rows.

    The first column names the row. Raises `ValueError` for rows of another width than the head and for empty cells.
    """

    name: str
    caption: Span | Spans
    head: tuple[Span | Spans, ...]
    rows: tuple[tuple[Span | Spans, ...], ...]
    strong: frozenset[int] = frozenset()
    note: Span | Spans = ""

    def __post_init__(self) -> None:
        """Check shape, cells and numbers."""
        for content in (self.caption, self.note, *self.head):
            spans(content)
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"table {self.name}: {len(row)} cells under {len(self.head)} heads")
            for cell in row:
                if not plain(cell).strip(" –-"):
                    raise ValueError(f"table {self.name}: an empty cell in the row {plain(row[0])!r}")

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers; it is then aligned right."""
        cells = [spans(row[column]) for row in self.rows]
        return bool(column) and all(isinstance(c[0], Number | Estimate | Blank) for c in cells)

    def wordy(self, column: int) -> bool:
        """Whether a column holds sentences; it then gets more room."""
        return not self.numeric(column) and any(len(plain(row[column])) > 30 for row in self.rows)


class Drawing(Protocol):
    """A figure that can be written as vectors and as pixels."""

    def svg(self) -> bytes:
        """The figure as an SVG file."""
        ...

    def png(self, dpi: int) -> bytes:
        """The same as a PNG file."""
        ...


@dataclass(frozen=True)
class Figure:
    """A figure, its alternative text, and the table of its numbers.

    `data` is a table of its own, the name of one that stands in the same document, or None for images.
    """

    name: str
    caption: Span | Spans
    drawing: Drawing
    alt: str
    data: Table | str | None

    def __post_init__(self) -> None:
        """Check caption and alternative text."""
        spans(self.caption)
        if not self.alt:
            raise ValueError(f"the figure {self.name} has no alternative text")


Block = Text | Heading | Items | Code | Table | Figure


@dataclass
class Section:
    """A heading, its anchor and its blocks."""

    name: str
    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass
class Document:
    """A whole report."""

    title: str
    subtitle: Span | Spans
    sections: list[Section] = field(default_factory=list)

    def blocks(self) -> Iterator[tuple[Section, Block]]:
        """Every block with its section, tables behind figures after their figures."""
        for section in self.sections:
            for block in section.blocks:
                yield section, block
                if isinstance(block, Figure) and isinstance(block.data, Table):
                    yield section, block.data

    def tables(self) -> list[Table]:
        """Every table in order, those behind figures last."""
        behind = [figure.data for figure in self.figures() if isinstance(figure.data, Table)]
        return [b for s in self.sections for b in s.blocks if isinstance(b, Table)] + behind

    def figures(self) -> list[Figure]:
        """Every figure, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Figure)]

    def numbering(self) -> dict[str, int]:
        """The number of each table and figure by its name. Raises `ValueError` for a name that occurs twice."""
        numbers: dict[str, int] = {}
        kinds: tuple[Sequence[Table | Figure], ...] = (self.tables(), self.figures())
        for kind in kinds:
            for number, block in enumerate(kind, 1):
                if block.name in numbers:
                    raise ValueError(f"two blocks are called {block.name!r}")
                numbers[block.name] = number
        return numbers
