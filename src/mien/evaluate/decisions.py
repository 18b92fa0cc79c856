"""All thresholds of a calibrated model in one go, from calib's part for thresholds."""

from __future__ import annotations

import numpy as np

from mien.core.artifacts.abstention import AbstentionPolicy, ConformalSets, Precision
from mien.core.artifacts.calibration_rows import CalibrationRows
from mien.core.artifacts.metrics import Abstention, ConformalCoverage, FalsePositives
from mien.core.labels import LABELS
from mien.evaluate.abstention import (
    accuracy_at,
    aurc,
    class_thresholds,
    lower_bound,
    risk_coverage,
    threshold_for_coverage,
    threshold_for_precision,
    upper_bound,
)
from mien.evaluate.calibration_error import Floats, Ints
from mien.evaluate.conformal import KINDS, Conformal, coverage_interval, fit_conformal
from mien.evaluate.metrics import softmax

NEVER = 2.0  # a threshold that no confidence reaches


def fit_decisions(
    rows: CalibrationRows, *, coverage: float, precision: float | None, max_fpr: dict[str, float], alpha: float
) -> AbstentionPolicy:
    """Thresholds and conformal quantiles of `rows`, whose logits are calibrated already.

    Class thresholds come first; a required precision is that of the rows that they answer.
    """
    warnings = rows.shortcomings()
    bounded = class_thresholds(rows, max_fpr)
    warnings += [
        f"fpr_out_of_reach: {len(rows)} rows cannot show a false-positive rate of {name} under {max_fpr[name]:g}; it "
        "is never answered"
        for name, t in bounded.items()
        if t is None
    ]
    by_class = {name: NEVER if t is None else t for name, t in bounded.items()}
    below, required = threshold_for_coverage(rows, coverage), None
    if precision is not None:
        first = AbstentionPolicy(
            abstain_below=0.0, coverage=coverage, answered=1.0, class_thresholds=by_class, n=len(rows)
        )
        required = Precision(
            wanted=precision,
            threshold=threshold_for_precision(rows, precision, first.answered_rows(softmax(rows.logits))),
        )
        if required.threshold is None:
            warnings.append(
                f"precision_out_of_reach: no threshold on {len(rows)} rows shows answers that are right "
                f"{precision:.1%} of the time; nothing is answered"
            )
        below = max(below, NEVER if required.threshold is None else required.threshold)
    fitted = fit_conformal(rows, alpha)
    lacking = [name for name, q in zip(LABELS, fitted.class_conditional, strict=True) if q is None]
    if lacking:
        warnings.append(
            f"conformal_rows: too few rows of {', '.join(lacking)} for sets of their own at {1 - alpha:.0%}"
        )
    conformal = ConformalSets(
        alpha=alpha,
        n=fitted.n,
        split=fitted.split,
        class_conditional=dict(zip(LABELS, fitted.class_conditional, strict=True)),
        raps=fitted.raps,
    )
    decided = AbstentionPolicy(
        abstain_below=below,
        coverage=coverage,
        answered=1.0,
        precision=required,
        max_fpr=max_fpr,
        class_thresholds=by_class,
        conformal=conformal,
        n=len(rows),
        warnings=warnings,
    )
    return decided.model_copy(update={"answered": float(decided.answered_rows(softmax(rows.logits)).mean())})


def conformal_of(stored: ConformalSets) -> Conformal:
    """Stored quantiles as something that makes sets."""
    return Conformal(
        stored.alpha, stored.n, stored.split, tuple(stored.class_conditional[n] for n in LABELS), stored.raps
    )


def judge(probabilities: Floats, labels: Ints, decisions: AbstentionPolicy) -> Abstention:
    """What thresholds and sets do on other rows than those they were fitted on: shares, and whether bounds hold."""
    answered, hit = decisions.answered_rows(probabilities), probabilities.argmax(1) == labels
    curve = risk_coverage(probabilities, labels)
    points = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), 100)).astype(int))
    return {
        "threshold": decisions.abstain_below,
        "coverage": float(answered.mean()),
        "accuracy_answered": float(hit[answered].mean()) if answered.any() else None,
        "aurc": aurc(probabilities, labels),
        "accuracy_at_80": accuracy_at(probabilities, labels, 0.8),
        "curve": {key: [float(v) for v in values[points]] for key, values in curve.items()},
        "false_positives": _false_positives(probabilities, labels, decisions),
        "conformal": _conformal(probabilities, labels, decisions),
    }


def _false_positives(probabilities: Floats, labels: Ints, decisions: AbstentionPolicy) -> list[FalsePositives]:
    """False-positive rate of each class among answered rows, with its 95 % interval, before and after thresholds."""
    predicted, answered = probabilities.argmax(1), decisions.answered_rows(probabilities)
    rows: list[FalsePositives] = []
    for c, name in enumerate(LABELS):
        others = labels != c
        n, named = int(others.sum()), others & (predicted == c)
        false = int((named & answered).sum())
        if not n:
            continue
        bound = decisions.max_fpr.get(name)
        low = lower_bound(false, n, 0.975)
        rows.append(
            {
                "class": name,
                "threshold": float(decisions.thresholds[c]),
                "bound": bound,
                "rate_unthresholded": float(named.sum() / n),
                "rate": false / n,
                "ci95": [low, upper_bound(false, n, 0.975)],
                "holds": bound is None or low <= bound,
            }
        )
    return rows


def _conformal(probabilities: Floats, labels: Ints, decisions: AbstentionPolicy) -> list[ConformalCoverage]:
    if decisions.conformal is None:
        return []
    fitted, index = conformal_of(decisions.conformal), np.arange(len(labels))
    expected = coverage_interval(fitted.n, len(labels), fitted.alpha)
    rows: list[ConformalCoverage] = []
    for kind in KINDS:
        sets = fitted.sets(probabilities, kind)
        covered = sets[index, labels]
        rows.append(
            {
                "kind": kind,
                "target": 1 - fitted.alpha,
                "coverage": float(covered.mean()),
                "expected": None if expected is None or kind == "class_conditional" else list(expected),
                "mean_size": float(sets.sum(1).mean()),
                "one_class": float((sets.sum(1) == 1).mean()),
                "empty": float((sets.sum(1) == 0).mean()),
                "by_class": {
                    n: float(covered[labels == c].mean()) for c, n in enumerate(LABELS) if (labels == c).any()
                },
            }
        )
    return rows
