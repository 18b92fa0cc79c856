"""Bootstrap intervals and paired differences for all metrics at once (Efron & Tibshirani 1993, ch. 13).

A resample is a vector of row counts; every metric is a function of weighted sums over rows, so all
resamples are matrix products. Two models see the same resamples: their differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mien.core.labels import INDEX, LABELS, MINORITY
from mien.evaluate import metrics as m

METRICS = (
    "accuracy",
    "macro_f1",
    "minority_f1",
    "ece",
    "ece_classwise",
    "brier",
    "nll",
    "signed_gap",
    *(f"f1_{n}" for n in LABELS),
)
HIGHER_IS_BETTER = {"accuracy": True, "macro_f1": True, "minority_f1": True, "ece": False, "nll": False, "brier": False}
BIASED = ("ece", "ece_classwise")
_CHUNK = 50


def _weights(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Row counts of resamples, in chunks (r, n); chunk by chunk the same for every model."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        drawn = rng.integers(0, n, (size, n)) + np.arange(size)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def resampled(probabilities: m.Floats, labels: m.Ints, *, resamples: int = 1000, seed: int = 0) -> dict[str, m.Floats]:
    """Every metric on every resample: {name: (resamples,)}."""
    n, k = probabilities.shape
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    hit = (predicted == labels).astype(np.float64)
    cells = np.eye(k * k)[labels * k + predicted]
    gaps = np.eye(m.BINS)[m.bin_of(confidence)] * (confidence - hit)[:, None]
    class_gaps = [
        np.eye(m.BINS)[m.bin_of(probabilities[:, c])] * (probabilities[:, c] - (labels == c))[:, None] for c in range(k)
    ]
    rows = np.column_stack([hit, confidence, m.brier_rows(probabilities, labels), m.nll_rows(probabilities, labels)])
    table = np.concatenate([rows, cells, gaps, *class_gaps], axis=1)
    sums = np.concatenate([w @ table for w in _weights(n, resamples, seed)]) / n
    f1 = m.f1_scores(sums[:, 4 : 4 + k * k].reshape(-1, k, k))
    start = 4 + k * k
    by_class = np.abs(sums[:, start + m.BINS :]).reshape(len(sums), k, m.BINS).sum(2).mean(1)
    out = {
        "accuracy": sums[:, 0],
        "macro_f1": f1.mean(1),
        "minority_f1": f1[:, [INDEX[name] for name in MINORITY]].mean(1),
        "ece": np.abs(sums[:, start : start + m.BINS]).sum(1),
        "ece_classwise": by_class,
        "brier": sums[:, 2],
        "nll": sums[:, 3],
        "signed_gap": sums[:, 1] - sums[:, 0],
    }
    return out | {f"f1_{name}": f1[:, i] for i, name in enumerate(LABELS)}


def interval(values: m.Floats, alpha: float = 0.05) -> list[float]:
    """Percentile interval [low, high] of resampled values."""
    low, high = np.quantile(values, [alpha / 2, 1 - alpha / 2])
    return [float(low), float(high)]


def unbiased(name: str, values: m.Floats, point: float) -> m.Floats:
    """Resampled values of a metric, for calibration errors shifted so that their mean is the estimate.

    A calibration error is a mean of absolute values: resampling adds noise to every bin and so raises
    it. The bootstrap's own estimate of that bias is taken off (Efron & Tibshirani 1993, ch. 10).
    """
    return values - values.mean() + point if name in BIASED else values


def intervals(
    probabilities: m.Floats, labels: m.Ints, *, resamples: int = 1000, seed: int = 0
) -> dict[str, list[float]]:
    """95 % intervals of every metric; those of calibration errors are freed of their bias and not below 0."""
    points = {"ece": m.ece(probabilities, labels), "ece_classwise": m.ece_classwise(probabilities, labels)}
    out = {}
    for name, values in resampled(probabilities, labels, resamples=resamples, seed=seed).items():
        low, high = interval(unbiased(name, values, points.get(name, 0.0)))
        out[name] = [max(0.0, low), high] if name in BIASED else [low, high]
    return out


def with_intervals(
    probabilities: m.Floats, labels: m.Ints, *, resamples: int = 1000, seed: int = 0
) -> dict[str, object]:
    """The metrics object with its `ci95`."""
    return m.metrics(probabilities, labels) | {"ci95": intervals(probabilities, labels, resamples=resamples, seed=seed)}


def mcnemar(first_hit: NDArray[np.bool_], second_hit: NDArray[np.bool_]) -> dict[str, float]:
    """Exact two-sided McNemar test of two models' hits on the same rows (McNemar 1947)."""
    from scipy.stats import binomtest  # noqa: PLC0415  (a second to import)

    only_first, only_second = int((first_hit & ~second_hit).sum()), int((second_hit & ~first_hit).sum())
    total = only_first + only_second
    p = float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": p}
