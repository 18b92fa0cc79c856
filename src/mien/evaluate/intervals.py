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


@dataclass(frozen=True)
class Interval:
    """What a face shows from `start` (seconds) to before `end`: a class number."""

    start: float
    end: float
    label: int


class IntervalScores(TypedDict):
    """Labels of marked frames against what was marked; null where there are none."""

    n: int
    accuracy: float | None
    accuracy_answered: float | None
    answered: float | None
    macro_f1: float | None


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
    """Seconds from an interval's start until its label is first said in it; None where it never is."""
    hits = times[(times >= interval.start) & (times < interval.end) & (labels == interval.label)]
    return float(hits[0] - interval.start) if len(hits) else None


def score(marked: Ints, labels: Ints) -> IntervalScores:
    """Accuracy, macro-F1 over the marked classes, and the share that is answered, of frames that are marked."""
    counted = marked >= 0
    true, said = marked[counted], labels[counted]
    n = len(true)
    counts = np.zeros((len(LABELS) + 1, len(LABELS) + 1), np.int64)  # the last column: no label
    np.add.at(counts, (true, np.where(said < 0, len(LABELS), said)), 1)
    present = np.unique(true)
    answered = said >= 0
    return {
        "n": n,
        "accuracy": float((true == said).mean()) if n else None,
        "accuracy_answered": float((true == said)[answered].mean()) if answered.any() else None,
        "answered": float(answered.mean()) if n else None,
        "macro_f1": float(f1_scores(counts)[present].mean()) if n else None,
    }
