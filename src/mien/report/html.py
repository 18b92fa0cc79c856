"""A document as one self-contained HTML file."""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup, escape

from mien.report.blocks import (
    Block,
    Code,
    Document,
    Estimate,
    Figure,
    Heading,
    Items,
    Number,
    Span,
    Spans,
    Table,
    Text,
    marked,
    spans,
)

_TEMPLATE = Path(__file__).with_name("page.html")


def to_html(document: Document) -> str:
    """The whole page as text."""
    writer = _Writer(document.numbering())
    template = Environment(autoescape=True).from_string(_TEMPLATE.read_text("utf-8"))
    return template.render(doc=document, render=writer.block, inline=_inline)


def _inline(content: Span | Spans) -> Markup:
    return Markup("").join(_span(span) for span in spans(content))


def _span(span: Span) -> Markup:
    if isinstance(span, Number):
        where = "; ".join(f"{s.file} {s.path}" for s in span.sources[:3])
        return Markup('<data value="{}" title="{}">{}</data>').format(f"{span.value:.9g}", where, span.text)
    if isinstance(span, Estimate):
        return Markup("{} [{}, {}]").format(_span(span.value), _span(span.low), _span(span.high))
    text = span if isinstance(span, str) else span.text
    return Markup("").join(Markup("<code>{}</code>").format(p) if code else escape(p) for p, code in marked(text))


class _Writer:
    """Blocks as markup; tables and figures have their numbers."""

    def __init__(self, numbering: dict[str, int]) -> None:
        self.numbering = numbering

    def block(self, block: Block) -> Markup:
        """One block of a section."""
        if isinstance(block, Heading):
            return Markup("<h3>{}</h3>").format(block.text)
        if isinstance(block, Items):
            return Markup("<ul>{}</ul>").format(
                Markup("").join(Markup("<li>{}</li>").format(_inline(i)) for i in block.items)
            )
        if isinstance(block, Code):
            return Markup('<pre tabindex="0"><code>{}</code></pre>').format(block.text)
        if isinstance(block, Figure):
            return self._figure(block)
        if isinstance(block, Table):
            return self._table(block)
        return self._text(block)

    @staticmethod
    def _text(block: Text) -> Markup:
        if block.kind == "plain":
            return Markup("<p>{}</p>").format(_inline(block.content))
        return Markup('<p class="{}" role="note">{}</p>').format(block.kind, _inline(block.content))

    def _figure(self, block: Figure) -> Markup:
        data = base64.b64encode(block.drawing.svg()).decode()
        behind = Markup("")
        if isinstance(block.data, Table):
            behind = Markup("<details><summary>The numbers of this figure</summary>{}</details>").format(
                self._table(block.data)
            )
        elif block.data is not None:
            behind = Markup('<p class="under">Its numbers: <a href="#{}">table {}</a>.</p>').format(
                block.data, self.numbering[block.data]
            )
        return Markup(
            '<figure id="{}"><img alt="{}" src="data:image/svg+xml;base64,{}"><figcaption>Figure {}. '
            "{}</figcaption>{}</figure>"
        ).format(block.name, block.alt, data, self.numbering[block.name], _inline(block.caption), behind)

    def _table(self, table: Table) -> Markup:
        classes = [_class(table, column) for column in range(len(table.head))]
        head = Markup("").join(
            Markup('<th scope="col"{}>{}</th>').format(c, _inline(h)) for c, h in zip(classes, table.head, strict=True)
        )
        body = Markup("").join(_row(row, classes, number in table.strong) for number, row in enumerate(table.rows))
        note = Markup('<p class="under">{}</p>').format(_inline(table.note)) if table.note else ""
        return Markup(
            '<div class="wide" tabindex="0" role="region" aria-labelledby="{0}"><table><caption id="{0}"><span>Table '
            "{1}. {2}</span></caption><thead><tr>{3}</tr></thead><tbody>\n{4}</tbody></table></div>{5}"
        ).format(table.name, self.numbering[table.name], _inline(table.caption), head, body, note)


def _row(row: tuple[Span | Spans, ...], classes: list[Markup], strong: bool) -> Markup:
    cells = Markup("").join(
        Markup("<td{}>{}</td>").format(c, _inline(cell)) for c, cell in zip(classes[1:], row[1:], strict=True)
    )
    start = Markup('<tr class="strong">') if strong else Markup("<tr>")
    return start + Markup('<th scope="row">{}</th>{}</tr>\n').format(_inline(row[0]), cells)


def _class(table: Table, column: int) -> Markup:
    if table.numeric(column):
        return Markup(' class="n"')
    return Markup(' class="w"') if table.wordy(column) else Markup("")
