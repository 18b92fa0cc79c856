"""Temperature scaling by NLL, the report's sweep, and alarms.

Guo et al. 2017, arXiv 1706.04599, section 4. Fitters take `CalibrationRows` only, which test rows never are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mien.core.artifacts.calibration_rows import CalibrationRows, require
from mien.core.errors import CalibrationError, TemperatureNotFound
from mien.evaluate.bootstrap import group_numbers, group_sums
from mien.evaluate.calibration_error import BINS, Floats, Ints, ece
from mien.evaluate.metrics import confusion, f1_scores, log_softmax, row_sum, softmax

RANGE = (0.05, 20.0)
_EDGE = 1e-3  # of the range in log T: an optimum this close to an end is an edge
SWEEP = (0.8, 1.2, 0.02)  # the report's


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature with its bootstrap interval."""

    value: float
    ci95: tuple[float, float]


def at_edge(temperature: float) -> bool:
    """Whether a temperature lies on an edge of `RANGE`, which means that it was not found."""
    low, high = np.log(RANGE)
    return not low + _EDGE < np.log(temperature) < high - _EDGE


def nll_at(temperature: float, logits: Floats, labels: Ints) -> float:
    """Mean NLL of softmax(logits / T)."""
    return float(-log_softmax(logits / temperature)[np.arange(len(labels)), labels].mean())


def _slopes(beta: float, logits: Floats, label_logits: Floats) -> tuple[Floats, Floats]:
    """First and second derivative of each row's NLL by beta = 1/T: mean and variance of the logits under softmax."""
    weighted = softmax(beta * logits) * logits
    mean = row_sum(weighted)
    return mean - label_logits, row_sum(weighted * logits) - mean**2


def _root(logits: Floats, label_logits: Floats) -> float:
    """The beta at which the NLL is least: Newton on log beta inside a bracket; NLL is convex in beta."""
    low, high = -np.log(RANGE[1]), -np.log(RANGE[0])
    x = 0.0
    for _ in range(60):
        beta = np.exp(x)
        slope, curve = (float(v.mean()) for v in _slopes(beta, logits, label_logits))
        low, high = (x, high) if slope < 0 else (low, x)
        step = x - slope / max(curve * beta, 1e-300)
        before, x = x, step if low < step < high else (low + high) / 2
        if abs(x - before) < 1e-10 or high - low < 1e-10:
            break
    return float(np.exp(x))


def minimum(logits: Floats, labels: Ints) -> float:
    """The T in `RANGE` at which the NLL is least, without checks: for searches that need it at every step."""
    centred = logits - logits.mean(1, keepdims=True)
    return 1 / _root(centred, centred[np.arange(len(labels)), labels])


def fit_temperature(rows: CalibrationRows, *, resamples: int = 200, seed: int = 0) -> Temperature:
    """The T that minimises NLL over log T in `RANGE`; an optimum on an edge is an error.

    NLL is convex in 1/T, so the minimum is the only one. The interval is the percentiles of a bootstrap over groups.
    """
    require(rows, "fit_temperature")
    logits = rows.logits - rows.logits.mean(1, keepdims=True)
    label_logits = logits[np.arange(len(rows)), rows.labels]
    beta = _root(logits, label_logits)
    if at_edge(1 / beta):
        raise TemperatureNotFound(
            f"The best temperature lies on the edge of its range, at T = {1 / beta:.4g}.",
            rule=f"An optimum on an edge of [{RANGE[0]}, {RANGE[1]}] means: not found.",
            fix=(
                "Look at the logits: all right, all wrong, without their scale, or of a model that has learned nothing "
                "yet (train longer)."
            ),
        )
    check_direction(rows.logits)
    if not resamples:
        return Temperature(1 / beta, (1 / beta, 1 / beta))
    betas = _bootstrap(beta, logits, label_logits, group_numbers(rows.groups, len(rows)), resamples, seed)
    low, high = np.quantile(1 / betas, [0.025, 0.975])
    return Temperature(1 / beta, (float(low), float(high)))


def _bootstrap(beta: float, logits: Floats, label_logits: Floats, group: Ints, resamples: int, seed: int) -> Floats:
    """Betas of resamples: a resample's slope is a weighted sum of rows' slopes, which rise with beta; it is
    interpolated between nodes a standard error apart."""
    slope, curve = _slopes(beta, logits, label_logits)
    error = float(np.sqrt((slope**2).sum()) / max(curve.sum() * beta, 1e-300))  # of log beta
    spread = np.clip(error * np.linspace(-4.5, 4.5, 10), *(-np.log(RANGE[::-1]) - np.log(beta)))
    nodes = np.unique(beta * np.exp(spread))
    if len(nodes) < 2:
        return np.full(resamples, beta)
    slopes = group_sums(np.column_stack([_slopes(b, logits, label_logits)[0] for b in nodes]), group)
    n = len(slopes)
    rng = np.random.default_rng(seed)
    drawn = (np.bincount(rng.integers(0, n, n), minlength=n) @ slopes for _ in range(resamples))
    return np.array([np.interp(0.0, np.maximum.accumulate(values), nodes) for values in drawn])


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


def sweep(logits: Floats, labels: Ints, temperatures: Floats, *, bins: int = BINS) -> dict[str, list[float]]:
    """NLL, ECE (`bins` equal bins), Brier score, macro-F1 and mean confidence of softmax(logits / T) for each T."""
    names = ("temperature", "nll", "ece", "brier", "macro_f1", "mean_confidence")
    out: dict[str, list[float]] = {name: [] for name in names}
    hot = np.eye(logits.shape[1])[labels]
    for t in temperatures:
        p = softmax(logits / t)
        out["temperature"].append(float(t))
        out["nll"].append(nll_at(float(t), logits, labels))
        out["ece"].append(ece(p, labels, bins))
        out["brier"].append(float(((p - hot) ** 2).sum(1).mean()))
        out["macro_f1"].append(float(f1_scores(confusion(labels, p.argmax(1), p.shape[1])).mean()))
        out["mean_confidence"].append(float(p.max(1).mean()))
    return out


def fit_by_sweep(
    rows: CalibrationRows, low: float = SWEEP[0], high: float = SWEEP[1], step: float = SWEEP[2]
) -> Temperature:
    """The best T of a grid by NLL, then ECE, then macro-F1, as the report chose; an edge is an error.

    For comparison with results that were made this way: `fit_temperature` finds T wherever it lies.
    """
    require(rows, "fit_by_sweep")
    grid = np.linspace(low, high, round((high - low) / step) + 1)
    curves = sweep(rows.logits, rows.labels, grid)
    check_falling(tuple(curves["temperature"]), curves["mean_confidence"])
    order = [
        (round(n, 6), round(e, 6), -f) for n, e, f in zip(curves["nll"], curves["ece"], curves["macro_f1"], strict=True)
    ]
    best = min(range(len(grid)), key=lambda i: order[i])
    value = float(grid[best])
    if best in (0, len(grid) - 1):
        raise CalibrationError(
            f"The sweep from {low:g} to {high:g} is best at its edge, T = {value:g}.",
            rule="An optimum on an edge was not found: the best T lies there or beyond.",
            fix="Fit it instead (`--method temperature`), or widen the sweep.",
        )
    return Temperature(value, (value, value))
