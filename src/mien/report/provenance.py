"""Where every number of a document comes from, and which cells have none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from mien.report.blocks import (
    Blank,
    Block,
    Document,
    Estimate,
    Figure,
    Items,
    Number,
    Span,
    Spans,
    Table,
    Text,
    plain,
    spans,
)


class Place(TypedDict):
    """A file and a JSON path in it."""

    file: str
    path: str


class NumberRow(TypedDict):
    """A number: where it stands in the document, its text, what it was read from, operation and rounding."""

    where: str
    text: str
    sources: list[Place]
    operation: str
    scale: float
    digits: int
    style: str


def numbers(document: Document) -> list[NumberRow]:
    """One row per number."""
    return [
        {
            "where": where,
            "text": number.text,
            "sources": [{"file": s.file, "path": s.path} for s in number.sources],
            "operation": number.operation,
            "scale": number.rounding.scale,
            "digits": number.rounding.digits,
            "style": number.rounding.style,
        }
        for where, span in _spans(document)
        for number in _numbers(span)
    ]


def blanks(document: Document) -> list[dict[str, str]]:
    """One row per cell without a number, with the command that fills it."""
    return [
        {"where": where, "text": span.text, "command": span.command}
        for where, span in _spans(document)
        if isinstance(span, Blank)
    ]


def _numbers(span: Span) -> tuple[Number, ...]:
    if isinstance(span, Estimate):
        return span.value, span.low, span.high
    return (span,) if isinstance(span, Number) else ()


def _spans(document: Document) -> Iterator[tuple[str, Span]]:
    for span in spans(document.subtitle):
        yield "subtitle", span
    for section, block in document.blocks():
        for where, content in _contents(block):
            for span in spans(content):
                yield f"{section.name}: {where}", span


def _contents(block: Block) -> Iterator[tuple[str, Span | Spans]]:
    if isinstance(block, Text):
        yield "text", block.content
    elif isinstance(block, Items):
        yield from (("list", item) for item in block.items)
    elif isinstance(block, Figure):
        yield f"figure {block.name}, caption", block.caption
    elif isinstance(block, Table):
        yield f"table {block.name}, caption", block.caption
        yield from ((f"table {block.name}, head", head) for head in block.head)
        for number, row in enumerate(block.rows, 1):
            for head, cell in zip(block.head, row, strict=True):
                yield f"table {block.name}, row {number}, {plain(head)}", cell
        yield f"table {block.name}, note", block.note
