"""Whether a study's figures lie inside the ranges that its file expects: between seeds and processors they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mien.core.artifacts.metrics import Figure, Metrics
from mien.core.artifacts.study import ExpectedFigure, StudyDocument

FIGURES: tuple[Figure, ...] = ("accuracy", "macro_f1", "minority_f1", "ece", "nll")


def compare_expected(document: StudyDocument, expected: Mapping[str, Sequence[float]]) -> list[ExpectedFigure]:
    """One row for each expected figure that `document` has."""
    chosen = next(e for e in document["ensembles"] if e["name"] == document["selected"]["name"])
    figures = _figures("selected", chosen["test"])
    if (student := document["student"]) is not None:
        figures |= _figures("student", student["test"])
        figures["student.retention_macro_f1"] = student["retention_macro_f1"]
    return [
        {"figure": name, "value": figures[name], "low": low, "high": high, "inside": low <= figures[name] <= high}
        for name, (low, high) in expected.items()
        if name in figures
    ]


def _figures(model: str, test: Metrics) -> dict[str, float]:
    return {f"{model}.{name}": float(test[name]) for name in FIGURES}


def describe_expected(rows: list[ExpectedFigure]) -> list[str]:
    """The rows of `compare_expected` in words."""
    return [
        f"{row['figure']} {row['value']:.3f}: {'inside' if row['inside'] else 'OUTSIDE'} "
        f"the expected {row['low']:.3f} to {row['high']:.3f}"
        for row in rows
    ]
