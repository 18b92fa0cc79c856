"""Metrics with pinned definitions. `probabilities` is (n, k), rows sum to 1; `labels` is (n,) in 0..k-1.

* F1 of a class is 2TP / (2TP + FP + FN), and 0 where that is 0/0: an absent class costs.
* ECE: 15 equal-width bins (lo, hi] of the largest probability (Guo et al. 2017, arXiv 1706.04599,
  eq. 3); the absolute gaps weighted by the bins' shares.
* class-wise ECE: the same for each class's probability, averaged over classes (Kull et al. 2019,
  arXiv 1910.12656, section 2).
* ECE floor: the mean ECE of labels resampled from the probabilities themselves: what a perfectly
  calibrated model would show at this n.
* Brier: the sum over classes of squared differences, averaged over rows (Brier 1950): 0 to 2.
* NLL: mean of -log p(label), p floored at 1e-12.
* signed gap: mean confidence minus accuracy; above 0 is over-confident.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.core.errors import InputError
from mien.core.labels import INDEX, LABELS, MINORITY

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 15
FLOOR = 1e-12
GAP_ALARM = 0.3


def softmax(logits: Floats) -> Floats:
    """Row-wise softmax of (n, k) logits in float64."""
    shifted = np.asarray(logits, dtype=np.float64) - np.max(logits, axis=1, keepdims=True)
    exp = np.exp(shifted)
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


def log_softmax(logits: Floats) -> Floats:
    """Row-wise log softmax of (n, k) logits in float64."""
    shifted = np.asarray(logits, dtype=np.float64) - np.max(logits, axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def check(probabilities: Floats, labels: Ints) -> None:
    """Raise `InputError` unless the arrays fit together and are probabilities."""
    if probabilities.ndim != 2 or len(labels) != len(probabilities) or not len(labels):
        raise InputError(
            f"Probabilities {probabilities.shape} for labels {labels.shape}.", rule="(n, k) and (n,), n at least 1."
        )
    if not np.isfinite(probabilities).all() or probabilities.min() < 0 or np.abs(probabilities.sum(1) - 1).max() > 1e-6:
        raise InputError("These are no probabilities.", rule="Rows are finite, not negative, and sum to 1.")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise InputError(
            f"Labels reach from {labels.min()} to {labels.max()}.", rule=f"0 to {probabilities.shape[1] - 1}."
        )


def confusion(labels: Ints, predicted: Ints, k: int) -> Ints:
    """Counts (k, k): rows are labels, columns predictions."""
    return np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k)


def f1_scores(counts: NDArray[Any]) -> Floats:
    """F1 of each class from confusion counts (..., k, k)."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    both = counts.sum(-1) + counts.sum(-2)
    return np.asarray(np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0))


def bin_of(confidence: Floats, bins: int = BINS) -> Ints:
    """Bin number of each confidence: bin b is (b / bins, (b + 1) / bins]; 0 falls into the first."""
    edges = np.linspace(0, 1, bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1).astype(np.int64)


def binned_gap(confidence: Floats, hit: Floats, bins: int = BINS) -> float:
    """Sum over bins of |sum of (confidence - hit)| / n: the expected calibration error."""
    sums = np.bincount(bin_of(confidence, bins), weights=confidence - hit, minlength=bins)
    return float(np.abs(sums).sum() / len(hit))


def ece(probabilities: Floats, labels: Ints, bins: int = BINS) -> float:
    """Expected calibration error of the largest probability."""
    confidence = probabilities.max(1)
    return binned_gap(confidence, (probabilities.argmax(1) == labels).astype(np.float64), bins)


def ece_classwise(probabilities: Floats, labels: Ints, bins: int = BINS) -> float:
    """Mean over classes of the calibration error of that class's probability."""
    k = probabilities.shape[1]
    return float(np.mean([binned_gap(probabilities[:, c], (labels == c).astype(np.float64), bins) for c in range(k)]))


def ece_floor(probabilities: Floats, bins: int = BINS, *, resamples: int = 50, seed: int = 0) -> float:
    """Mean ECE when labels are drawn from the probabilities: the floor at this n."""
    rng = np.random.default_rng(seed)
    confidence = probabilities.max(1)
    hits = rng.random((resamples, len(confidence))) < confidence
    return float(np.mean([binned_gap(confidence, hit.astype(np.float64), bins) for hit in hits]))


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


def metrics(probabilities: Floats, labels: Ints, *, minority: tuple[str, ...] = MINORITY) -> dict[str, Any]:
    """The metrics object of the seven classes, without intervals."""
    check(probabilities, labels)
    predicted = probabilities.argmax(1)
    counts = confusion(labels, predicted, len(LABELS))
    f1 = f1_scores(counts)
    accuracy = float((predicted == labels).mean())
    mean_confidence = float(probabilities.max(1).mean())
    return {
        "n": len(labels),
        "accuracy": accuracy,
        "macro_f1": float(f1.mean()),
        "minority_f1": float(np.mean([f1[INDEX[name]] for name in minority])),
        "per_class_f1": {name: float(f1[i]) for i, name in enumerate(LABELS)},
        "ece": ece(probabilities, labels),
        "ece_floor": ece_floor(probabilities),
        "ece_classwise": ece_classwise(probabilities, labels),
        "brier": brier(probabilities, labels),
        "nll": float(nll_rows(probabilities, labels).mean()),
        "mean_confidence": mean_confidence,
        "signed_gap": mean_confidence - accuracy,
        "confusion": counts.tolist(),
    }


def reliability(probabilities: Floats, labels: Ints, bins: int = BINS) -> dict[str, list[float]]:
    """Per bin: count, mean confidence and accuracy (0 where empty), for a reliability diagram."""
    confidence = probabilities.max(1)
    where = bin_of(confidence, bins)
    count = np.bincount(where, minlength=bins).astype(np.float64)
    safe = np.maximum(count, 1)
    hit = (probabilities.argmax(1) == labels).astype(np.float64)
    return {
        "count": count.tolist(),
        "confidence": (np.bincount(where, weights=confidence, minlength=bins) / safe).tolist(),
        "accuracy": (np.bincount(where, weights=hit, minlength=bins) / safe).tolist(),
    }


def alarms(values: dict[str, Any]) -> list[str]:
    """Warnings for figures that logits of a sane model do not give."""
    if abs(values["signed_gap"]) > GAP_ALARM:
        return [
            f"mean confidence {values['mean_confidence']:.3f} and accuracy {values['accuracy']:.3f} differ by more than "
            f"{GAP_ALARM}: is the head's scale in the logits?"
        ]
    return []


def score_logits(logits: Floats, labels: Ints) -> dict[str, float]:
    """What an epoch is judged by on val."""
    probabilities = softmax(logits)
    predicted = probabilities.argmax(1)
    return {
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": float(f1_scores(confusion(labels, predicted, logits.shape[1])).mean()),
        "nll": float(nll_rows(probabilities, labels).mean()),
    }
