"""A document as one HTML file that asks for nothing beside it."""

from __future__ import annotations

import base64

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

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark"><title>{{ doc.title }}</title>
<style>
:root{color-scheme:light dark;--ink:#1c1e21;--soft:#4f5862;--line:#d5dbe1;--back:#fff;--mark:#e8f1fb;--note:#fff6e0;--edge:#a87900;--bad:#fdebea;--link:#0b57a4}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ea;--soft:#aeb7c0;--line:#3a4149;--back:#16191c;--mark:#1f2f42;--note:#3a3115;--edge:#d9a400;--bad:#42211f;--link:#8ab8ea}}
html{scroll-behavior:smooth}body{font:16px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:70rem;margin:0 auto;padding:1.5rem 1rem 4rem}
@media(min-width:92rem){body{padding-left:19rem;max-width:88rem}nav{position:fixed;top:0;left:0;bottom:0;width:16rem;overflow-y:auto;padding:1.5rem 1rem;border-right:1px solid var(--line);box-sizing:border-box}}
a{color:var(--link)}.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:1rem;background:var(--back);padding:.5rem}
h1{margin:0;font-size:1.8rem;line-height:1.25}h2{margin:3rem 0 1rem;border-bottom:1px solid var(--line);padding-bottom:.25rem;font-size:1.35rem}h3{margin:2rem 0 .5rem;font-size:1.08rem}
p,ul{max-width:46rem}.sub,figcaption,.under{color:var(--soft);font-size:.92rem}nav h2{font-size:1rem;margin:1rem 0 .3rem;border:0}nav ol{padding-left:1.6rem;margin:0;font-size:.94rem}nav li{padding:.12rem 0}
.wide{overflow-x:auto;margin:1.3rem 0}table{border-collapse:collapse;font-size:.88rem;line-height:1.4;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:.3rem 0 .4rem}caption>span{display:inline-block;position:sticky;left:0;max-width:min(46rem,calc(100vw - 2rem))}th,td{padding:.32rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
thead th{border-bottom:2px solid var(--soft);vertical-align:bottom}tbody th{font-weight:400}.n{text-align:right}td.n{white-space:nowrap}td{min-width:2.5rem}td.w{min-width:14rem}tr.strong{background:var(--mark)}tr.strong>*{font-weight:600}
.note,.warning{background:var(--note);padding:.6rem .9rem;border-left:4px solid var(--edge)}.warning{background:var(--bad)}
figure{margin:1.6rem 0}figure>img{max-width:100%;height:auto;background:#fff;border-radius:4px;padding:6px;box-sizing:border-box}summary{cursor:pointer;color:var(--link);font-size:.92rem}
code{font-size:.88em;overflow-wrap:anywhere}pre{background:var(--mark);padding:.8rem 1rem;overflow-x:auto;font-size:.9rem;line-height:1.5}
@media print{nav,.skip{display:none}body{max-width:none;padding:0}.wide{overflow:visible}h2,h3{break-after:avoid}tr,figure{break-inside:avoid}}
</style></head><body>
<a class="skip" href="#main">To the report</a>
<header><h1>{{ doc.title }}</h1><p class="sub">{{ inline(doc.subtitle) }}</p></header>
<nav aria-label="Contents"><h2>Contents</h2><ol>{% for s in doc.sections %}<li><a href="#{{ s.name }}">{{ s.title }}</a></li>{% endfor %}</ol></nav>
<main id="main">{% for s in doc.sections %}<section aria-labelledby="{{ s.name }}"><h2 id="{{ s.name }}">{{ loop.index }}. {{ s.title }}</h2>
{% for b in s.blocks %}{{ render(b) }}
{% endfor %}</section>
{% endfor %}</main></body></html>
"""


def to_html(document: Document) -> str:
    """The whole page as text."""
    writer = _Writer(document.numbering())
    template = Environment(autoescape=True).from_string(_TEMPLATE)
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
            '<figure id="{}"><img alt="{}" src="data:image/svg+xml;base64,{}"><figcaption>Figure {}. {}</figcaption>{}</figure>'
        ).format(block.name, block.alt, data, self.numbering[block.name], _inline(block.caption), behind)

    def _table(self, table: Table) -> Markup:
        classes = [_class(table, column) for column in range(len(table.head))]
        head = Markup("").join(
            Markup('<th scope="col"{}>{}</th>').format(c, _inline(h)) for c, h in zip(classes, table.head, strict=True)
        )
        body = Markup("").join(_row(row, classes, number in table.strong) for number, row in enumerate(table.rows))
        note = Markup('<p class="under">{}</p>').format(_inline(table.note)) if table.note else ""
        return Markup(
            '<div class="wide" tabindex="0" role="region" aria-labelledby="{0}"><table><caption id="{0}"><span>Table {1}. {2}</span></caption><thead><tr>{3}</tr></thead><tbody>\n{4}</tbody></table></div>{5}'
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
