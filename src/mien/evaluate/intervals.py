"""Labels over time against intervals that a person marked. Pure functions on arrays.

A frame at time t counts for the interval [start, end) that holds t; frames outside all intervals do not count.
A frame without a label (-1) is wrong for accuracy, and a missed one for F1; `answered` says how many have one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from mien.core.labels import LABELS
from mien.evaluate.metrics import f1_scores

Ints = NDArray[np.int64]
Times = NDArray[np.float64]


class LabelScores(TypedDict):
    """Figures of `n` marked frames: the macro-F1 is that of the marked classes, `answered` the share with a label."""

    n: int
    accuracy: float | None
    accuracy_answered: float | None
    answered: float | None
    macro_f1: float | None


@dataclass(frozen=True)
class Interval:
    """What a face shows from `start` (seconds) to before `end`: a class number."""

    start: float
    end: float
    label: int


def truth(times: Times, intervals: list[Interval]) -> Ints:
    """The marked class of each time (n,), -1 outside all intervals; the last of several that overlap."""
    marked = np.full(len(times), -1, np.int64)
    for interval in intervals:
        marked[(times >= interval.start) & (times < interval.end)] = interval.label
    return marked


def changes(labels: Ints) -> int:
    """How often a label differs from the one before."""
    return int((labels[1:] != labels[:-1]).sum())


def switch_seconds(times: Times, labels: Ints, interval: Interval) -> float | None:
    """Seconds from an interval's start until its label first appears in it; None where it never does."""
    hits = times[(times >= interval.start) & (times < interval.end) & (labels == interval.label)]
    return float(hits[0] - interval.start) if len(hits) else None


def score(marked: Ints, labels: Ints) -> LabelScores:
    """Scores of labels on the frames that are marked."""
    counted = marked >= 0
    true, predicted = marked[counted], labels[counted]
    n = len(true)
    counts = np.zeros((len(LABELS) + 1, len(LABELS) + 1), np.int64)  # the last column: no label
    np.add.at(counts, (true, np.where(predicted < 0, len(LABELS), predicted)), 1)
    present = np.unique(true)
    answered = predicted >= 0
    return {
        "n": n,
        "accuracy": float((true == predicted).mean()) if n else None,
        "accuracy_answered": float((true == predicted)[answered].mean()) if answered.any() else None,
        "answered": float(answered.mean()) if n else None,
        "macro_f1": float(f1_scores(counts)[present].mean()) if n else None,
    }
