"""Affine maps of log-probabilities that calibrate: temperature, vector and Dirichlet scaling.

All are softmax(matrix · log_softmax(z) + bias): one over T times the identity (Guo et al. 2017, arXiv
1706.04599), a diagonal and a bias (there, section 4.2, on log-probabilities, so that a constant added to
all logits changes nothing), or a full matrix with a penalty off the diagonal and on the bias (Kull et
al. 2019, arXiv 1910.12656, section 3, ODIR). The richer ones are used only where they pay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.calibration import Calibration
from mien.core.artifacts.calibration_rows import CalibrationRows, require
from mien.core.errors import InputError
from mien.core.labels import LABELS
from mien.evaluate.bootstrap import group_numbers, resampled_many
from mien.evaluate.calibration_error import Floats, Ints
from mien.evaluate.metrics import log_softmax, nll_rows, softmax
from mien.evaluate.temperature import fit_temperature, minimum

Method = Literal["temperature", "vector", "dirichlet", "sweep"]
METHODS: tuple[Method, ...] = ("temperature", "vector", "dirichlet")
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
Z = 2.326  # one-sided 1 %: what a richer map must be better by, in standard errors
LEVEL = 0.05  # one-sided: what its labels may cost
FEWEST_OF_A_CLASS = 10


@dataclass(frozen=True)
class Scaling:
    """A calibrating map: `matrix` (7, 7) and `bias` (7,) on log-probabilities."""

    method: Method
    matrix: Floats
    bias: Floats

    def apply(self, logits: Floats) -> Floats:
        """Calibrated logits (n, 7), whose softmax are the probabilities."""
        return np.asarray(log_softmax(logits) @ self.matrix.T + self.bias)

    def with_prior(self, fitted_on: Floats, target: Floats) -> Scaling:
        """The same for rows with other class shares (Saerens et al. 2002, eq. 2.4)."""
        return Scaling(self.method, self.matrix, self.bias + np.log(target) - np.log(fitted_on))


def by_temperature(temperature: float, method: Method = "temperature") -> Scaling:
    """Temperature scaling as an affine map."""
    k = len(LABELS)
    return Scaling(method, np.eye(k) / temperature, np.zeros(k))


def fit_multinomial(x: Floats, labels: Ints, start: Floats, penalty: Floats, free: NDArray[np.bool_]) -> Floats:
    """Coefficients (k, d) of softmax(x · coefficients.T) that minimise mean NLL and a ridge, by Newton's method.

    `penalty` (k, d) weighs squared distances from `start`; where not `free`, `start` stays.
    """
    (n, d), k = x.shape, start.shape[0]
    index = np.flatnonzero(free.ravel())
    target = np.eye(k)[labels]
    w, ridge = start.copy(), penalty.ravel()[index] + 1e-9

    def loss(c: Floats) -> float:
        fit = -log_softmax(x @ c.T)[np.arange(n), labels].mean()
        return float(fit + 0.5 * (penalty * (c - start) ** 2).sum())

    value = loss(w)
    for _ in range(50):
        p = softmax(x @ w.T)
        gradient = ((p - target).T @ x / n + penalty * (w - start)).ravel()[index]
        hessian = np.empty((k, d, k, d))
        for a in range(k):
            for b in range(a, k):
                weight = p[:, a] * ((a == b) - p[:, b])
                hessian[a, :, b] = hessian[b, :, a] = (x * weight[:, None]).T @ x / n
        square = hessian.reshape(k * d, k * d)[np.ix_(index, index)] + np.diag(ridge)
        step = np.linalg.solve(square, gradient)
        size = 1.0
        while size > 1e-4:
            moved = w.ravel().copy()
            moved[index] -= size * step
            tried = loss(moved.reshape(k, d))
            if tried <= value:
                break
            size /= 2
        else:
            break
        gained, w, value = value - tried, moved.reshape(k, d), tried
        if gained < 1e-10:
            break
    return w


def fit_vector(rows: CalibrationRows, temperature: float | None = None) -> Scaling:
    """A scale and a bias for each class. `temperature`, where it is known, is where the fit starts."""
    require(rows, "fit_vector")
    k = len(LABELS)
    free = np.column_stack([np.eye(k, dtype=bool), np.ones(k, dtype=bool)])
    return _affine("vector", rows, np.full((k, k + 1), 1e-6), free, temperature)


def fit_dirichlet(rows: CalibrationRows, penalty: float = 1e-2, temperature: float | None = None) -> Scaling:
    """A full matrix and a bias; off-diagonal entries and the bias are held near 0 by `penalty`.

    Both act on log-probabilities over T, so that temperature scaling is what a strong penalty leaves.
    """
    require(rows, "fit_dirichlet")
    k = len(LABELS)
    ridge = np.full((k, k + 1), penalty)
    ridge[np.arange(k), np.arange(k)] = 1e-6
    return _affine("dirichlet", rows, ridge, np.ones((k, k + 1), dtype=bool), temperature)


def _affine(
    method: Method, rows: CalibrationRows, penalty: Floats, free: NDArray[np.bool_], temperature: float | None
) -> Scaling:
    k = len(LABELS)
    t = fit_temperature(rows, resamples=0).value if temperature is None else temperature
    x = np.column_stack([log_softmax(rows.logits) / t, np.ones(len(rows))])
    coefficients = fit_multinomial(x, rows.labels, np.column_stack([np.eye(k), np.zeros(k)]), penalty, free)
    return Scaling(method, coefficients[:, :k] / t, coefficients[:, k] - coefficients[:, k].mean())


@dataclass(frozen=True)
class Choice:
    """The map that was chosen, and the held-out NLL of each (mean, and standard error of its gain on temperature)."""

    scaling: Scaling
    heldout: dict[str, dict[str, float]]
    why: str


def choose(
    rows: CalibrationRows, temperature: float, *, methods: tuple[Method, ...] = METHODS, folds: int = 5, seed: int = 0
) -> Choice:
    """The simplest map that no richer one beats significantly in cross-validated NLL on `rows`.

    A richer map changes labels. One whose held-out macro-F1 is significantly lower (paired bootstrap, one-sided 5 %) is
    not taken, whatever its NLL: after class-balanced training the bias that is right for natural class shares names
    rare classes too seldom for it. `temperature` was fitted on the same rows. Needs `FEWEST_OF_A_CLASS` rows of each
    class for the richer maps.
    """
    require(rows, "choose")
    check_folds(folds)
    plain = by_temperature(temperature)
    few = [LABELS[c] for c in range(len(LABELS)) if (rows.labels == c).sum() < FEWEST_OF_A_CLASS]
    rich = [m for m in methods if m in ("vector", "dirichlet")]
    if not rich or few:
        why = f"few_of_a_class: fewer than {FEWEST_OF_A_CLASS} rows of {', '.join(few)}" if few else "temperature alone"
        return Choice(plain, {}, why)
    fold = spread_folds(rows.labels, folds, seed, rows.groups)
    heldout: dict[str, Floats] = {
        "temperature": _heldout(rows, fold, lambda r: by_temperature(minimum(r.logits, r.labels)))
    }
    if "vector" in rich:
        heldout["vector"] = _heldout(rows, fold, lambda r: fit_vector(r, temperature))
    strength = PENALTIES[0]
    if "dirichlet" in rich:
        tried = {p: _heldout(rows, fold, lambda r, p=p: fit_dirichlet(r, p, temperature)) for p in PENALTIES}  # type: ignore[misc]
        strength = min(tried, key=lambda p: nll_rows(tried[p], rows.labels).mean())
        heldout["dirichlet"] = tried[strength]
    losses = {key: nll_rows(p, rows.labels) for key, p in heldout.items()}
    plainest = "temperature: no richer map is significantly better on held-out folds"
    name, why = "temperature", plainest
    for rival in rich:
        gain = losses[name] - losses[rival]
        mean, se = float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))
        if mean <= Z * se:
            continue
        better = f"{rival}: held-out NLL better than {name}'s by {mean:.4f} ± {se:.4f}"
        cost = _lost_macro_f1(heldout["temperature"], heldout[rival], rows, seed)
        if cost is None:
            why, name = better, rival
        elif why == plainest:
            why = f"temperature: {better}, but its labels cost {cost:.4f} of macro-F1 there (--method {rival} takes it)"
    fitted = {
        "temperature": lambda: plain,
        "vector": lambda: fit_vector(rows, temperature),
        "dirichlet": lambda: fit_dirichlet(rows, strength, temperature),
    }
    return Choice(fitted[name](), {key: _against(value, losses["temperature"]) for key, value in losses.items()}, why)


def _lost_macro_f1(plain: Floats, rich: Floats, rows: CalibrationRows, seed: int) -> float | None:
    """The macro-F1 that the richer map's labels lose, None where chance could explain it (or there is nothing lost)."""
    before, after = (
        drawn["macro_f1"]
        for drawn in resampled_many(
            [plain, rich], rows.labels, resamples=400, seed=seed, full=False, groups=rows.groups
        )
    )
    lost = before - after
    return float(lost.mean()) if np.quantile(lost, LEVEL) > 0 else None


def _against(values: Floats, baseline: Floats) -> dict[str, float]:
    gain = baseline - values
    return {
        "nll": float(values.mean()),
        "gain": float(gain.mean()),
        "gain_se": float(gain.std(ddof=1) / np.sqrt(len(gain))),
    }


def check_folds(folds: int) -> None:
    """Raise for what is no cross-validation."""
    if folds < 2:
        raise InputError(f"folds is {folds}.", rule="Cross-validation has at least 2 folds.")


def spread_folds(labels: Ints, folds: int, seed: int, groups: NDArray[np.str_]) -> Ints:
    """Fold numbers (n,), each class spread evenly over the folds; a group (n,) is in the fold of its first row."""
    number = group_numbers(groups, len(labels))
    heads = np.unique(number, return_index=True)[1]
    rng = np.random.default_rng(seed)
    out = np.empty(len(heads), dtype=np.int64)
    offset = 0
    for c in np.unique(labels[heads]):
        members = rng.permutation(np.flatnonzero(labels[heads] == c))
        out[members] = (np.arange(len(members)) + offset) % folds
        offset += len(members)
    return np.asarray(out[number])


def _heldout(rows: CalibrationRows, fold: Ints, fit: Callable[[CalibrationRows], Scaling]) -> Floats:
    """Probabilities (n, 7) of each row under a map that was fitted on the other folds."""
    out = np.empty(rows.logits.shape)
    for f in np.unique(fold):
        inside, outside = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        out[outside] = softmax(fit(rows.take(inside)).apply(rows.logits[outside]))
    return out


def scaling_of(stored: Calibration) -> Scaling:
    """A stored calibration as the map that it is."""
    return Scaling(stored.method, np.array(stored.matrix), np.array(stored.bias))
