"""How figures hold elsewhere: under corruptions, and in each group of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.evaluate.bootstrap import intervals, resampled
from mien.evaluate.calibration_error import Floats, Ints
from mien.evaluate.metrics import metrics

SHOWN = ("accuracy", "macro_f1", "ece", "nll", "mean_confidence")
FEWEST = 30  # pictures that a group needs for figures of its own
MOST_GROUPS = 24  # an attribute with more values names pictures rather than groups


def degradation(
    clean: Floats, corrupted: Sequence[Floats], labels: Ints, *, resamples: int = 200, seed: int = 0
) -> list[dict[str, Any]]:
    """Figures of a model on ever stronger corruptions of the same pictures, with the paired fall from the clean ones."""
    base = resampled(clean, labels, resamples=resamples, seed=seed)
    point = metrics(clean, labels)
    rows = []
    for strength, p in enumerate(corrupted, 1):
        found, drawn = metrics(p, labels), resampled(p, labels, resamples=resamples, seed=seed)
        fall = {
            key: {"value": found[key] - point[key], "ci95": np.quantile(drawn[key] - base[key], [0.025, 0.975]).tolist()}
            for key in ("accuracy", "macro_f1")
        }  # fmt: skip
        rows.append({"strength": strength, **{key: found[key] for key in SHOWN}, "change": fall})
    return rows


def by_group(
    probabilities: Floats, labels: Ints, attributes: Sequence[dict[str, str]], *, resamples: int = 500, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Figures of each value of each attribute with at least `FEWEST` pictures, with intervals; others are counted.

    `attributes` has a row's {attribute: value}. Attributes with more than `MOST_GROUPS` values are left out.
    """
    names = sorted({name for row in attributes for name in row})
    out: dict[str, dict[str, Any]] = {}
    for name in names:
        values = np.array([row.get(name, "") for row in attributes])
        known = sorted(set(values.tolist()) - {""})
        if not 2 <= len(known) <= MOST_GROUPS:
            continue
        groups = {value: _group(probabilities, labels, values == value, resamples, seed) for value in known}
        accuracies = [g["accuracy"] for g in groups.values() if "accuracy" in g]
        out[name] = {"groups": groups, "accuracy_gap": max(accuracies) - min(accuracies) if len(accuracies) > 1 else None}  # fmt: skip
    return out


def _group(probabilities: Floats, labels: Ints, inside: NDArray[np.bool_], resamples: int, seed: int) -> dict[str, Any]:
    n = int(inside.sum())
    if n < FEWEST:
        return {"n": n}
    p, y = probabilities[inside], labels[inside]
    found, ends = metrics(p, y), intervals(p, y, resamples=resamples, seed=seed, smooth=0)
    return {"n": n, **{key: found[key] for key in SHOWN}, "ci95": {key: ends[key] for key in ("accuracy", "macro_f1", "ece")}}  # fmt: skip
