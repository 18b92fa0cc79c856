"""Every table of a document as CSV: intervals in columns of their own, no thousands separators."""

from __future__ import annotations

import csv
import io

from mien.report.blocks import Document, Estimate, Number, Span, Spans, Table, plain, spans


def csv_files(document: Document) -> dict[str, str]:
    """The tables by their file names."""
    return {f"tables/{table.name}.csv": to_csv(table) for table in document.tables()}


def to_csv(table: Table) -> str:
    """One table; a cell with an interval takes three columns."""
    wide = [any(isinstance(spans(row[i])[0], Estimate) for row in table.rows) for i in range(len(table.head))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = [[h, f"{h} low", f"{h} high"] if w else [h] for w, h in zip(wide, map(plain, table.head), strict=True)]
    writer.writerow([name for names in head for name in names])
    for row in table.rows:
        cells = [_cell(cell, w) for cell, w in zip(row, wide, strict=True)]
        writer.writerow([text for texts in cells for text in texts])
    return out.getvalue()


def _cell(cell: Span | Spans, wide: bool) -> list[str]:
    parts = spans(cell)
    first = parts[0]
    if wide and isinstance(first, Estimate):
        return [_bare(first.value), _bare(first.low), _bare(first.high)]
    text = _bare(first) if len(parts) == 1 and isinstance(first, Number) else plain(cell)
    return [text, "", ""] if wide else [text]


def _bare(number: Number) -> str:
    return number.rounding.apply(number.value, separator="")
