"""The kit as objects in scikit-learn's style: `fit`, then `predict_proba`. For arrays from anywhere.

    rows = calib_rows(logits, labels, split="calib")       # refuses test rows
    model = AutoScaling().fit(rows)
    probabilities = model.predict_proba(other_logits)

    pool = Pool().fit([calib_rows(z, labels, split="calib") for z in (a, b)])
    probabilities = pool.predict_proba([other_a, other_b])

    sets = ConformalSets(alpha=0.1).fit(calib_rows(calibrated, labels, split="calib")).predict_set(probabilities)

Logits are (n, 7) in the order of `mien.LABELS`, labels class numbers or names. What a fit found stands in
attributes that end in an underscore. Rows that are too few or lack a class are named in a `UserWarning`.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mien.core.artifacts.calibration_rows import CalibrationRows, Part, require
from mien.core.artifacts.predictions import Predictions, PredictionsMeta
from mien.core.errors import InputError, UsageError
from mien.core.labels import INDEX, LABELS, parse_label
from mien.evaluate.calibration_error import Floats
from mien.evaluate.conformal import Conformal, Kind, fit_conformal
from mien.evaluate.metrics import softmax
from mien.evaluate.pooling import Fitted, fit_pool, pooled_logits
from mien.evaluate.scaling import Choice, Scaling, by_temperature, choose, fit_dirichlet, fit_vector
from mien.evaluate.temperature import Temperature, fit_temperature
from mien.evaluate.weights import Pool as PoolKind
from mien.evaluate.weights import Search


def calib_rows(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    split: str,
    ids: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    head: str = "unknown",
) -> CalibrationRows:
    """Arrays as rows that may be fitted on; they come from `split`: `calib` or `val`; test rows are refused.

    `logits` (n, 7): what softmax turns into probabilities (log-probabilities are logits). `ids` default to the rows'
    numbers; members of an ensemble need the same. `groups` names near-duplicates alike, which then stay in one part of
    calib and are resampled together; by default each row is a group of its own. `head="linear"` says that logits are no
    cosines, however small. Raises `InputError` for shapes, NaN, unknown labels and ids that come twice.
    """
    z = np.array(logits, dtype=np.float64)
    if z.ndim != 2 or z.shape[1] != len(LABELS):
        raise InputError(f"Logits of shape {z.shape}.", rule=f"(n, {len(LABELS)}), in the order {', '.join(LABELS)}.")
    y = _class_numbers(np.asarray(labels))
    names = np.array([str(i) for i in range(len(y))] if ids is None else list(ids), dtype=str)
    if len(set(names.tolist())) < len(names):
        raise InputError("An id comes twice.", rule="One row an image: parts of calib share none.")
    content = hashlib.sha256("\n".join(names.tolist()).encode()).hexdigest()
    meta: PredictionsMeta = {
        "name": "arrays",
        "weights_hash": content,
        "index": content,
        "head": head,
        "scale_in_logits": True,
    }
    return CalibrationRows.of(
        Predictions(split, names, y, z, meta, None if groups is None else np.array(list(groups), dtype=str))
    )


def _class_numbers(labels: NDArray[Any]) -> NDArray[np.int64]:
    if labels.ndim != 1:
        raise InputError(f"Labels of shape {labels.shape}.", rule="(n,): class numbers or names.")
    if any(name is None for name in labels.tolist()):
        raise InputError("Some labels are None.", rule="Each row has one.")
    if labels.dtype.kind in "USO":
        return np.array([INDEX[parse_label(str(name))] for name in labels], dtype=np.int64)
    if len(labels) and (labels.min() < 0 or labels.max() >= len(LABELS) or (labels != np.round(labels)).any()):
        raise InputError(
            f"Labels reach from {labels.min()} to {labels.max()}.", rule=f"Whole numbers from 0 to {len(LABELS) - 1}."
        )
    return labels.astype(np.int64)


def _numbers(values: ArrayLike) -> Floats:
    """Finite numbers (n, 7)."""
    out = np.asarray(values, dtype=np.float64)
    if out.ndim != 2 or out.shape[1] != len(LABELS):
        raise InputError(
            f"Numbers of shape {out.shape}.", rule=f"(n, {len(LABELS)}), in the order {', '.join(LABELS)}."
        )
    if not np.isfinite(out).all():
        raise InputError(f"{int((~np.isfinite(out)).sum())} numbers are NaN or Inf.", rule="All are finite.")
    return out


def _named(rows: CalibrationRows, fitter: str) -> CalibrationRows:
    """The rows, after a `UserWarning` for each thing that they lack."""
    require(rows, fitter)
    for text in rows.shortcomings():
        warnings.warn(text, UserWarning, stacklevel=3)
    return rows


class _Fitted:
    """A calibrating map once it is fitted."""

    scaling_: Scaling | None = None

    def predict_logits(self, logits: ArrayLike) -> Floats:
        """Calibrated logits (n, 7)."""
        if self.scaling_ is None:
            raise UsageError(f"This {type(self).__name__} is not fitted.", fix="Call fit(rows) first.")
        return self.scaling_.apply(_numbers(logits))

    def predict_proba(self, logits: ArrayLike) -> Floats:
        """Calibrated probabilities (n, 7)."""
        return softmax(self.predict_logits(logits))


class TemperatureScaling(_Fitted):
    """One temperature by NLL (Guo et al. 2017)."""

    temperature_: Temperature

    def __init__(self, *, resamples: int = 200, seed: int = 0) -> None:
        self.resamples, self.seed = resamples, seed

    def fit(self, rows: CalibrationRows) -> Self:
        """Fit on calib rows; an optimum on the edge of the range is a `CalibrationError`."""
        self.temperature_ = fit_temperature(
            _named(rows, "TemperatureScaling"), resamples=self.resamples, seed=self.seed
        )
        self.scaling_ = by_temperature(self.temperature_.value)
        return self


class VectorScaling(_Fitted):
    """A scale and a bias for each class."""

    def fit(self, rows: CalibrationRows) -> Self:
        """Fit on calib rows."""
        self.scaling_ = fit_vector(_named(rows, "VectorScaling"))
        return self


class DirichletScaling(_Fitted):
    """A full matrix and a bias, with ODIR's penalty (Kull et al. 2019)."""

    def __init__(self, *, penalty: float = 1e-2) -> None:
        self.penalty = penalty

    def fit(self, rows: CalibrationRows) -> Self:
        """Fit on calib rows."""
        self.scaling_ = fit_dirichlet(_named(rows, "DirichletScaling"), self.penalty)
        return self


class AutoScaling(_Fitted):
    """The simplest of the three that no richer one beats significantly on held-out folds."""

    choice_: Choice

    def __init__(self, *, folds: int = 5, seed: int = 0) -> None:
        self.folds, self.seed = folds, seed

    def fit(self, rows: CalibrationRows) -> Self:
        """Fit on calib rows; `choice_` says what was tried and why one was taken."""
        temperature = fit_temperature(_named(rows, "AutoScaling"), resamples=0).value
        self.choice_ = choose(rows, temperature, folds=self.folds, seed=self.seed)
        self.scaling_ = self.choice_.scaling
        return self


class Pool:
    """Several models joined: own temperatures, weights that must beat equal ones, one temperature after averaging."""

    fitted_: Fitted | None = None
    temperatures_: list[float]

    def __init__(
        self, *, pool: PoolKind = "logit", searches: Sequence[Search] = ("nll",), folds: int = 5, seed: int = 0
    ) -> None:
        self.pool, self.searches, self.folds, self.seed = pool, tuple(searches), folds, seed

    def fit(self, members: Sequence[CalibrationRows]) -> Self:
        """Fit on the same calib rows as each member saw them; `fitted_` says which weights were taken and why."""
        for rows in members:
            require(rows, "Pool")
        parts: tuple[Part, ...] = ("temperature", "weights")
        for part in parts if members else ():
            _named(members[0].part(part), "Pool")
        self.temperatures_ = [fit_temperature(rows.part("temperature"), resamples=0).value for rows in members]
        self.fitted_ = fit_pool(
            members, self.temperatures_, self.pool, searches=self.searches, folds=self.folds, seed=self.seed
        )
        return self

    def predict_logits(self, members: Sequence[ArrayLike]) -> Floats:
        """Calibrated logits (n, 7) of the pool from each member's logits (n, 7)."""
        if self.fitted_ is None:
            raise UsageError("This Pool is not fitted.", fix="Call fit(members) first.")
        logits = [_numbers(z) for z in members]
        if len(logits) != len(self.temperatures_):
            raise InputError(
                f"{len(logits)} members.", rule=f"The pool was fitted on {len(self.temperatures_)}, in this order."
            )
        if len({z.shape for z in logits}) > 1:
            raise InputError(f"Members of shapes {[z.shape for z in logits]}.", rule="All predict the same rows.")
        pooled = pooled_logits(logits, self.fitted_.weights, self.temperatures_, self.pool)
        return np.asarray(pooled / self.fitted_.temperature.value)

    def predict_proba(self, members: Sequence[ArrayLike]) -> Floats:
        """Calibrated probabilities (n, 7) of the pool."""
        return softmax(self.predict_logits(members))


class ConformalSets:
    """Sets of classes that hold the label at least 1 - alpha of the time."""

    fitted_: Conformal | None = None

    def __init__(self, *, alpha: float = 0.1, kind: Kind = "split") -> None:
        self.alpha, self.kind = alpha, kind

    def fit(self, rows: CalibrationRows) -> Self:
        """Fit on calib rows that nothing else was fitted on (`rows.part("thresholds")`), with calibrated logits."""
        self.fitted_ = fit_conformal(_named(rows, "ConformalSets"), self.alpha)
        return self

    def predict_set(self, probabilities: ArrayLike) -> NDArray[np.bool_]:
        """Which classes are in each row's set, (n, 7)."""
        if self.fitted_ is None:
            raise UsageError("These ConformalSets are not fitted.", fix="Call fit(rows) first.")
        p = _numbers(probabilities)
        if p.min(initial=0) < 0 or np.abs(p.sum(1) - 1).max(initial=0) > 1e-3:
            raise InputError("These are no probabilities.", rule="(n, 7), not negative, each row sums to 1.")
        return self.fitted_.sets(p, self.kind)
