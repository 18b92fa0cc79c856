"""Searches for the weights of a pool on calib rows: likelihood, grid, greedy; and stacking, their rival.

`logs` are members' log-probabilities, each (n, k), after their own temperatures. A pool has one nuisance
temperature beside its weights, since averaging changes how sharp probabilities are.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Literal

import numpy as np

from mien.core.errors import InputError
from mien.evaluate.calibration_error import Floats, Ints
from mien.evaluate.metrics import FLOOR, confusion, f1_scores, log_softmax, row_sum, softmax
from mien.evaluate.scaling import fit_multinomial
from mien.evaluate.temperature import minimum

Pool = Literal["probability", "logit"]
Search = Literal["nll", "grid", "greedy"]
MOST_GRID_POINTS = 1001


def combine(logs: Floats, weights: Floats, pool: Pool) -> Floats:
    """Logits (n, k) of a pool of log-probabilities (m, n, k): weighted mean logits, or logs of mean probabilities."""
    return _joined(np.exp(logs) if pool == "probability" else logs, weights, pool)


def _joined(values: Floats, weights: Floats, pool: Pool) -> Floats:
    """`combine` of what is averaged: probabilities, or logits."""
    mean = np.asarray(np.tensordot(weights, values, 1))
    return mean if pool == "logit" else np.asarray(np.log(np.maximum(mean, FLOOR)))


def _nll(logits: Floats, labels: Ints, temperature: float = 1.0) -> float:
    return float(-log_softmax(logits / temperature)[np.arange(len(labels)), labels].mean())


def search_nll(
    logs: Floats, labels: Ints, pool: Pool, *, start: Floats | None = None, tolerance: float = 1e-2
) -> Floats:
    """Weights (m,) that with a nuisance temperature minimise NLL, by Fisher scoring.

    Weights are a softmax of free numbers, drawn towards equal ones by a ridge worth one image in four.
    Stops when another step would gain less than `tolerance` of log-likelihood in all; noise is about one.
    """
    m, n, k = logs.shape
    probabilities, target = np.exp(logs) if pool == "probability" else logs, np.eye(k)[labels]
    ridge = np.append(np.full(m, 0.25 / n), 1e-9)
    x = np.zeros(m + 1) if start is None else np.append(np.log(np.maximum(start, 1e-6)), 0.0)

    def slopes(point: Floats) -> tuple[float, Floats, Floats]:
        weights, beta = softmax(point[None, :m])[0], float(np.exp(np.clip(point[m], -3, 3)))
        z, parts = _slopes(logs, probabilities, weights, beta, pool)
        u = softmax(beta * z)
        loss = _nll(z, labels, float(1 / beta)) + 0.5 * float((ridge * point**2).sum())
        gradient = np.tensordot(parts, u - target, 2) / n + ridge * point
        return loss, gradient, _fisher(parts, u) + np.diag(ridge)

    value, gradient, fisher = slopes(x)
    damping = 1e-8
    for _ in range(60):
        step = np.linalg.solve(fisher + damping * np.eye(m + 1), gradient)
        if n * float(gradient @ step) < tolerance:
            break
        tried = slopes(x - step)
        if tried[0] < value:
            x, (value, gradient, fisher), damping = x - step, tried, damping / 10
        elif damping > 1e3:
            break
        else:
            damping = max(damping * 30, 1e-4)
    return np.asarray(softmax(x[None, :m])[0])


def _slopes(logs: Floats, values: Floats, weights: Floats, beta: float, pool: Pool) -> tuple[Floats, Floats]:
    """A pool's logits z (n, k), and the slopes (m + 1, n, k) of beta * z over the logarithm of each weight and of beta.

    `values` are what is averaged: probabilities, or `logs` themselves.
    """
    m, n, k = logs.shape
    z, parts = _joined(values, weights, pool), np.empty((m + 1, n, k))
    mean = np.exp(z) if pool == "probability" else z
    for j in range(m):
        inner = values[j] / mean - 1 if pool == "probability" else logs[j] - z
        parts[j] = beta * weights[j] * inner
    parts[m] = beta * z
    return z, parts


def _fisher(parts: Floats, u: Floats) -> Floats:
    """Expected information a row, (m + 1, m + 1); centres `parts` in place."""
    for j in range(len(parts)):
        parts[j] -= row_sum(u * parts[j])[:, None]
    flat = (parts * np.sqrt(u)).reshape(len(parts), -1)
    return np.asarray(flat @ flat.T / parts.shape[1])


def equal_weights_p(logs: Floats, labels: Ints, pool: Pool) -> float:
    """p of the hypothesis that no other weights have a higher expected likelihood, the temperature being free.

    Rao's score test with the variance that the rows show, so that it holds for models that are wrong too (White 1982,
    Econometrica 50, section 4): members may be over-confident on some rows. Chi-squared with m - 1 degrees of freedom,
    fewer where members are copies of each other.
    """
    from scipy.special import chdtrc  # noqa: PLC0415  (a tenth of a second to import)

    m, n, k = logs.shape
    equal = np.full(m, 1 / m)
    beta = 1 / minimum(combine(logs, equal, pool), labels)
    z, parts = _slopes(logs, np.exp(logs) if pool == "probability" else logs, equal, beta, pool)
    u = softmax(beta * z)
    scores = np.einsum("jnk,nk->jn", parts, u - np.eye(k)[labels])
    information = _fisher(parts, u)
    scores = scores[: m - 1] - np.outer(information[: m - 1, m] / max(float(information[m, m]), 1e-12), scores[m])
    total, spread = scores.sum(1), scores @ scores.T - np.outer(scores.sum(1), scores.sum(1)) / n
    size, axes = np.linalg.eigh(spread)
    kept = size > 1e-9 * max(float(size.max(initial=0)), 1e-9)
    if not kept.any():
        return 1.0
    return float(chdtrc(int(kept.sum()), float(((axes[:, kept].T @ total) ** 2 / size[kept]).sum())))


def simplex(members: int, step: float = 0.1) -> Floats:
    """All weights (points, m) in multiples of `step`, coarser where they would be more than `MOST_GRID_POINTS`."""
    for parts in range(round(1 / step), 0, -1):
        points = list(combinations(range(parts + members - 1), members - 1))
        if len(points) <= MOST_GRID_POINTS:
            break
    bars = np.array([(-1, *point, parts + members - 1) for point in points])
    return np.asarray((np.diff(bars, axis=1) - 1) / parts)


def search_grid(logs: Floats, labels: Ints, pool: Pool, *, step: float = 0.1) -> Floats:
    """The grid point with the highest macro-F1, as the report chose; among ties the nearest to equal weights."""
    k = logs.shape[2]
    values = np.exp(logs) if pool == "probability" else logs

    def score(weights: Floats) -> tuple[float, float]:
        predicted = np.tensordot(weights, values, 1).argmax(1)
        return float(f1_scores(confusion(labels, predicted, k)).mean()), -float((weights**2).sum())

    return np.asarray(max(simplex(len(logs), step), key=score))


def search_greedy(logs: Floats, labels: Ints, pool: Pool, *, rounds: int = 30) -> Floats:
    """Add the member that lowers NLL most, with replacement, until none does (Caruana et al. 2004, section 2.1)."""
    m = len(logs)
    counts, best = np.zeros(m), np.inf
    for _ in range(rounds):
        losses = []
        for j in range(m):
            z = combine(logs, (counts + np.eye(m)[j]) / (counts.sum() + 1), pool)
            losses.append(_nll(z, labels, minimum(z, labels)))
        if min(losses) >= best - 1e-7:
            break
        best = min(losses)
        counts[int(np.argmin(losses))] += 1
    return np.asarray(counts / counts.sum())


SEARCHES: dict[Search, Callable[[Floats, Ints, Pool], Floats]] = {
    "nll": search_nll,
    "grid": search_grid,
    "greedy": search_greedy,
}


def stack(logs: Floats, labels: Ints, penalty: float = 1e-2) -> Callable[[Floats], Floats]:
    """Stacking: a multinomial regression on all members' log-probabilities (Wolpert 1992; Breiman 1996).

    The ridge draws it to the logit pool with equal weights. Returns a function from `logs` to logits.
    """
    m, _, k = logs.shape
    if not len(labels):
        raise InputError("No rows to stack on.")
    start = np.column_stack([np.tile(np.eye(k) / m, m), np.zeros(k)])
    design = _design(logs)
    coefficients = fit_multinomial(
        design, labels, start, np.full(start.shape, penalty), np.ones(start.shape, dtype=bool)
    )
    return lambda other: np.asarray(_design(other) @ coefficients.T)


def _design(logs: Floats) -> Floats:
    m, n, k = logs.shape
    return np.column_stack([logs.transpose(1, 0, 2).reshape(n, m * k), np.ones(n)])
