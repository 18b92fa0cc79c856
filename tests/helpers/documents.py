"""Visible text of reports in each format, and an independent reader of the paths that numbers name."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

FORBIDDEN = re.compile(r"\b(TBD|n/a|nan|none|null|placeholder)\b", re.IGNORECASE)
DECIMAL = re.compile(r"(?<![\w.])[+-]?\d+\.\d+")


class _Visible(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.hidden += tag in ("style", "script", "title")
        if tag in ("td", "th", "p", "li", "h1", "h2", "h3", "caption", "tr", "summary", "figcaption", "pre"):
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("style", "script", "title")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)


def html_text(path: Path) -> str:
    """What a browser shows of a page."""
    parser = _Visible()
    parser.feed(path.read_text(encoding="utf-8"))
    return "".join(parser.parts)


def markdown_text(path: Path) -> str:
    """What a reader sees of Markdown."""
    text = re.sub(r"\]\([^)]*\)|<[^>]+>", "", path.read_text(encoding="utf-8"))
    return re.sub(r"\\(.)", r"\1", text).replace("**", "").replace("`", "")


def docx_text(path: Path) -> str:
    """All paragraphs and cells of a DOCX file, in order."""
    import docx
    from docx.oxml.ns import qn

    body = docx.Document(str(path)).element.body
    texts = ("".join(t.text or "" for t in p.iter(qn("w:t"))) for p in body.iter(qn("w:p")))
    return "\n".join(texts).replace("\u200b", "")  # where a long name may break


def typst_text(source: str) -> str:
    """The strings that a typst source sets as text, in order."""
    found = re.findall(r'#(?:raw\()?("(?:[^"\\]|\\.)*")', source.split('weight: "bold")[#', 1)[1])
    return "\n".join(json.loads(text) for text in found)


def resolve(root: Path, file: str, path: str) -> Any:
    """The value at a JSON path (RFC 9535, only names and indexes) of a file; a `.jsonl` file is a list of its lines."""
    text = (root / file).read_text(encoding="utf-8")
    value = [json.loads(line) for line in text.splitlines()] if file.endswith(".jsonl") else json.loads(text)
    assert path.startswith("$")
    rest = path[1:]
    while rest:
        step = re.match(r"\.(\w+)|\[(\d+)\]|\['((?:[^'\\]|\\.)*)'\]", rest)
        assert step is not None, path
        name, number, quoted = step.groups()
        value = (
            value[int(number)]
            if number is not None
            else value[name if name is not None else re.sub(r"\\(.)", r"\1", quoted)]
        )
        rest = rest[step.end() :]
    return value


def rounded(values: list[float], entry: dict[str, Any]) -> str:
    """The text of a number from the values that it was made of, as its entry says."""
    value = {
        "value": values[0],
        "sum": sum(values),
        "difference": values[0] - values[-1],
        "ratio": values[0] / (values[-1] or 1),
        "share": values[0] / (sum(values) or 1),
        "count": len(values),
    }[entry["operation"]] * entry["scale"]
    kinds = {"fixed": "{:.{d}f}", "signed": "{:+.{d}f}", "count": "{:,.{d}f}", "significant": "{:.{d}g}"}
    return kinds[entry["style"]].format(value, d=entry["digits"])
