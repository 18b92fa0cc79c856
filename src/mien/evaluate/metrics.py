"""Metrics with pinned definitions. `probabilities` is (n, k), rows sum to 1; `labels` is (n,) in 0..k-1.

* F1 of a class is 2TP / (2TP + FP + FN), and 0 where that is 0/0: an absent class costs.
* macro-F1 over the classes present: the mean F1 of those classes alone that some row is labelled with.
* calibration errors: see `mien.evaluate.calibration_error`.
* Brier: the sum over classes of squared differences, averaged over rows (Brier 1950): 0 to 2.
* NLL: mean of -log p(label), p floored at 1e-12.
* signed gap: mean confidence minus accuracy; above 0 is over-confident.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.metrics import EpochScores, Metrics
from mien.core.errors import InputError
from mien.core.labels import INDEX, LABELS, MINORITY
from mien.evaluate.calibration_error import Floats, Ints, ece, ece_by_class, ece_debiased, ece_floor, smooth_ece

FLOOR = 1e-12
GAP_ALARM = 0.3


def row_sum(values: Floats) -> Floats:
    """Sums (n,) of short rows; a product with ones takes a fifth of numpy's reduction along them."""
    return np.asarray(values @ np.ones(values.shape[1]))


def row_max(values: Floats) -> Floats:
    """Largest values (n,) of short rows, column by column for the same reason."""
    out = values[:, 0].copy()
    for column in range(1, values.shape[1]):
        np.maximum(out, values[:, column], out=out)
    return out


def softmax(logits: Floats) -> Floats:
    """Row-wise softmax of (n, k) logits in float64."""
    values = np.asarray(logits, dtype=np.float64)
    exp = np.exp(values - row_max(values)[:, None])
    exp /= row_sum(exp)[:, None]
    return np.asarray(exp)


def log_softmax(logits: Floats) -> Floats:
    """Row-wise log softmax of (n, k) logits in float64."""
    values = np.asarray(logits, dtype=np.float64)
    shifted = values - row_max(values)[:, None]
    shifted -= np.log(row_sum(np.exp(shifted)))[:, None]
    return np.asarray(shifted)


def check(probabilities: Floats, labels: Ints) -> None:
    """Raise `InputError` unless the arrays fit together and are probabilities."""
    if probabilities.ndim != 2 or len(labels) != len(probabilities) or not len(labels):
        raise InputError(
            f"Probabilities {probabilities.shape} for labels {labels.shape}.", rule="(n, k) and (n,), n at least 1."
        )
    if labels.dtype.kind not in "iu":
        raise InputError(f"Labels of type {labels.dtype}.", rule="Class numbers.")
    if not np.isfinite(probabilities).all() or probabilities.min() < 0 or np.abs(probabilities.sum(1) - 1).max() > 1e-6:
        raise InputError("These are no probabilities.", rule="Rows are finite, not negative, and sum to 1.")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise InputError(
            f"Labels reach from {labels.min()} to {labels.max()}.", rule=f"0 to {probabilities.shape[1] - 1}."
        )


def confusion(labels: Ints, predicted: Ints, k: int) -> Ints:
    """Counts (k, k): rows are labels, columns predictions."""
    return np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k)


def f1_scores(counts: NDArray[np.number]) -> Floats:
    """F1 of each class from confusion counts (..., k, k)."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    both = counts.sum(-1) + counts.sum(-2)
    return np.asarray(np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0))


def minority_recall(counts: NDArray[np.number], *, minority: tuple[str, ...] = MINORITY) -> float:
    """Mean recall of the minority classes, of confusion counts (7, 7); a class without rows counts 0."""
    rows = [INDEX[name] for name in minority]
    return float(np.mean([counts[i, i] / max(int(counts[i].sum()), 1) for i in rows]))


def mean_entropy(probabilities: Floats) -> float:
    """Mean Shannon entropy of rows (n, k) in nats: the higher, the smoother."""
    return float(-(probabilities * np.log(np.maximum(probabilities, FLOOR))).sum(1).mean())


def brier(probabilities: Floats, labels: Ints) -> float:
    """Brier score, summed over classes."""
    return float(np.mean(brier_rows(probabilities, labels)))


def brier_rows(probabilities: Floats, labels: Ints) -> Floats:
    """Brier score of each row, (n,)."""
    target = np.eye(probabilities.shape[1])[labels]
    return np.asarray(((probabilities - target) ** 2).sum(1))


def nll_rows(probabilities: Floats, labels: Ints) -> Floats:
    """Negative log likelihood of each row, (n,)."""
    return np.asarray(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], FLOOR)))


def metrics(probabilities: Floats, labels: Ints, *, minority: tuple[str, ...] = MINORITY) -> Metrics:
    """The metrics object of the seven classes, without intervals."""
    check(probabilities, labels)
    if probabilities.shape[1] != len(LABELS):
        raise InputError(
            f"Probabilities {probabilities.shape}.", rule=f"(n, {len(LABELS)}), in the order {', '.join(LABELS)}."
        )
    predicted = probabilities.argmax(1)
    counts = confusion(labels, predicted, len(LABELS))
    f1 = f1_scores(counts)
    accuracy = float((predicted == labels).mean())
    mean_confidence = float(probabilities.max(1).mean())
    by_class = ece_by_class(probabilities, labels)
    return {
        "n": len(labels),
        "accuracy": accuracy,
        "macro_f1": float(f1.mean()),
        "macro_f1_present": float(f1[counts.any(1)].mean()),
        "minority_f1": float(np.mean([f1[INDEX[name]] for name in minority])),
        "per_class_f1": {name: float(f1[i]) for i, name in enumerate(LABELS)},
        "ece": ece(probabilities, labels),
        "ece_floor": ece_floor(probabilities),
        "ece_debiased": ece_debiased(probabilities, labels),
        "smooth_ece": smooth_ece(probabilities, labels),
        "ece_classwise": float(by_class.mean()),
        "per_class_ece": {name: float(by_class[i]) for i, name in enumerate(LABELS)},
        "brier": brier(probabilities, labels),
        "nll": float(nll_rows(probabilities, labels).mean()),
        "mean_confidence": mean_confidence,
        "signed_gap": mean_confidence - accuracy,
        "confusion": counts.tolist(),
    }


def alarms(values: Metrics) -> list[str]:
    """Warnings for figures that logits of a sane model do not give."""
    if abs(values["signed_gap"]) > GAP_ALARM:
        return [
            f"mean confidence {values['mean_confidence']:.3f} and accuracy {values['accuracy']:.3f} differ by more "
            f"than {GAP_ALARM}: is the head's scale in the logits?"
        ]
    return []


def score_logits(logits: Floats, labels: Ints) -> EpochScores:
    """What an epoch is judged by on val: the keys of `metrics` that are cheap, of logits (n, 7) and labels (n,)."""
    probabilities = softmax(logits)
    predicted = probabilities.argmax(1)
    f1 = f1_scores(confusion(labels, predicted, logits.shape[1]))
    return {
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": float(f1.mean()),
        "minority_f1": float(np.mean([f1[INDEX[name]] for name in MINORITY])),
        "nll": float(nll_rows(probabilities, labels).mean()),
        "ece": ece(probabilities, labels),
        "per_class_f1": {name: float(f1[i]) for i, name in enumerate(LABELS)},
    }
