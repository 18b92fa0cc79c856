"""Comparing variants that were run with the same seeds: paired differences and their significance.

Runs form a randomised complete block design: variants are treatments, seeds are blocks. A variant's difference from the
baseline is the mean over seeds of paired differences; its standard error comes from the residual variance of all runs
after removing variants' and seeds' means (two-way analysis of variance; e.g. Montgomery, Design and Analysis of
Experiments, section 4.1), which three seeds of a single pair could not tell. All runs are judged on the same images,
which are a sample too: their part of the variance does not fall with the number of seeds, and no seed's residual shows
it. It comes from a bootstrap over images. The half-widths of both, Student's t times the seeds' standard error and a
normal quantile times the images', are added in squares (MOVER: Zou and Donner 2008, Statistics in Medicine 27); p is
the level at which the interval ends at 0. P-values of all comparisons are corrected by Holm's method (1979).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Difference:
    """A variant against the baseline; `ci95` is not corrected for the number of comparisons, `p_holm` is."""

    mean: float
    ci95: tuple[float, float]
    p: float
    p_holm: float
    per_seed: tuple[float, ...]


def compare(scores: NDArray[np.float64], baseline: int, resampled: NDArray[np.float64]) -> list[Difference | None]:
    """Differences of each row of `scores` (variants, seeds) from the baseline's row; None for itself.

    `resampled` (variants, resamples) are the means over seeds on the same resamples of the images. Needs at least two
    variants and two seeds.
    """
    variants, seeds = scores.shape
    if variants < 2 or seeds < 2:
        raise ValueError(f"scores of shape {scores.shape}: at least two variants and two seeds are needed")
    from scipy.stats import norm, t  # noqa: PLC0415  (a second to import)

    residual = scores - scores.mean(1, keepdims=True) - scores.mean(0, keepdims=True) + scores.mean()
    freedom = (variants - 1) * (seeds - 1)
    error = np.sqrt((residual**2).sum() / freedom * 2 / seeds)
    differences = scores - scores[baseline]
    means = differences.mean(1)
    images = (resampled - resampled[baseline]).std(1, ddof=1)

    def half_width(level: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.hypot(t.isf(level / 2, freedom) * error, norm.isf(level / 2) * images))

    p, half = _level_at(half_width, np.abs(means)), half_width(np.full(variants, 0.05))
    others = [i for i in range(variants) if i != baseline]
    corrected = dict(zip(others, holm(p[others]), strict=True))
    return [
        None
        if i == baseline
        else Difference(
            float(means[i]),
            (float(means[i] - half[i]), float(means[i] + half[i])),
            float(p[i]),
            float(corrected[i]),
            tuple(differences[i].tolist()),
        )
        for i in range(variants)
    ]


def _level_at(
    half_width: Callable[[NDArray[np.float64]], NDArray[np.float64]], sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The levels (n,) at which half-widths are `sizes`, by bisection of log levels; half-widths fall as levels rise."""
    low, high = np.full(len(sizes), np.log(1e-12)), np.zeros(len(sizes))
    for _ in range(60):
        middle = (low + high) / 2
        wide = half_width(np.exp(middle)) > sizes
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    return np.where(sizes == 0, 1.0, np.exp((low + high) / 2))


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's step-down correction of p-values (n,)."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty_like(stepped)
    out[order] = np.minimum(stepped, 1.0)
    return out
