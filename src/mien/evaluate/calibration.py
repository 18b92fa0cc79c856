"""Temperature scaling by NLL, its sweep for the figure, the abstention threshold, and alarms.

Guo et al. 2017, arXiv 1706.04599, section 4. Fitters take `FitRows` only, which test rows never are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from mien.core.artifacts.predictions import FitRows
from mien.core.errors import CalibrationError
from mien.evaluate.metrics import Floats, Ints, confusion, ece, f1_scores, log_softmax, softmax

RANGE = (0.05, 20.0)
_EDGE = 1e-3  # of the range in log T: an optimum this close to an end is an edge


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature with its bootstrap interval."""

    value: float
    ci95: tuple[float, float]


def at_edge(temperature: float) -> bool:
    """Whether a temperature lies on an edge of `RANGE`, which means that it was not found."""
    low, high = np.log(RANGE)
    return not low + _EDGE < np.log(temperature) < high - _EDGE


def nll_at(temperature: float, logits: Floats, labels: Ints, weights: Floats | None = None) -> float:
    """Mean NLL of softmax(logits / T)."""
    picked = log_softmax(logits / temperature)[np.arange(len(labels)), labels]
    return float(-np.average(picked, weights=weights))


def _best(logits: Floats, labels: Ints, weights: Floats | None = None) -> float:
    low, high = np.log(RANGE)
    done = minimize_scalar(
        lambda x: nll_at(np.exp(x), logits, labels, weights),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(done.x))


def fit_temperature(rows: FitRows, *, resamples: int = 200, seed: int = 0) -> Temperature:
    """The T that minimises NLL over log T in `RANGE`; an optimum on an edge is an error.

    NLL is convex in 1/T, so the minimum is the only one.
    """
    if not isinstance(rows, FitRows):
        raise TypeError(f"fit_temperature takes FitRows, not {type(rows).__name__}: test rows may not be fitted on")
    value = _best(rows.logits, rows.labels)
    if at_edge(value):
        raise CalibrationError(
            f"The best temperature lies on the edge of its range, at T = {value:.4g}.",
            rule=f"An optimum on an edge of [{RANGE[0]}, {RANGE[1]}] means: not found.",
            fix="Look at the logits: all right, all wrong, without their scale, or of a model that has learned nothing yet (train longer).",
        )
    check_direction(rows.logits)
    rng = np.random.default_rng(seed)
    n = len(rows)
    drawn = [
        _best(rows.logits, rows.labels, np.bincount(rng.integers(0, n, n), minlength=n).astype(float))
        for _ in range(resamples)
    ]
    low_t, high_t = np.quantile(drawn, [0.025, 0.975]) if drawn else (value, value)
    return Temperature(value, (float(low_t), float(high_t)))


def check_direction(logits: Floats, *, temperatures: tuple[float, ...] = (0.5, 1.0, 2.0)) -> None:
    """Mean confidence of one model's logits falls as T rises; anything else means broken logits."""
    means = [float(softmax(logits / t).max(1).mean()) for t in temperatures]
    check_falling(temperatures, means)


def check_falling(temperatures: tuple[float, ...], mean_confidence: list[float]) -> None:
    """Raise `CalibrationError` when mean confidence rises with T (impossible for one set of logits)."""
    for (t0, c0), (t1, c1) in zip(
        zip(temperatures[:-1], mean_confidence[:-1], strict=True),
        zip(temperatures[1:], mean_confidence[1:], strict=True),
        strict=True,
    ):
        if c1 > c0 + 1e-9:
            raise CalibrationError(
                f"Mean confidence rises from {c0:.4f} at T = {t0} to {c1:.4f} at T = {t1}.",
                rule="For the logits of one model it can only fall.",
                fix="The rows come from different logits, or a scale was applied to some of them.",
            )


def sweep(logits: Floats, labels: Ints, temperatures: Floats) -> dict[str, list[float]]:
    """NLL, ECE, macro-F1 and mean confidence over temperatures, for the figure only."""
    out: dict[str, list[float]] = {"temperature": [], "nll": [], "ece": [], "macro_f1": [], "mean_confidence": []}
    for t in temperatures:
        p = softmax(logits / t)
        out["temperature"].append(float(t))
        out["nll"].append(nll_at(float(t), logits, labels))
        out["ece"].append(ece(p, labels))
        out["macro_f1"].append(float(f1_scores(confusion(labels, p.argmax(1), p.shape[1])).mean()))
        out["mean_confidence"].append(float(p.max(1).mean()))
    return out


def threshold_for_coverage(rows: FitRows, temperature: float, coverage: float) -> float:
    """The confidence below which nothing is answered, so that `coverage` of the rows are.

    A split-sample quantile; Geifman & El-Yaniv 2017, arXiv 1705.08500, for selective classification.
    """
    if not isinstance(rows, FitRows):
        raise TypeError(f"threshold_for_coverage takes FitRows, not {type(rows).__name__}")
    confidence = softmax(rows.logits / temperature).max(1)
    return float(np.quantile(confidence, 1 - coverage)) if coverage < 1 else 0.0
