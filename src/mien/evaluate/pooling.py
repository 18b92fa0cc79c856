"""Joining models: probability and logit pools, weights on calib, one temperature after averaging.

Calibrating after averaging is what keeps a pool calibrated (Rahaman & Thiery, arXiv 2007.08792).
Weights must beat equal weights on held-out folds of calib, or equal weights are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import minimize

from mien.core.artifacts.predictions import FitRows
from mien.core.errors import InputError
from mien.evaluate.calibration import Temperature, fit_temperature
from mien.evaluate.metrics import FLOOR, Floats, log_softmax, nll_rows, softmax

Pool = Literal["probability", "logit"]


def pooled_logits(members: list[Floats], weights: Floats, temperatures: list[float], pool: Pool) -> Floats:
    """Logits (n, k) of the pool: log of the weighted mean probability, or the weighted mean logit.

    `members` are logits (n, k) each, divided by their own temperatures first.
    """
    if len(members) != len(weights) or len(members) != len(temperatures):
        raise InputError(f"{len(members)} members, {len(weights)} weights, {len(temperatures)} temperatures.")
    if np.min(weights) < 0 or abs(float(np.sum(weights)) - 1) > 1e-6:
        raise InputError(f"Weights {np.round(weights, 4).tolist()}.", rule="Weights are not negative and sum to 1.")
    scaled = [z / t for z, t in zip(members, temperatures, strict=True)]
    if pool == "probability":
        mean = sum(w * softmax(z) for w, z in zip(weights, scaled, strict=True))
        return np.asarray(np.log(np.maximum(mean, FLOOR)))
    mean = sum(w * log_softmax(z) for w, z in zip(weights, scaled, strict=True))
    return np.asarray(mean)


def _fit_weights(
    members: list[Floats], labels: np.ndarray[tuple[int], np.dtype[np.int64]], temperatures: list[float], pool: Pool
) -> Floats:
    """Weights on the simplex and a free temperature that minimise NLL, started from equal weights."""
    k = len(members)
    scaled = np.stack([log_softmax(z / t) for z, t in zip(members, temperatures, strict=True)])
    probabilities = np.exp(scaled)
    rows = np.arange(len(labels))

    def loss(x: Floats) -> float:
        w, t = np.clip(x[:k], 0, None), float(np.exp(x[k]))
        w = w / max(w.sum(), 1e-9)
        values = probabilities if pool == "probability" else scaled
        mean = np.einsum("m,mnk->nk", w, values)
        logits = np.log(np.maximum(mean, FLOOR)) if pool == "probability" else mean
        return float(-log_softmax(logits / t)[rows, labels].mean())

    start = np.append(np.full(k, 1 / k), 0.0)
    bounds = [(0.0, 1.0)] * k + [(-2.0, 2.0)]
    done = minimize(
        loss,
        start,
        method="SLSQP",
        bounds=bounds,
        constraints={"type": "eq", "fun": lambda x: x[:k].sum() - 1},
        options={"maxiter": 60, "ftol": 1e-7},
    )
    weights = np.clip(done.x[:k], 0, None)
    return np.asarray(weights / weights.sum())


@dataclass(frozen=True)
class Fitted:
    """How a pool is joined, and why."""

    pool: Pool
    weights: Floats
    weighting: Literal["single", "equal", "fitted"]
    temperature: Temperature
    heldout_gain: float
    heldout_se: float
    why: str


def fit_pool(members: list[FitRows], temperatures: list[float], pool: Pool, *, folds: int = 5, seed: int = 0) -> Fitted:
    """Choose equal or fitted weights by cross-validated NLL on calib, then fit the final temperature.

    `members` are the same rows seen by each model. Fitted weights are used only when their held-out
    NLL is better than that of equal weights by more than 1.645 standard errors of the paired
    difference (one-sided 5 %).
    """
    logits, labels = [m.logits for m in members], members[0].labels
    if any(not np.array_equal(m.labels, labels) for m in members):
        raise InputError("Members were given on different rows.", rule="All members predict the same pictures.")
    k = len(members)
    equal = np.full(k, 1 / k)
    if k == 1:
        final = fit_temperature(members[0].with_logits(pooled_logits(logits, equal, temperatures, pool)), seed=seed)
        return Fitted(pool, equal, "single", final, 0.0, 0.0, "one member")
    fold = np.random.default_rng(seed).permutation(len(labels)) % folds
    gain = np.empty(len(labels))
    for f in range(folds):
        inside, outside = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        weights = _fit_weights([z[inside] for z in logits], labels[inside], temperatures, pool)
        losses = []
        for w in (equal, weights):
            z = pooled_logits(logits, w, temperatures, pool)
            t = fit_temperature(members[0].take(inside, z), resamples=0).value
            losses.append(nll_rows(softmax(z[outside] / t), labels[outside]))
        gain[outside] = losses[0] - losses[1]
    mean, se = float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))
    fitted = mean > 1.645 * se
    weights = _fit_weights(logits, labels, temperatures, pool) if fitted else equal
    final = fit_temperature(members[0].with_logits(pooled_logits(logits, weights, temperatures, pool)), seed=seed)
    why = f"fitted weights {'beat' if fitted else 'do not beat'} equal ones on held-out folds: NLL better by {mean:.4f} ± {se:.4f}"
    return Fitted(pool, weights, "fitted" if fitted else "equal", final, mean, se, why)
