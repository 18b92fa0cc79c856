"""Bootstrap intervals and paired differences for all metrics at once (Efron & Tibshirani 1993, ch. 13).

A resample is a vector of counts of groups (near-duplicates of one image stay together; without groups each row is one);
every metric is a function of weighted sums over rows, so all resamples of all models are matrix products. Models see
the same resamples: their differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.metrics import Intervals, McNemar, MetricsWithIntervals
from mien.core.errors import InputError
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
    ece_interval,
    smooth_ece,
    smooth_gap,
    top,
)

BASIC = (
    "accuracy",
    "macro_f1",
    "macro_f1_present",
    "minority_f1",
    "ece",
    "brier",
    "nll",
    "mean_confidence",
    "signed_gap",
    *(f"f1_{n}" for n in LABELS),
)
DEARER = ("ece_debiased", "ece_classwise", *(f"ece_{n}" for n in LABELS))
METRICS = (*BASIC, *DEARER)
HIGHER_IS_BETTER = {"accuracy": True, "macro_f1": True, "minority_f1": True, "ece": False, "nll": False, "brier": False}
BIASED = ("ece", "smooth_ece", *DEARER)  # means of absolute values: resampling raises them
_CHUNK = 50
Real = TypeVar("Real", np.float32, np.float64)


def group_numbers(groups: NDArray[np.str_] | None, n: int) -> Ints:
    """The group of each row as a number (n,), in the order in which they appear; without groups each row's own."""
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise InputError(f"{len(groups)} groups for {n} rows.", rule="One group a row.")
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def group_sums(values: NDArray[Real], number: Ints) -> NDArray[Real]:
    """Sums (g, columns) over the rows of each group of `values` (n, columns)."""
    if len(number) and number[-1] == len(number) - 1:  # numbers rise by one at most: each row is a group
        return values
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(number.max() + 1))
    return np.asarray(np.add.reduceat(values[order], starts, axis=0))


def _weights(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """Group counts of resamples, in chunks (r, n) of n groups; chunk by chunk the same for every model."""
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
    rows, bins, start = np.arange(n), bin_of(confidence), 4 + 2 * k
    out = np.zeros((n, start + BINS + (full * (2 + k) * BINS)), dtype=np.float32)
    out[:, 0], out[:, 1] = hit, confidence
    out[:, 2], out[:, 3] = m.brier_rows(probabilities, labels), m.nll_rows(probabilities, labels)
    out[rows, 4 + labels], out[rows, 4 + k + predicted] = hit, 1.0
    out[rows, start + bins] = confidence - hit
    if full:
        out[rows, start + BINS + bins], out[rows, start + 2 * BINS + bins] = 1.0, hit
        for c in range(k):
            place = start + (3 + c) * BINS + bin_of(probabilities[:, c])
            out[rows, place] = probabilities[:, c] - (labels == c)
    return out


def _finish(sums: Floats, counts: Floats, n: Floats, full: bool) -> dict[str, Floats]:
    """Metrics (r,) from means over rows (r, columns), those of the classes of the labels (r, k), and rows (r, 1)."""
    k = counts.shape[1]
    hits, predicted, start = sums[:, 4 : 4 + k], sums[:, 4 + k : 4 + 2 * k], 4 + 2 * k
    both = counts + predicted
    f1 = np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)
    gaps = sums[:, start : start + BINS]
    out = {
        "accuracy": sums[:, 0],
        "macro_f1": f1.mean(1),
        "macro_f1_present": (f1 * (counts > 0)).sum(1) / (counts > 0).sum(1),
        "minority_f1": f1[:, [INDEX[name] for name in MINORITY]].mean(1),
        "ece": np.abs(gaps).sum(1),
        "brier": sums[:, 2],
        "nll": sums[:, 3],
        "mean_confidence": sums[:, 1],
        "signed_gap": sums[:, 1] - sums[:, 0],
    } | {f"f1_{name}": f1[:, i] for i, name in enumerate(LABELS)}
    if full:
        count, right = np.moveaxis(sums[:, start + BINS : start + 3 * BINS].reshape(-1, 2, BINS), 1, 0)
        each = np.abs(sums[:, start + 3 * BINS :]).reshape(-1, k, BINS).sum(2)
        out |= {"ece_debiased": debiased_gap(n * count, n * (gaps + right), n * right), "ece_classwise": each.mean(1)}
        out |= {f"ece_{name}": each[:, i] for i, name in enumerate(LABELS)}
    return out


def resampled_many(
    several: Sequence[Floats],
    labels: Ints,
    *,
    resamples: int = 1000,
    seed: int = 0,
    full: bool = True,
    groups: NDArray[np.str_] | None = None,
) -> list[dict[str, Floats]]:
    """Metrics of each model's probabilities (n, k) on the same resamples: a {name: (resamples,)} each.

    `full` gives all of `METRICS`, else those of `BASIC`. `groups` (n,) are resampled in whole. Sums are taken in
    float32 (relative error about 1e-6).
    """
    n, k = several[0].shape
    tables = [_columns(p, labels, full) for p in several]
    width = tables[0].shape[1]
    joined = np.concatenate([np.eye(k, dtype=np.float32)[labels], *tables], axis=1)
    joined = group_sums(joined, group_numbers(groups, n))
    sums = np.concatenate([w @ joined for w in _weights(len(joined), resamples, seed)]).astype(np.float64)
    rows = sums[:, :k].sum(1, keepdims=True)
    counts, rest = sums[:, :k] / rows, sums[:, k:] / rows
    return [_finish(rest[:, i * width : (i + 1) * width], counts, rows, full) for i in range(len(several))]


def resampled(
    probabilities: Floats, labels: Ints, *, resamples: int = 1000, seed: int = 0, groups: NDArray[np.str_] | None = None
) -> dict[str, Floats]:
    """Every metric of one model on every resample: {name: (resamples,)}."""
    return resampled_many([probabilities], labels, resamples=resamples, seed=seed, groups=groups)[0]


def ratio(
    pair: Sequence[Floats],
    labels: Ints,
    name: str,
    *,
    resamples: int = 1000,
    seed: int = 0,
    groups: NDArray[np.str_] | None = None,
) -> Floats:
    """A metric of the first model over the second's on the same resamples (resamples,)."""
    first, second = (
        drawn[name] for drawn in resampled_many(pair, labels, resamples=resamples, seed=seed, full=False, groups=groups)
    )
    return np.asarray(first / np.maximum(second, m.FLOOR))


def smooth_ece_resampled(
    probabilities: Floats, labels: Ints, *, resamples: int = 200, seed: int = 0, groups: NDArray[np.str_] | None = None
) -> Floats:
    """Smooth calibration error on resamples (resamples,); no matrix product can give it, so it takes longer."""
    rng = np.random.default_rng(seed)
    confidence, hit = top(probabilities, labels)
    number = group_numbers(groups, len(hit))
    order = np.argsort(number, kind="stable")
    members = np.split(order, np.searchsorted(number[order], np.arange(1, number.max() + 1)))
    drawn = (rng.integers(0, len(members), len(members)) for _ in range(resamples))
    rows = (d if len(members) == len(hit) else np.concatenate([members[g] for g in d]) for d in drawn)
    return np.array([smooth_gap(confidence[r], hit[r]) for r in rows])


def interval(values: Floats, alpha: float = 0.05) -> list[float]:
    """Percentile interval [low, high] of resampled values."""
    low, high = np.quantile(values, [alpha / 2, 1 - alpha / 2])
    return [float(low), float(high)]


def unbiased(name: str, values: Floats, point: float) -> Floats:
    """Resampled values of a metric, for calibration errors freed of the bias that resampling adds.

    A calibration error is a mean of absolute values: resampling adds noise to every bin and so raises it. Shifted back,
    the values spread around what was seen: the interval is one for the metric's expectation at this n, to be read
    beside the floor. The true error has an interval of its own (`calibration_error.ece_interval`).
    """
    return np.asarray(values - (values.mean() - point)) if name in BIASED else values


def _biased_points(probabilities: Floats, labels: Ints) -> dict[str, float]:
    each = ece_by_class(probabilities, labels)
    points = {"ece": ece(probabilities, labels), "ece_debiased": ece_debiased(probabilities, labels)}
    return (
        points
        | {"ece_classwise": float(each.mean())}
        | {f"ece_{name}": float(e) for name, e in zip(LABELS, each, strict=True)}
    )


def intervals(
    probabilities: Floats,
    labels: Ints,
    *,
    resamples: int = 1000,
    seed: int = 0,
    smooth: int = 100,
    groups: NDArray[np.str_] | None = None,
) -> Intervals:
    """95 % intervals of every metric; those of calibration errors are never below 0 (`unbiased`: what they cover).

    That of `ece_debiased` is for the true error of the binned confidence and no bootstrap (`ece_interval`). `smooth`:
    resamples for the smooth ECE, which alone is slow; 0 leaves it out. `groups` (n,): near-duplicates, resampled in
    whole.
    """
    points = _biased_points(probabilities, labels)
    drawn = resampled(probabilities, labels, resamples=resamples, seed=seed, groups=groups)
    if smooth:
        points["smooth_ece"] = smooth_ece(probabilities, labels)
        drawn["smooth_ece"] = smooth_ece_resampled(probabilities, labels, resamples=smooth, seed=seed, groups=groups)
    out = {}
    for name, values in drawn.items():
        low, high = interval(unbiased(name, values, points.get(name, 0.0)))
        out[name] = [max(0.0, low), high] if name in BIASED else [low, high]
    number = group_numbers(groups, len(labels))
    return out | {"ece_debiased": ece_interval(probabilities, labels, number)}


def with_intervals(
    probabilities: Floats,
    labels: Ints,
    *,
    resamples: int = 1000,
    seed: int = 0,
    smooth: int = 100,
    groups: NDArray[np.str_] | None = None,
) -> MetricsWithIntervals:
    """All figures with their `ci95`."""
    values = m.metrics(probabilities, labels)  # checks the arrays first
    ends = intervals(probabilities, labels, resamples=resamples, seed=seed, smooth=smooth, groups=groups)
    return {**values, "ci95": ends}


def mcnemar(first_hit: NDArray[np.bool_], second_hit: NDArray[np.bool_]) -> McNemar:
    """Exact two-sided McNemar test of two models' hits on the same rows (McNemar 1947)."""
    from scipy.stats import binomtest  # noqa: PLC0415  (a second to import)

    only_first, only_second = int((first_hit & ~second_hit).sum()), int((second_hit & ~first_hit).sum())
    total = only_first + only_second
    p = float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": p}
