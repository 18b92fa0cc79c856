"""Published figures against the JSON files that they come from. `python tests/helpers/figures.py --write` renews them.

A comment above a table or a paragraph of Markdown names the file and, for every number, where it stands in it;
CONTRIBUTING.md tells how to write one. Numbers are compared as they are rounded in the text.
"""

from __future__ import annotations

import fnmatch
import json
import operator
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
STAGES = {path.stem for path in RESULTS.glob("*.json")}  # NAME.md beside NAME.json is a table that a stage wrote
DOCUMENTS = (ROOT / "README.md", *sorted(path for path in RESULTS.glob("*.md") if path.stem not in STAGES))
MARKER = re.compile(r"<!-- figures: (\S+)\n(.*?)-->\n", re.DOTALL)
NUMBER = r"(?:< )?(?<![A-Za-z\d.])[+-]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?"
TABLE = re.compile(r"^[ ]*\|.*\n[ ]*\|[-| :]+\|\n(?:[ ]*\|.*(?:\n|$))+", re.MULTILINE)
ACTS = {" - ": operator.sub, " + ": operator.add, " * ": operator.mul, " / ": operator.truediv}
OVER = {"min": min, "max": max, "sum": sum, "len": len}


@dataclass(frozen=True)
class Figure:
    """A number in a text: its place, as it is written, the path that was named and the value found there."""

    start: int
    written: str
    path: str
    value: float

    @property
    def holds(self) -> bool:
        """Whether the value, rounded as the text rounds, is what is written."""
        if self.written.startswith("< "):
            return self.value < plain(self.written[2:])
        unit = 10.0 ** -decimals(self.written)
        return abs(plain(self.written) - self.value) <= unit * 0.500001

    @property
    def rounded(self) -> str:
        """The value in the style of what is written: decimals, sign, no leading zero, thousands."""
        if self.holds or self.written.startswith("< "):
            return self.written
        if "e" in self.written:
            return re.sub(r"e([+-])0*", r"e\1", f"{self.value:.{decimals(self.written.split('e')[0])}e}")
        sign = "+" if self.written[0] in "+-" else ""
        text = f"{self.value:{sign},.{decimals(self.written)}f}"
        return text if re.search(r"\d\.", self.written) or "." not in text else re.sub(r"^([+-]?)0\.", r"\1.", text)


def plain(text: str) -> float:
    """A number as the texts write it: `.459`, `1,260`, `+0.4`."""
    return float(text.replace(",", ""))


def decimals(text: str) -> int:
    """Digits after the point, of `1.3e-7` 8."""
    mantissa, _, power = text.partition("e")
    return len(mantissa.partition(".")[2]) - int(power or 0)


@cache
def loaded(name: str) -> Any:
    """A JSON file of docs/results."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def step(values: list[Any], key: str) -> list[Any]:
    """What lies under a key, an index, `name=value` or a pattern in each value."""
    out = []
    for value in values:
        if isinstance(value, list):
            if "=" in key:
                wanted = dict(pair.split("=", 1) for pair in key.split(";"))
                out += [v for v in value if all(str(v.get(k)) == w for k, w in wanted.items())][:1]
            else:
                out += value if key == "*" else [value[int(key)]]
        elif "*" in key:
            out += [v for k, v in value.items() if fnmatch.fnmatchcase(k, key)]
        else:
            out.append(value[key])
    return out


def under(value: Any, path: str) -> list[Any]:
    """The values at `a.b[name=x].c[0]` under a value; lists at its end are opened."""
    values = [value]
    for plain_key, bracket in re.findall(r"([^.\[\]]+)|\[([^\]]*)\]", path):
        try:
            values = step(values, plain_key or bracket)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise AssertionError(f"nothing at {path}: no {error}") from None
    assert values, f"nothing at {path}"
    return [leaf for v in values for leaf in (v if isinstance(v, list) else [v])]


class Marker:
    """What one comment says: names for paths, the rows and columns of a table, and pieces of text."""

    def __init__(self, file: str, body: str) -> None:
        self.names: dict[str, str] = {}
        self.file, self.rows, self.columns, self.texts = file, [], [], []
        for line in filter(None, map(str.strip, body.splitlines())):
            kind, _, rest = line.partition(":")
            if kind in ("rows", "columns"):
                setattr(self, kind, [cell.strip() for cell in rest.split("|")])
            elif kind == "text":
                self.texts.append(rest.strip())
            else:
                name, _, path = line.partition(" = ")
                assert path, f"a line of a marker is `name = path`, `rows:`, `columns:` or `text:`, not {line!r}"
                self.names[name] = path

    def find(self, path: str) -> list[Any]:
        """Values at a path, which may begin with a name of this marker or be that of a file."""
        first = re.match(r"[^.\[]+", path)
        assert first, path
        name = self.names.get(first[0])
        if name is None:
            return under(loaded(self.file), path)
        rest = path[first.end() :]
        return under(loaded(name), rest) if name.endswith(".json") else self.find(name + rest)

    def values(self, expression: str) -> list[float]:
        """Numbers of an expression of paths, computed from left to right."""
        head, *rest = re.split(r"( [-+*/] )", expression)
        found = self._term(head)
        for act, term in zip(rest[::2], rest[1::2], strict=True):
            right = self._term(term)
            found = [ACTS[act](v, right[i % len(right)]) for i, v in enumerate(found)]
        return found

    def _term(self, term: str) -> list[float]:
        if re.fullmatch(r"[\d.e+-]+", term):
            return [float(term)]
        over, _, path = term.partition(" ")
        if over in OVER:
            found = self.find(path)
            return [float(OVER[over]([x for v in found for x in (v.values() if isinstance(v, dict) else [v])]))]
        return [float(v) for v in self.find(term)]

    def of_cell(self, row: str, column: str) -> list[tuple[str, float]]:
        """(path, value) of each number that a cell should hold."""
        out = []
        for part in column.split(", "):
            terms = re.split(r"( [-+*/] )", part)
            full = "".join(t if i % 2 or re.fullmatch(r"[\d.e+-]+", t) else placed(t, row) for i, t in enumerate(terms))
            out += [(full, value) for value in self.values(full)]
        return out


def placed(path: str, row: str) -> str:
    """A column's path below its row's, or with it where `{row}` stands; `min PATH` and its like keep their word."""
    if "{row}" in path:
        return path.replace("{row}", row)
    over, _, rest = path.partition(" ")
    return f"{over} {row}.{rest}" if over in OVER else f"{row}.{path}"


def figures(text: str) -> list[Figure]:
    """Every number that a marker of this document vouches for. Raises AssertionError for a marker that does not fit."""
    out = []
    for found in MARKER.finditer(text):
        marker = Marker(found[1], found[2])
        borders = [0, *(m.start() for m in re.finditer(r"^## ", text, re.MULTILINE)), len(text)]
        section = max(b for b in borders if b <= found.start()), min(b for b in borders if b >= found.end())
        if marker.rows:
            table = TABLE.match(text, found.end())
            assert table, f"no table right under the marker {found[0]}"
            out += in_table(marker, table)
        for piece in marker.texts:
            out += in_text(marker, piece, text, *section)
    return out


def in_table(marker: Marker, table: re.Match[str]) -> list[Figure]:
    """The figures of a table, cell by cell; a cell may hold the first of its column's values only."""
    lines = list(re.finditer(r"^[ ]*\|.*$", table[0], re.MULTILINE))[2:]
    assert len(lines) == len(marker.rows), f"{len(lines)} rows, {len(marker.rows)} in the marker: {lines[0][0]}"
    out = []
    for line, row in zip(lines, marker.rows, strict=True):
        cells = list(re.finditer(r"(?<=\|)[^|]*(?=\|)", line[0]))[1:]
        assert len(cells) == len(marker.columns), (
            f"{len(cells)} columns, {len(marker.columns)} in the marker: {line[0]}"
        )
        for cell, column in zip(cells, marker.columns, strict=True):
            numbers = list(re.finditer(NUMBER, cell[0]))
            if row == "-" or column == "-" or not numbers:
                continue
            values = marker.of_cell(row, column)
            assert len(numbers) <= len(values), (
                f"{cell[0]!r} holds {len(numbers)} numbers, {row} | {column} {len(values)}"
            )
            at = table.start() + line.start() + cell.start()
            out += [Figure(at + n.start(), n[0], path, v) for n, (path, v) in zip(numbers, values, strict=False)]
    return out


def in_text(marker: Marker, piece: str, text: str, start: int, end: int) -> list[Figure]:
    """The figures of a piece of text, in which `{path}` stands for each number."""
    values, pattern = [], ""
    for words, path in re.findall(r"([^{}]*)(?:\{([^}]*)\})?", piece):
        pattern += re.sub(r"(?:\\ )+", r"\\s+", re.escape(words))
        if path:
            found = marker.values(path)
            values += [(path, v) for v in found]
            pattern += r",\s+".join([f"({NUMBER})"] * len(found))
    matches = list(re.finditer(pattern, text[start:end]))
    assert len(matches) == 1, f"{len(matches)} times in the section of its marker: {piece}"
    return [Figure(start + matches[0].start(i), matches[0][i], *value) for i, value in enumerate(values, 1)]


def unmarked_tables(text: str) -> list[str]:
    """First lines of tables that hold numbers and have neither a marker nor a `<!-- no figures: why -->` above them."""
    out = []
    for table in TABLE.finditer(text):
        above = text[: table.start()].rstrip("\n")
        cells = [cell for line in table[0].strip().splitlines()[2:] for cell in line.split("|")[2:-1]]
        if not above.endswith("-->") and any(re.search(NUMBER, cell) for cell in cells):
            out.append(table[0].splitlines()[0])
    return out


def renewed(text: str) -> str:
    """The document with every figure as its JSON has it, rounded as it was."""
    for figure in sorted(figures(text), key=lambda f: -f.start):
        text = text[: figure.start] + figure.rounded + text[figure.start + len(figure.written) :]
    return text


if __name__ == "__main__":
    for document in DOCUMENTS:
        before = document.read_text(encoding="utf-8")
        for figure in figures(before):
            if not figure.holds:
                print(f"{document.relative_to(ROOT)}: {figure.written} -> {figure.rounded} ({figure.path})")
        if "--write" in sys.argv:
            document.write_text(renewed(before), encoding="utf-8")
