"""Joining models: probability and logit pools, weights that must beat equal ones, one temperature after averaging.

Calibrating after averaging is what keeps a pool calibrated (Rahaman & Thiery, arXiv 2007.08792). Weights are
searched and the temperature is fitted on another part of calib than the members' own maps, which look better
calibrated on the rows that they were fitted on than they are; the temperature sees each row under weights that
were searched without it (cross-fitting). A search must beat equal weights on held-out folds and by a score
test, or equal weights are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np

from mien.core.artifacts.calibration_rows import CalibrationRows, require
from mien.core.artifacts.ensemble import Diversity, Ensemble
from mien.core.errors import InputError, TemperatureNotFound
from mien.evaluate.calibration_error import Floats, Ints
from mien.evaluate.metrics import log_softmax, nll_rows, softmax
from mien.evaluate.scaling import Scaling, check_folds, spread_folds
from mien.evaluate.temperature import RANGE, Temperature, fit_temperature, minimum
from mien.evaluate.weights import SEARCHES, Pool, Search, combine, equal_weights_p, search_nll, stack

POOLS: tuple[Pool, ...] = ("probability", "logit")
LEVEL = 0.1  # of the test that weights are equal; about what AIC would let pass with three members
UNCHANGED = Temperature(1.0, RANGE)
"""The temperature of a pool for which none is found: its members are calibrated already."""
NOT_FOUND = (
    "temperature_not_found: the pool's best temperature lies on an edge of its range, as where members have learned "
    "nothing; it stays 1, and the members' own calibrations hold"
)
STACKING_PENALTIES = (1e-3, 1e-2, 1e-1)


def pooled_logits(members: Sequence[Floats], weights: Floats, temperatures: Sequence[float], pool: Pool) -> Floats:
    """Logits (n, k) of the pool: log of the weighted mean probability, or the weighted mean logit.

    `members` are logits (n, k) each, divided by their own temperatures first.
    """
    if len(members) != len(weights) or len(members) != len(temperatures):
        raise InputError(f"{len(members)} members, {len(weights)} weights, {len(temperatures)} temperatures.")
    if np.min(weights) < 0 or abs(float(np.sum(weights)) - 1) > 1e-6:
        raise InputError(f"Weights {np.round(weights, 4).tolist()}.", rule="Weights are not negative and sum to 1.")
    return combine(tempered(members, temperatures), np.asarray(weights), pool)


def ensemble_logits(members: Sequence[Floats], ensemble: Ensemble) -> Floats:
    """Logits (n, 7) of an ensemble from its members' logits (n, 7) each, in its order.

    Every member is calibrated by itself; the final temperature is not applied.
    """
    maps = [Scaling("dirichlet", np.array(m.matrix), np.array(m.bias)) for m in ensemble.members]
    calibrated = [scaling.apply(logits) for scaling, logits in zip(maps, members, strict=True)]
    return pooled_logits(calibrated, ensemble.weights, [1.0] * len(calibrated), ensemble.pool)


def tempered(members: Sequence[Floats], temperatures: Sequence[float]) -> Floats:
    """Members' log-probabilities (m, n, k) at their own temperatures."""
    return np.stack([log_softmax(z / t) for z, t in zip(members, temperatures, strict=True)])


@dataclass(frozen=True)
class Fitted:
    """How a pool is joined, and why. `heldout` is each candidate's gain in NLL over equal weights: (mean, se)."""

    pool: Pool
    weights: Floats
    weighting: Literal["single", "equal", "nll", "grid", "greedy", "fixed"]
    temperature: Temperature
    heldout: dict[str, tuple[float, float]] = field(default_factory=dict)
    why: str = ""

    @property
    def warnings(self) -> list[str]:
        """That no temperature was found."""
        return [NOT_FOUND] if self.temperature == UNCHANGED else []


def fit_pool(
    members: Sequence[CalibrationRows],
    temperatures: Sequence[float],
    pool: Pool,
    *,
    searches: Sequence[Search] = ("nll",),
    folds: int = 5,
    resamples: int = 200,
    seed: int = 0,
    fixed: Floats | None = None,
) -> Fitted:
    """Choose equal or searched weights on calib's part for weights; cross-fit the pool's temperature there.

    `members` are the same calib rows seen by each model, in whole. The searches' weights compete with equal
    ones in held-out NLL (nested cross-validation, temperatures fitted inside the folds too); the best search is
    used only when it is better there, and when `equal_weights_p` rejects equal weights. A lead of many standard
    errors on the folds alone would ask for twice the evidence that the rows hold, since single rows are noisy
    (docs/decisions/0012). Weights that are `fixed` (m,) are taken as they are, and only the temperature is fitted.
    A pool for which none is found keeps 1 (`UNCHANGED`).
    """
    _check(members)
    check_folds(folds)
    if pool not in POOLS or set(searches) - set(SEARCHES):
        raise InputError(
            f"Pool {pool!r} with searches {list(searches)}.",
            rule=f"Pools: {', '.join(POOLS)}; searches: {', '.join(SEARCHES)}.",
        )
    m = len(members)
    equal = np.full(m, 1 / m)
    part, logs = _weights_part(members, temperatures)
    labels = part.labels

    def final(logits: Floats) -> Temperature:
        try:
            return fit_temperature(part.with_logits(logits), resamples=resamples, seed=seed)
        except TemperatureNotFound:
            return UNCHANGED

    alike = combine(logs, equal, pool)
    if m == 1:
        return Fitted(pool, equal, "single", final(alike), why="one member")
    if fixed is not None:
        return Fitted(pool, fixed, "fixed", final(combine(logs, fixed, pool)), why="weights as they were given")
    searched = {name: SEARCHES[name](logs, labels, pool) for name in searches}
    if not searched:
        return Fitted(pool, equal, "equal", final(alike), why="equal weights, no search was asked for")
    fold = spread_folds(labels, folds, seed, part.groups)
    heldout = _heldout_pools(logs, labels, pool, searched, fold)
    gains = heldout_gains(heldout, labels)
    best = max(searched, key=lambda name: gains[name][0])
    mean, se = gains[best]
    p = equal_weights_p(logs, labels, pool) if mean > 0 else None
    chosen: Search | None = best if p is not None and p < LEVEL else None
    weights = searched[chosen] if chosen else equal
    why = (
        f"weights by {best} {'beat' if chosen else 'do not beat'} equal ones: they change NLL on held-out folds by "
        f"{-mean:+.4f} ± {se:.4f}"
    )
    why += "" if p is None else f", score test of equal weights p = {p:.2g}"
    return Fitted(pool, weights, chosen or "equal", final(heldout[chosen][0] if chosen else alike), gains, why)


def _check(members: Sequence[CalibrationRows]) -> None:
    for rows in members:
        require(rows, "fit_pool")
    if not members:
        raise InputError("No member was given.", rule="A pool has at least one.")
    first = members[0]
    same = [all(np.array_equal(getattr(m, k), getattr(first, k)) for k in ("labels", "ids", "groups")) for m in members]
    if not all(same):
        raise InputError(
            "Members were given on different rows.", rule="All members predict the same images, in one order."
        )


def _weights_part(members: Sequence[CalibrationRows], temperatures: Sequence[float]) -> tuple[CalibrationRows, Floats]:
    parts = [rows.part("weights") for rows in members]
    return parts[0], tempered([rows.logits for rows in parts], temperatures)


def _heldout_pools(
    logs: Floats, labels: Ints, pool: Pool, starts: dict[Search, Floats], fold: Ints
) -> dict[str, tuple[Floats, Floats]]:
    """For equal weights and each search: the pool's logits (n, k) and temperatures (n,), fitted on the other folds.

    `starts` are the searches' weights on all rows: where the likelihood's search may start in each fold.
    """
    m, n, k = logs.shape
    heldout = {str(name): (np.empty((n, k)), np.empty(n)) for name in ["equal", *starts]}
    for f in np.unique(fold):
        inside, outside = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        inside_logs, inside_labels = logs[:, inside], labels[inside]
        weights: dict[str, Floats] = {"equal": np.full(m, 1 / m)}
        for search, start in starts.items():
            near = search == "nll"  # its optimum in a fold lies near that of all rows
            weights[search] = (
                search_nll(inside_logs, inside_labels, pool, start=start)
                if near
                else SEARCHES[search](inside_logs, inside_labels, pool)
            )
        for name, w in weights.items():
            heldout[name][0][outside] = combine(logs[:, outside], w, pool)
            heldout[name][1][outside] = minimum(combine(inside_logs, w, pool), inside_labels)
    return heldout


def heldout_gains(heldout: dict[str, tuple[Floats, Floats]], labels: Ints) -> dict[str, tuple[float, float]]:
    """Each search's gain in held-out NLL over equal weights (mean and standard error over rows)."""
    losses = {name: nll_rows(softmax(z / t[:, None]), labels) for name, (z, t) in heldout.items()}
    gains = {name: losses["equal"] - losses[name] for name in losses if name != "equal"}
    return {str(n): (float(g.mean()), float(g.std(ddof=1) / np.sqrt(len(g)))) for n, g in gains.items()}


def rivals(
    members: Sequence[CalibrationRows], temperatures: Sequence[float], pool: Pool, *, folds: int = 5, seed: int = 0
) -> dict[str, float]:
    """Held-out NLL, on calib's part for weights, of every way to join all members: each search, equal weights,
    each member alone (the best is `best_single`), and stacking."""
    _check(members)
    part, logs = _weights_part(members, temperatures)
    m, labels = len(logs), part.labels
    ways: dict[str, Callable[[Floats, Ints], Callable[[Floats], Floats]]] = {
        "equal": lambda x, y: _pooler(x, y, np.full(m, 1 / m), pool),
        **{str(n): lambda x, y, s=s: _pooler(x, y, s(x, y, pool), pool) for n, s in SEARCHES.items()},  # type: ignore[misc]
        **{f"single {j}": lambda x, y, j=j: _pooler(x, y, np.eye(m)[j], pool) for j in range(m)},  # type: ignore[misc]
        **{f"stacking {p}": lambda x, y, p=p: stack(x, y, p) for p in STACKING_PENALTIES},  # type: ignore[misc]
    }
    fold = spread_folds(labels, folds, seed, part.groups)
    losses = {name: np.empty(len(labels)) for name in ways}
    for f in range(folds):
        inside, outside = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        for name, fit in ways.items():
            joined = fit(logs[:, inside], labels[inside])
            losses[name][outside] = nll_rows(softmax(joined(logs[:, outside])), labels[outside])
    means = {name: float(values.mean()) for name, values in losses.items()}
    best = {kind: min(v for n, v in means.items() if n.startswith(kind)) for kind in ("single", "stacking")}
    return {name: means[name] for name in ("equal", *SEARCHES)} | {
        "best_single": best["single"],
        "stacking": best["stacking"],
    }


def _pooler(logs: Floats, labels: Ints, weights: Floats, pool: Pool) -> Callable[[Floats], Floats]:
    t = minimum(combine(logs, weights, pool), labels)
    return lambda other: combine(other, weights, pool) / t


def diversity(predicted: dict[str, Ints], labels: Ints) -> list[Diversity]:
    """How the errors of each pair of models differ (Kuncheva and Whitaker 2003, Machine Learning 51, section 2).

    disagreement: share of rows named differently; double_fault: share on which both are wrong; q: Yule's Q of
    being right, 1 where they err on the same rows, 0 where independently.
    """
    rows: list[Diversity] = []
    for a, b in combinations(predicted, 2):
        first, second = predicted[a] == labels, predicted[b] == labels
        n11, n00 = float((first & second).sum()), float((~first & ~second).sum())
        n10, n01 = float((first & ~second).sum()), float((~first & second).sum())
        total = n11 * n00 + n01 * n10
        rows.append(
            {
                "first": a,
                "second": b,
                "disagreement": float((predicted[a] != predicted[b]).mean()),
                "double_fault": n00 / len(labels),
                "q": (n11 * n00 - n01 * n10) / total if total else 0.0,
            }
        )
    return rows
