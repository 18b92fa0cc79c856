"""Knowing when not to answer: risk and coverage, and thresholds with guarantees.

Thresholds take `CalibrationRows` whose logits are calibrated already. Their bounds are Clopper-Pearson's (1934), at the
confidence 95 %, and hold for rows that are drawn like those they were fitted on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.calibration_rows import FEWEST, CalibrationRows, require
from mien.core.errors import InputError
from mien.core.labels import INDEX
from mien.evaluate.calibration_error import Floats, Ints, top
from mien.evaluate.metrics import softmax

CONFIDENCE = 0.95
STEPS = 40  # coverages at which a wanted precision is tested


def risk_coverage(probabilities: Floats, labels: Ints) -> dict[str, Floats]:
    """Coverage (n,) and risk (n,): the error rate when only the surest rows are answered.

    El-Yaniv and Wiener 2010, JMLR 11; rows of equal confidence share their mean error, so that order is no matter.
    """
    confidence, hit = top(probabilities, labels)
    order = np.argsort(-confidence, kind="stable")
    _, group = np.unique(-confidence[order], return_inverse=True)
    wrong = 1.0 - hit[order]
    shared = (np.bincount(group, weights=wrong) / np.bincount(group))[group]
    count = np.arange(1, len(hit) + 1)
    return {"coverage": count / len(hit), "risk": np.cumsum(shared) / count}


def aurc(probabilities: Floats, labels: Ints) -> float:
    """Area under the risk-coverage curve: the mean risk over all coverages (Geifman et al. 2019, arXiv 1805.08206)."""
    return float(risk_coverage(probabilities, labels)["risk"].mean())


def accuracy_at(probabilities: Floats, labels: Ints, coverage: float) -> float:
    """Accuracy of the surest `coverage` of the rows, at least one."""
    risk = risk_coverage(probabilities, labels)["risk"]
    return float(1 - risk[max(1, round(coverage * len(risk))) - 1])


def threshold_for_coverage(rows: CalibrationRows, coverage: float) -> float:
    """The confidence below which nothing is answered, so that `coverage` of the rows are."""
    require(rows, "threshold_for_coverage")
    if coverage >= 1:
        return 0.0
    return float(np.quantile(softmax(rows.logits).max(1), 1 - coverage))


def lower_bound(hits: int, n: int, confidence: float = CONFIDENCE) -> float:
    """Clopper-Pearson's one-sided lower bound of a rate."""
    from scipy.stats import beta  # noqa: PLC0415  (a second to import)

    return 0.0 if hits == 0 else float(beta.ppf(1 - confidence, hits, n - hits + 1))


def upper_bound(hits: int, n: int, confidence: float = CONFIDENCE) -> float:
    """Clopper-Pearson's one-sided upper bound of a rate."""
    return 1.0 - lower_bound(n - hits, n, confidence)


def threshold_for_precision(
    rows: CalibrationRows, precision: float, allowed: NDArray[np.bool_] | None = None
) -> float | None:
    """The lowest confidence from which answers are right at least `precision` of the time; None where there is none.

    `allowed` (n,) are the rows that other thresholds let answer. Coverages are tested upwards until the bound fails
    first, so that it holds at the one that is kept (fixed-sequence testing; Geifman and El-Yaniv 2017, arXiv
    1705.08500, bound the same risk). The first has at least twice the rows that could show it without an error, a
    tenth of all, and `FEWEST`.
    """
    require(rows, "threshold_for_precision")
    confidence, hit = top(softmax(rows.logits), rows.labels)
    if allowed is not None:
        confidence, hit = confidence[allowed], hit[allowed]
    n = len(hit)
    needed = int(np.ceil(np.log(1 - CONFIDENCE) / np.log(precision)))
    if needed > n:
        return None
    lowest: float | None = None
    start = min(n, max(2 * needed, n // 10, FEWEST))
    order = np.sort(confidence)[::-1]
    for count in np.unique(np.linspace(start, n, STEPS).astype(int)):
        threshold = float(order[count - 1])
        answered = confidence >= threshold
        if lower_bound(int(hit[answered].sum()), int(answered.sum())) < precision:
            break
        lowest = threshold if count < n or allowed is not None else 0.0
    return lowest


def class_thresholds(rows: CalibrationRows, max_fpr: dict[str, float]) -> dict[str, float | None]:
    """For each class, the lowest confidence at which its false-positive rate is bounded; None with too few rows.

    The rate is the share of rows of other classes that are named this class. It can only fall as the threshold
    rises, so walking down from 1 and stopping at the first failure keeps the bound's confidence (fixed-sequence
    testing: Angelopoulos et al. 2021, arXiv 2110.01052).
    """
    require(rows, "class_thresholds")
    p = softmax(rows.logits)
    predicted, confidence = p.argmax(1), p.max(1)
    thresholds: dict[str, float | None] = {}
    for name, bound in max_fpr.items():
        if name not in INDEX:
            raise InputError(f"No class {name!r}.", rule=f"Classes: {', '.join(INDEX)}.")
        others = rows.labels != INDEX[name]
        false = np.sort(confidence[others & (predicted == INDEX[name])])[::-1]
        n = int(others.sum())
        if upper_bound(0, n) > bound:
            thresholds[name] = None
            continue
        allowed = 0
        while allowed < len(false) and upper_bound(allowed + 1, n) <= bound:
            allowed += 1
        thresholds[name] = 0.0 if allowed == len(false) else float(np.nextafter(false[allowed], 2))
    return thresholds
