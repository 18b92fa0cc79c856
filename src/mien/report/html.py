"""A document as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import re

from jinja2 import Environment
from markupsafe import Markup, escape

from mien.report.blocks import Document, Figure, Table, Text

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{{ doc.title }}</title>
<style>
:root{--ink:#1c1e21;--soft:#5c6570;--line:#d9dee4;--back:#fff;--mark:#eef4fb;--note:#fff6e0}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ea;--soft:#a3acb5;--line:#3a4149;--back:#16191c;--mark:#1f2b38;--note:#3a3115}img{background:#fff;border-radius:4px}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:80rem;margin:2rem auto;padding:0 1rem}
h1{margin:0;font-size:1.7rem}h2{margin-top:2.4rem;border-bottom:1px solid var(--line);padding-bottom:.2rem;font-size:1.25rem}
.sub,figcaption,.under{color:var(--soft);font-size:.9rem}nav{columns:2;font-size:.95rem;margin:1rem 0}nav a{color:inherit}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.84rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:.6rem 0 .3rem}th,td{padding:.25rem .5rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}td.words,th.words{text-align:left;white-space:normal}tr.strong{background:var(--mark);font-weight:600}
.note{background:var(--note);padding:.6rem .9rem;border-left:4px solid #d9a400}figure{margin:1rem 0}img{max-width:100%;height:auto}
code{font-size:.9em}
</style></head><body>
<h1>{{ doc.title }}</h1><p class="sub">{{ doc.subtitle }}</p>
<nav>{% for s in doc.sections %}<div><a href="#s{{ loop.index }}">{{ loop.index }}. {{ s.title }}</a></div>{% endfor %}</nav>
{% for s in doc.sections %}<section><h2 id="s{{ loop.index }}">{{ loop.index }}. {{ s.title }}</h2>
{% for b in s.blocks %}{{ render(b) }}
{% endfor %}</section>
{% endfor %}</body></html>
"""
_CODE = re.compile(r"`([^`]+)`")


def to_html(document: Document) -> str:
    """The whole page as text."""
    template = Environment(autoescape=True).from_string(_TEMPLATE)
    return template.render(doc=document, render=_block)


def _inline(text: str) -> Markup:
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _block(block: Text | Table | Figure) -> Markup:
    if isinstance(block, Text):
        return Markup('<p class="{}">{}</p>').format("note" if block.kind == "note" else "", _inline(block.text))
    if isinstance(block, Figure):
        data = base64.b64encode(block.png).decode()
        return Markup(
            '<figure><img alt="{}" src="data:image/png;base64,{}"><figcaption>{}</figcaption></figure>'
        ).format(block.alt, data, _inline(block.caption))
    words = [
        column for column in range(len(block.head)) if column and any(_is_words(row[column]) for row in block.rows)
    ]
    head = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(_class(i, words), h) for i, h in enumerate(block.head)
    )
    body = Markup("").join(
        Markup("<tr{}>{}</tr>\n").format(
            Markup(' class="strong"') if number in block.strong else "",
            Markup("").join(
                Markup("<td{}>{}</td>").format(_class(i, words), _inline(cell)) for i, cell in enumerate(row)
            ),
        )
        for number, row in enumerate(block.rows)
    )
    note = Markup('<p class="under">{}</p>').format(_inline(block.note)) if block.note else ""
    return Markup(
        '<div class="wide"><table><caption>{}</caption><thead><tr>{}</tr></thead><tbody>\n{}</tbody></table>{}</div>'
    ).format(_inline(block.caption), head, body, note)


def _class(column: int, words: list[int]) -> Markup:
    return Markup(' class="words"') if column in words else Markup("")


def _is_words(text: str) -> bool:
    """Longer than a figure and mostly letters: set left and wrapped."""
    return len(text) > 24 and sum(c.isalpha() for c in text) > len(text) / 2
