"""The section on an earlier report: which of its own figures cannot be true, and why."""

from __future__ import annotations

from mien.evaluate.published import FALSE
from mien.report.blocks import Section, Span, Spans, Table, Text, row
from mien.report.material import Material
from mien.report.node import Node, counted


def section(material: Material) -> Section:
    """Checks of an earlier report's figures against each other; empty where the study names none."""
    part, earlier = Section("earlier", "Figures of the earlier report"), material.study.get("earlier")
    if earlier is None:
        return part
    checks = sorted(earlier["checks"], key=lambda c: bool(c.value["verdict"] != FALSE))
    false = [c for c in checks if c.value["verdict"] == FALSE]
    if not false:
        words: Spans = ("No figure of ", earlier["title"].quote(), " contradicts another of its figures.")
    else:
        words = (counted(false), " figures of ", earlier["title"].quote(), " cannot be true beside its others.")
    part.blocks += [
        Text((*words, " Nothing of this study enters here: the report is measured against itself.")),
        Table(
            "earlier-figures",
            "Figures of the earlier report, and what its other figures allow",
            ("figure", "where", "stated", "allowed", "verdict", "why"),
            tuple(_check(c) for c in checks),
            frozenset(range(len(false))),
        ),
    ]
    return part


def _check(check: Node) -> tuple[Span | Spans, ...]:
    low, high = check["low"], check["high"]
    digits = 2 if abs(high.value) > 1 else 4
    allowed: Spans = (low.number(digits),)
    if low.value != high.value:
        allowed = (*allowed, " to ", high.number(digits))
    words = (check[key].quote() for key in ("verdict", "why"))
    return row(check["what"].quote(), check["where"].quote(), check["stated"].number(digits), allowed, *words)
