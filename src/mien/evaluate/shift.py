"""How figures hold elsewhere: under corruptions, and in each group of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.metrics import AttributeScores, Change, CorruptionScores, GroupScores
from mien.core.labels import LABELS
from mien.evaluate.bootstrap import group_numbers, intervals, resampled
from mien.evaluate.calibration_error import Floats, Ints
from mien.evaluate.metrics import metrics

COMPARED: tuple[Literal["accuracy", "macro_f1"], ...] = ("accuracy", "macro_f1")
FEWEST = 30  # images that a group needs for figures of its own
MOST_GROUPS = 24  # an attribute with more values names images rather than groups


def degradation(
    clean: Floats,
    corrupted: Sequence[Floats],
    labels: Ints,
    *,
    resamples: int = 200,
    seed: int = 0,
    groups: NDArray[np.str_] | None = None,
) -> list[CorruptionScores]:
    """Figures of a model on ever stronger corruptions of the same images, with the paired fall from the clean ones."""
    base = resampled(clean, labels, resamples=resamples, seed=seed, groups=groups)
    point = metrics(clean, labels)
    rows: list[CorruptionScores] = []
    for strength, p in enumerate(corrupted, 1):
        scores, drawn = metrics(p, labels), resampled(p, labels, resamples=resamples, seed=seed, groups=groups)
        fall: dict[str, Change] = {
            key: {
                "value": scores[key] - point[key],
                "ci95": np.quantile(drawn[key] - base[key], [0.025, 0.975]).tolist(),
            }
            for key in COMPARED
        }
        rows.append(
            {
                "strength": strength,
                "accuracy": scores["accuracy"],
                "macro_f1": scores["macro_f1"],
                "ece": scores["ece"],
                "nll": scores["nll"],
                "mean_confidence": scores["mean_confidence"],
                "change": fall,
            }
        )
    return rows


def by_group(
    probabilities: Floats,
    labels: Ints,
    attributes: Sequence[dict[str, str]],
    *,
    resamples: int = 500,
    seed: int = 0,
    groups: NDArray[np.str_] | None = None,
) -> dict[str, AttributeScores]:
    """Figures of each value of each attribute with at least `FEWEST` images, with intervals; others are counted.

    `attributes` has a row's {attribute: value}. Attributes with more than `MOST_GROUPS` values are left out.
    `macro_f1_present` is the mean F1 of those classes that the value's images (or a resample of them) show, named in
    `classes`: a class that is absent there costs nothing. `groups` (n,) are near-duplicates, resampled in whole.
    """
    names = sorted({name for row in attributes for name in row})
    out: dict[str, AttributeScores] = {}
    duplicates = group_numbers(groups, len(labels)).astype(str)
    for name in names:
        values = np.array([row.get(name, "") for row in attributes])
        levels = sorted(set(values.tolist()) - {""})
        if not 2 <= len(levels) <= MOST_GROUPS:
            continue
        scores = {v: _group(probabilities, labels, duplicates, values == v, resamples, seed) for v in levels}
        accuracies = [g["accuracy"] for g in scores.values() if "accuracy" in g]
        out[name] = {
            "groups": scores,
            "accuracy_gap": max(accuracies) - min(accuracies) if len(accuracies) > 1 else None,
        }
    return out


def _group(
    probabilities: Floats,
    labels: Ints,
    duplicates: NDArray[np.str_],
    inside: NDArray[np.bool_],
    resamples: int,
    seed: int,
) -> GroupScores:
    n = int(inside.sum())
    if n < FEWEST:
        return {"n": n}
    p, y = probabilities[inside], labels[inside]
    scores = metrics(p, y)
    ends = intervals(p, y, resamples=resamples, seed=seed, smooth=0, groups=duplicates[inside])
    present = [name for c, name in enumerate(LABELS) if (y == c).any()]
    ci95 = {key: ends[key] for key in ("accuracy", "macro_f1_present", "ece")}
    return {
        "n": n,
        "classes": present,
        "accuracy": scores["accuracy"],
        "macro_f1_present": scores["macro_f1_present"],
        "ece": scores["ece"],
        "nll": scores["nll"],
        "mean_confidence": scores["mean_confidence"],
        "ci95": ci95,
    }
