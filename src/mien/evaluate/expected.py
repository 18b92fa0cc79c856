"""Whether a study's figures lie inside the ranges that its file expects: between seeds and processors they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mien.core.artifacts.metrics import Figure, Metrics
from mien.core.artifacts.study import ExpectedFigure, StudyDocument


def _figures(test: Metrics) -> dict[str, float]:
    names: tuple[Figure, ...] = ("accuracy", "macro_f1", "minority_f1", "ece", "nll")
    return {name: test[name] for name in names}


def compare_expected(document: StudyDocument, expected: Mapping[str, Sequence[float]]) -> list[ExpectedFigure]:
    """One row for each expected figure that `document` (a `study.json`) has: figure, value, low, high, inside."""
    chosen = next(e for e in document["ensembles"] if e["name"] == document["selected"]["name"])
    figures = {"selected": _figures(chosen["test"])}
    if (student := document["student"]) is not None:
        figures["student"] = _figures(student["test"]) | {"retention_macro_f1": student["retention_macro_f1"]}
    rows: list[ExpectedFigure] = []
    for name, (low, high) in expected.items():
        model, figure = name.split(".")
        if model in figures:
            value = figures[model][figure]
            rows.append({"figure": name, "value": value, "low": low, "high": high, "inside": low <= value <= high})
    return rows


def describe_expected(rows: list[ExpectedFigure]) -> list[str]:
    """The rows of `compare_expected` in words."""
    return [
        f"{row['figure']} {row['value']:.3f}: {'inside' if row['inside'] else 'OUTSIDE'} "
        f"the expected {row['low']:.3f} to {row['high']:.3f}"
        for row in rows
    ]
