"""What published figures imply about each other: bounds that no data and no model can break."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from mien.core.artifacts.study import PublishedCheck
from mien.core.config.earlier import EarlierReport, EarlierScore, EarlierShare
from mien.core.labels import LABELS, MINORITY

ROUNDED = 0.0005  # by which a figure that is printed with three digits may be off
TRUE, FALSE, OPEN = "holds", "cannot be true", "not shown"


def confidence_range(accuracy: float, ece: float, classes: int = len(LABELS)) -> tuple[float, float]:
    """The mean confidences that an accuracy and a binned ECE of the top class allow.

    With over-confidence O and under-confidence U summed over bins, ece = O + U and the mean confidence is accuracy - U
    + O. A bin's confidence is 1 at most, so O <= 1 - accuracy; it is 1/classes at least, and U <= accuracy.
    """
    over = (max(0.0, ece - accuracy), min(ece, 1 - accuracy))
    low, high = (accuracy - ece + 2 * o for o in over)
    return max(low, 1 / classes), min(high, 1.0)


def largest_move(first: float, second: float, classes: int = len(LABELS)) -> float:
    """The most by which a probability can change when the same logits are divided by `second` instead of `first`.

    The extremes have equal logits in all of m rivals and none in the others: p = 1 / (1 + m exp(-d / T)), here over a
    fine grid of d.
    """
    d = np.linspace(-40, 40, 80001)
    scaled, rescaled = d / first, d / second
    return max(
        float(np.abs(1 / (1 + m * np.exp(-scaled)) - 1 / (1 + m * np.exp(-rescaled))).max()) for m in range(1, classes)
    )


def check_published(report: EarlierReport) -> list[PublishedCheck]:
    """All checks of a report's figures against each other."""
    scores = report.scores
    rows = [row for a, b in combinations(scores, 2) if a.model == b.model for row in _two_places(a, b)]
    rows += [row for score in scores for row in (*_means(score), *_edge(score))]
    rows += [_share(share) for share in report.shares]
    return rows + _best_single(report)


def _row(what: str, where: str, stated: float, low: float, high: float, verdict: str, why: str) -> PublishedCheck:
    return {"what": what, "where": where, "stated": stated, "low": low, "high": high, "verdict": verdict, "why": why}


def _two_places(a: EarlierScore, b: EarlierScore) -> list[PublishedCheck]:
    """Two ECEs of one model: at two temperatures they bound each other, at one they are one figure."""
    if a.ece is None or b.ece is None:
        return []
    what, where = f"ECE of {a.model}", f"{a.where}; {b.where}"
    if a.temperature is None or b.temperature is None or a.temperature == b.temperature:
        if a.ece == b.ece:
            return []
        return [
            _row(
                what,
                where,
                a.ece,
                b.ece,
                b.ece,
                FALSE,
                "one model has one ECE under one calibration; the two places give two",
            )
        ]
    accuracy = a.accuracy if a.accuracy is not None else b.accuracy
    if accuracy is None:
        return []
    low, high = confidence_range(accuracy, a.ece)
    move = largest_move(a.temperature, b.temperature)
    other = confidence_range(accuracy, b.ece)
    reach = (low - move, high + move)
    possible = other[0] <= reach[1] + ROUNDED and other[1] >= reach[0] - ROUNDED
    nearest = other[0] if other[0] > reach[1] else other[1]
    why = (
        "both can be had from one set of logits"
        if possible
        else (
            "stated is the mean confidence that the ECE in the second place needs and that is nearest to the range; "
            "the range is what the ECE in the first place allows, widened by the most that the step from one "
            "temperature to the other can move a probability"
        )
    )
    name = f"mean confidence of {a.model}, from its ECE at two temperatures"
    return [_row(name, where, nearest, max(0.0, reach[0]), min(1.0, reach[1]), TRUE if possible else FALSE, why)]


def _means(score: EarlierScore) -> list[PublishedCheck]:
    """Macro-F1 and minority-F1 against the F1 of each class."""
    rows = []
    f1 = score.per_class_f1
    both = ((score.macro_f1, LABELS, "macro-F1"), (score.minority_f1, MINORITY, "minority-F1"))
    for stated, names, words in both:
        if f1 and stated is not None:
            mean = float(np.mean([f1[name] for name in names]))
            verdict = TRUE if abs(mean - stated) <= ROUNDED else FALSE
            rows.append(
                _row(
                    f"{words} of {score.model}",
                    score.where,
                    stated,
                    mean,
                    mean,
                    verdict,
                    "the mean of the F1 of its classes, as the report prints them",
                )
            )
    return rows


def _edge(score: EarlierScore) -> list[PublishedCheck]:
    """A temperature at the end of the range that was searched was not found there."""
    if score.swept is None or score.temperature is None or score.temperature not in score.swept:
        return []
    low, high = score.swept
    return [
        _row(
            f"temperature of {score.model}",
            score.where,
            score.temperature,
            low,
            high,
            OPEN,
            "it lies on the edge of the range that was searched, so that the best one may lie beyond",
        )
    ]


def _share(share: EarlierShare) -> PublishedCheck:
    value = 100 * share.part / share.whole
    holds = abs(value - share.per_cent) <= 0.5 * 10**-share.digits * (1 + 1e-9)
    return _row(
        f"{share.what} (%)",
        "counts",
        share.per_cent,
        value,
        value,
        TRUE if holds else FALSE,
        "the share that its own counts give",
    )


def _best_single(report: EarlierReport) -> list[PublishedCheck]:
    singles = {s.model: s.macro_f1 for s in report.scores if not s.joined and s.macro_f1 is not None}
    rows = []
    for name, where in report.best_single.items():
        if name in singles:
            best = max(singles.values())
            verdict = TRUE if singles[name] == best else FALSE
            rows.append(
                _row(
                    f"{name} as the best single model by macro-F1",
                    where,
                    singles[name],
                    best,
                    best,
                    verdict,
                    "the highest macro-F1 of its single models",
                )
            )
    return rows
