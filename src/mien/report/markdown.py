"""A document as Markdown; its figures are SVG files in `figures/` beside it."""

from __future__ import annotations

import re

from mien.report.blocks import Block, Code, Document, Figure, Heading, Items, Number, Span, Spans, Table, marked, spans

FIGURES = "figures"
_SIGNS = re.compile(r"([\\*_\[\]<>#|~$])")


def to_markdown(document: Document) -> str:
    """The whole text; figures are referred to as `figures/NAME.svg`."""
    numbering = document.numbering()
    parts = [f"# {_escape(document.title)}", _inline(document.subtitle), "## Contents"]
    parts.append("\n".join(f"{i}. [{_escape(s.title)}](#{s.name})" for i, s in enumerate(document.sections, 1)))
    for number, section in enumerate(document.sections, 1):
        parts.append(f'<a id="{section.name}"></a>\n\n## {number}. {_escape(section.title)}')
        parts += [_block(block, numbering) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def svg_files(document: Document) -> dict[str, bytes]:
    """The figures by their file names."""
    return {f"{FIGURES}/{figure.name}.svg": figure.drawing.svg() for figure in document.figures()}


def _escape(text: str) -> str:
    return _SIGNS.sub(r"\\\1", text)


def _inline(content: Span | Spans) -> str:
    return "".join(_span(span) for span in spans(content))


def _span(span: Span) -> str:
    text = span if isinstance(span, str) else span.text
    if isinstance(span, Number):
        return text
    return "".join(f"`{p}`".replace("|", "\\|") if code else _escape(p) for p, code in marked(text))


def _block(block: Block, numbering: dict[str, int]) -> str:
    if isinstance(block, Heading):
        return f"### {_escape(block.text)}"
    if isinstance(block, Items):
        return "\n".join(f"* {_inline(item)}" for item in block.items)
    if isinstance(block, Code):
        return f"```sh\n{block.text}\n```"
    if isinstance(block, Table):
        return _table(block, numbering)
    if isinstance(block, Figure):
        return _figure(block, numbering)
    text = _inline(block.content)
    return text if block.kind == "plain" else f"> **{block.kind.capitalize()}.** {text}"


def _figure(block: Figure, numbering: dict[str, int]) -> str:
    figure = (
        f"![{_escape(block.alt)}]({FIGURES}/{block.name}.svg)\n\n"
        f"**Figure {numbering[block.name]}.** {_inline(block.caption)}"
    )
    if block.data is None:
        return figure
    if isinstance(block.data, str):
        return f"{figure.rstrip('.')}. Its numbers: table {numbering[block.data]}."
    return (
        f"{figure}\n\n<details><summary>The numbers of this figure</summary>\n\n"
        f"{_table(block.data, numbering)}\n\n</details>"
    )


def _table(table: Table, numbering: dict[str, int]) -> str:
    lines = [
        _row(table.head),
        "|" + "|".join("---:" if table.numeric(i) else "---" for i in range(len(table.head))) + "|",
    ]
    for number, row in enumerate(table.rows):
        cells = [_inline(cell) for cell in row]
        lines.append("| " + " | ".join(f"**{c}**" if number in table.strong else c for c in cells) + " |")
    note = f"\n\n{_inline(table.note)}" if table.note else ""
    return f"**Table {numbering[table.name]}.** {_inline(table.caption)}\n\n" + "\n".join(lines) + note


def _row(cells: tuple[Span | Spans, ...]) -> str:
    return "| " + " | ".join(_inline(cell) or " " for cell in cells) + " |"
