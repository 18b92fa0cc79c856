"""Comparing variants that were run with the same seeds: paired differences and their significance.

Runs form a randomised complete block design: variants are treatments, seeds are blocks. A variant's
difference from the baseline is the mean over seeds of paired differences; its standard error comes
from the residual variance of all runs after removing variants' and seeds' means (two-way analysis of
variance; e.g. Montgomery, Design and Analysis of Experiments, section 4.1), which three seeds of a
single pair could not tell. P-values of all comparisons are corrected by Holm's method (1979).
"""

from __future__ import annotations

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


def compare(scores: NDArray[np.float64], baseline: int) -> list[Difference | None]:
    """Differences of each row of `scores` (variants, seeds) from the baseline's row; None for itself.

    Needs at least two variants and two seeds.
    """
    variants, seeds = scores.shape
    if variants < 2 or seeds < 2:
        raise ValueError(f"scores of shape {scores.shape}: at least two variants and two seeds are needed")
    from scipy.stats import t  # noqa: PLC0415  (a second to import)

    residual = scores - scores.mean(1, keepdims=True) - scores.mean(0, keepdims=True) + scores.mean()
    freedom = (variants - 1) * (seeds - 1)
    error = np.sqrt((residual**2).sum() / freedom * 2 / seeds)
    differences = scores - scores[baseline]
    means = differences.mean(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(means == 0, 1.0, 2 * t.sf(np.abs(means) / error, freedom))
    half = t.ppf(0.975, freedom) * error
    others = [i for i in range(variants) if i != baseline]
    corrected = dict(zip(others, holm(p[others]), strict=True))
    return [
        None if i == baseline
        else Difference(float(means[i]), (float(means[i] - half), float(means[i] + half)), float(p[i]), float(corrected[i]), tuple(differences[i].tolist()))
        for i in range(variants)
    ]  # fmt: skip


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's step-down correction of p-values (n,)."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty_like(stepped)
    out[order] = np.minimum(stepped, 1.0)
    return out
