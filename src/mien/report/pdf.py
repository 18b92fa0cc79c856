"""A document as PDF, set by typst: the same bytes each time, on every machine."""

from __future__ import annotations

import json
import re
from typing import Any

import typst

from mien.report.blocks import (
    Block,
    Code,
    Document,
    Figure,
    Heading,
    Items,
    Number,
    Quote,
    Span,
    Spans,
    Table,
    breakable,
    marked,
    spans,
)

# Fonts come with typst; no date stands in the file, so that its bytes depend on its content alone.
_PREAMBLE = """#set document(title: {title}, date: none)
#set page(paper: "a4", margin: (x: 2cm, top: 2cm, bottom: 2.2cm), numbering: "1")
#set text(font: "Libertinus Serif", size: 10.5pt, lang: "en", number-width: "tabular")
#set par(justify: false, leading: 0.62em, spacing: 1em)
#set heading(numbering: "1.")
#show heading: set block(above: 1.7em, below: 0.8em, sticky: true)
#show heading.where(level: 2): set heading(numbering: none)
#show raw: set text(font: "DejaVu Sans Mono", size: 0.82em)
#show figure.where(kind: table): set block(breakable: true)
#show figure.where(kind: table): set figure.caption(position: top)
#show figure.where(kind: table): set align(left)
#show figure.caption: set align(left)
#show figure.caption: set text(size: 9.5pt)
#show figure.where(kind: table): set figure.caption(separator: [. ])
#show figure.caption.where(kind: table): set block(sticky: true)
#show table.cell.where(y: 0): set text(weight: "bold")
#set table(stroke: (_, y) => (bottom: if y == 0 { 0.8pt } else { 0.3pt + luma(190) }), inset: (x: 3.5pt, y: 3.2pt))
#let note(edge, body) = block(width: 100%, inset: 8pt, stroke: (left: 3pt + edge), fill: luma(244), body)
#text(size: 20pt, weight: "bold")[#{title}]
"""
_EDGES = {"note": "orange", "warning": "red"}
_SVG_WIDTH = re.compile(rb'<svg[^>]* width="([\d.]+)pt"')
_TEXT_WIDTH = 480  # points between the margins
_NARROW = 7  # columns that fit in the usual size


def to_pdf(document: Document) -> bytes:
    """The PDF file."""
    files = {f"{figure.name}.svg": figure.drawing.svg() for figure in document.figures()}
    source: Any = {
        "main": to_typst(document).encode(),
        **files,
    }  # typst takes such files in memory; its types do not say so
    pdf: bytes = typst.compile(source, ignore_system_fonts=True, timestamp=0, format="pdf")
    return pdf


def to_typst(document: Document) -> str:
    """The source that typst sets; tables behind figures stand in an appendix."""
    parts = [_PREAMBLE.replace("{title}", _string(document.title)), _inline(document.subtitle)]
    parts.append("#outline(title: [Contents], depth: 1, indent: 0pt)\n#pagebreak(weak: true)")
    for section in document.sections:
        parts.append(f"= {_inline(section.title)} <{section.name}>")
        parts += [_block(block) for block in section.blocks]
    behind = [f.data for f in document.figures() if isinstance(f.data, Table)]
    if behind:
        parts += ['#pagebreak(weak: true)\n= #"Numbers of the figures"', *(_table(table) for table in behind)]
    return "\n\n".join(parts) + "\n"


def _string(text: str) -> str:
    """A typst string literal."""
    return json.dumps(text, ensure_ascii=False)


def _inline(content: Span | Spans) -> str:
    return "".join(_span(span) for span in spans(content))


def _span(span: Span) -> str:
    text = span if isinstance(span, str) else span.text
    if isinstance(span, Number):
        return f"#{_string(text)};"
    if isinstance(span, Quote):
        text = breakable(text)
    return "".join(f"#raw({_string(p)});" if code else f"#{_string(p)};" for p, code in marked(text))


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"== {_inline(block.text)}"
    if isinstance(block, Items):
        return "\n".join(f"- {_inline(item)}" for item in block.items)
    if isinstance(block, Code):
        return f"#block(width: 100%, inset: 8pt, fill: luma(244), raw({_string(block.text)}, block: true))"
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Figure):
        return _figure(block)
    text = _inline(block.content)
    return text if block.kind == "plain" else f"#note({_EDGES[block.kind]})[{text}]"


def _figure(block: Figure) -> str:
    see = ""
    if block.data is not None:
        name = block.data if isinstance(block.data, str) else block.data.name
        see = f'#". Its numbers: ";#ref(<{name}>).'
    return (
        f"#figure(image({_string(block.name + '.svg')}, alt: {_string(block.alt)}, width: {_width(block)}), "
        f"caption: [{_inline(block.caption)}{see}]) <{block.name}>"
    )


def _width(block: Figure) -> str:
    """The figure's own width where the page has room for it, so that its letters have one size."""
    match = _SVG_WIDTH.search(block.drawing.svg()[:2000])
    return "100%" if match is None or float(match[1]) > _TEXT_WIDTH else f"{float(match[1])}pt"


def _table(table: Table) -> str:
    columns = range(len(table.head))
    wordy = [table.wordy(i) for i in columns]
    widths = ", ".join("1fr" if w else "auto" for w in wordy) + ","
    align = ", ".join("right" if table.numeric(i) else "left" for i in columns) + ","
    size = "8.5pt" if len(table.head) <= _NARROW else "7.2pt"
    head = "table.header(" + ", ".join(f"[{_inline(h)}]" for h in table.head) + ")"
    rows = [
        ", ".join(f"[#strong[{_inline(cell)}]]" if number in table.strong else f"[{_inline(cell)}]" for cell in row)
        for number, row in enumerate(table.rows)
    ]
    body = ",\n  ".join([f"columns: ({widths})", f"align: ({align})", head, *rows])
    note = f"\n#text(size: 9pt, fill: luma(80))[{_inline(table.note)}]" if table.note else ""
    return (
        f"#[#set text(size: {size})\n#set par(leading: 0.5em)\n#figure(kind: table, align(left, table(\n"
        f"  {body},\n)), caption: [{_inline(table.caption)}]) <{table.name}>]{note}"
    )
