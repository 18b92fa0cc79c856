"""Bootstrap intervals and paired differences for all metrics at once (Efron & Tibshirani 1993, ch. 13).

A resample is a vector of row counts; every metric is a function of weighted sums over rows, so all
resamples of all models are matrix products. Models see the same resamples: their differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mien.core.labels import INDEX, LABELS, MINORITY
from mien.evaluate import metrics as m
from mien.evaluate.calibration_error import (
    BINS,
    Floats,
    Ints,
    bin_of,
    debiased_gap,
    ece,
    ece_by_class,
    ece_debiased,
    smooth_ece,
    smooth_gap,
    top,
)

BASIC = ("accuracy", "macro_f1", "minority_f1", "ece", "brier", "nll", "mean_confidence", "signed_gap", *(f"f1_{n}" for n in LABELS))  # fmt: skip
DEARER = ("ece_debiased", "ece_classwise", *(f"ece_{n}" for n in LABELS))
METRICS = (*BASIC, *DEARER)
HIGHER_IS_BETTER = {"accuracy": True, "macro_f1": True, "minority_f1": True, "ece": False, "nll": False, "brier": False}
BIASED = ("ece", "smooth_ece", *DEARER)  # means of absolute values: resampling raises them
_CHUNK = 50


def _weights(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """Row counts of resamples, in chunks (r, n); chunk by chunk the same for every model."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        drawn = rng.integers(0, n, (size, n), dtype=np.int32) + (np.arange(size, dtype=np.int32) * n)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float32)


def _columns(probabilities: Floats, labels: Ints, full: bool) -> NDArray[np.float32]:
    """What a model's metrics are sums of over rows: 4 plain ones, hits and predictions by class, gaps by bin;
    for all metrics also rows and hits by bin, and the gaps of each class's probability by bin."""
    n, k = probabilities.shape
    predicted, (confidence, hit) = probabilities.argmax(1), top(probabilities, labels)
    rows, where, start = np.arange(n), bin_of(confidence), 4 + 2 * k
    out = np.zeros((n, start + BINS + (full * (2 + k) * BINS)), dtype=np.float32)
    out[:, 0], out[:, 1] = hit, confidence
    out[:, 2], out[:, 3] = m.brier_rows(probabilities, labels), m.nll_rows(probabilities, labels)
    out[rows, 4 + labels], out[rows, 4 + k + predicted] = hit, 1.0
    out[rows, start + where] = confidence - hit
    if full:
        out[rows, start + BINS + where], out[rows, start + 2 * BINS + where] = 1.0, hit
        for c in range(k):
            place = start + (3 + c) * BINS + bin_of(probabilities[:, c])
            out[rows, place] = probabilities[:, c] - (labels == c)
    return out


def _finish(sums: Floats, counts: Floats, n: int, full: bool) -> dict[str, Floats]:
    """Metrics (r,) from a model's means over rows (r, columns), and those of the labels' classes (r, k)."""
    k = counts.shape[1]
    hits, predicted, start = sums[:, 4 : 4 + k], sums[:, 4 + k : 4 + 2 * k], 4 + 2 * k
    both = counts + predicted
    f1 = np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)
    gaps = sums[:, start : start + BINS]
    out = {
        "accuracy": sums[:, 0], "macro_f1": f1.mean(1), "minority_f1": f1[:, [INDEX[name] for name in MINORITY]].mean(1),
        "ece": np.abs(gaps).sum(1), "brier": sums[:, 2], "nll": sums[:, 3], "mean_confidence": sums[:, 1], "signed_gap": sums[:, 1] - sums[:, 0],
    } | {f"f1_{name}": f1[:, i] for i, name in enumerate(LABELS)}  # fmt: skip
    if full:
        count, right = np.moveaxis(sums[:, start + BINS : start + 3 * BINS].reshape(-1, 2, BINS), 1, 0)
        each = np.abs(sums[:, start + 3 * BINS :]).reshape(-1, k, BINS).sum(2)
        out |= {"ece_debiased": debiased_gap(n * count, n * (gaps + right), n * right), "ece_classwise": each.mean(1)}
        out |= {f"ece_{name}": each[:, i] for i, name in enumerate(LABELS)}
    return out


def resampled_many(
    several: Sequence[Floats], labels: Ints, *, resamples: int = 1000, seed: int = 0, full: bool = True
) -> list[dict[str, Floats]]:
    """Metrics of each model's probabilities (n, k) on the same resamples: a {name: (resamples,)} each.

    `full` gives all of `METRICS`, else those of `BASIC`. Sums are taken in float32 (relative error about 1e-6).
    """
    n, k = several[0].shape
    tables = [_columns(p, labels, full) for p in several]
    width = tables[0].shape[1]
    joined = np.concatenate([np.eye(k, dtype=np.float32)[labels], *tables], axis=1)
    sums = np.concatenate([w @ joined for w in _weights(n, resamples, seed)]).astype(np.float64) / n
    counts, rest = sums[:, :k], sums[:, k:]
    return [_finish(rest[:, i * width : (i + 1) * width], counts, n, full) for i in range(len(several))]


def resampled(probabilities: Floats, labels: Ints, *, resamples: int = 1000, seed: int = 0) -> dict[str, Floats]:
    """Every metric of one model on every resample: {name: (resamples,)}."""
    return resampled_many([probabilities], labels, resamples=resamples, seed=seed)[0]


def smooth_ece_resampled(probabilities: Floats, labels: Ints, *, resamples: int = 200, seed: int = 0) -> Floats:
    """Smooth calibration error on resamples (resamples,); no matrix product can give it, so it takes longer."""
    rng = np.random.default_rng(seed)
    confidence, hit = top(probabilities, labels)
    rows = (rng.integers(0, len(hit), len(hit)) for _ in range(resamples))
    return np.array([smooth_gap(confidence[r], hit[r]) for r in rows])


def interval(values: Floats, alpha: float = 0.05) -> list[float]:
    """Percentile interval [low, high] of resampled values."""
    low, high = np.quantile(values, [alpha / 2, 1 - alpha / 2])
    return [float(low), float(high)]


def unbiased(name: str, values: Floats, point: float) -> Floats:
    """Resampled values of a metric, for calibration errors freed of the bias that resampling adds.

    A calibration error is a mean of absolute values: resampling adds noise to every bin and so raises it. Shifted back
    once, the values spread around what was seen: for ECE and its like the interval is one for their expectation at
    this n, to be read beside the floor. The debiased ECE estimates the true error: its values are shifted twice, to
    the bootstrap's bias-corrected estimate (Efron & Tibshirani 1993, ch. 10).
    """
    if name not in BIASED:
        return values
    bias = values.mean() - point
    return np.asarray(values - (2 if name == "ece_debiased" else 1) * bias)


def _biased_points(probabilities: Floats, labels: Ints) -> dict[str, float]:
    each = ece_by_class(probabilities, labels)
    points = {"ece": ece(probabilities, labels), "ece_debiased": ece_debiased(probabilities, labels)}
    return points | {"ece_classwise": float(each.mean())} | {f"ece_{name}": float(e) for name, e in zip(LABELS, each, strict=True)}  # fmt: skip


def intervals(
    probabilities: Floats, labels: Ints, *, resamples: int = 1000, seed: int = 0, smooth: int = 100
) -> dict[str, list[float]]:
    """95 % intervals of every metric; those of calibration errors are never below 0 (see `unbiased` for what they cover).

    `smooth`: resamples for the smooth ECE, which alone is slow; 0 leaves it out.
    """
    points = _biased_points(probabilities, labels)
    drawn = resampled(probabilities, labels, resamples=resamples, seed=seed)
    if smooth:
        points["smooth_ece"] = smooth_ece(probabilities, labels)
        drawn["smooth_ece"] = smooth_ece_resampled(probabilities, labels, resamples=smooth, seed=seed)
    out = {}
    for name, values in drawn.items():
        low, high = interval(unbiased(name, values, points.get(name, 0.0)))
        out[name] = [max(0.0, low), high] if name in BIASED else [low, high]
    return out


def with_intervals(
    probabilities: Floats, labels: Ints, *, resamples: int = 1000, seed: int = 0, smooth: int = 100
) -> dict[str, object]:
    """The metrics object with its `ci95`."""
    found = m.metrics(probabilities, labels)
    return found | {"ci95": intervals(probabilities, labels, resamples=resamples, seed=seed, smooth=smooth)}


def mcnemar(first_hit: NDArray[np.bool_], second_hit: NDArray[np.bool_]) -> dict[str, float]:
    """Exact two-sided McNemar test of two models' hits on the same rows (McNemar 1947)."""
    from scipy.stats import binomtest  # noqa: PLC0415  (a second to import)

    only_first, only_second = int((first_hit & ~second_hit).sum()), int((second_hit & ~first_hit).sum())
    total = only_first + only_second
    p = float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": p}
