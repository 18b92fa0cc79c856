"""When a model answers, and what else it may be: what `calibration.json`, `ensemble.json` and model files carry."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from mien.core.labels import LABELS

Share = Field(ge=0, le=1)


class Asked(TypedDict):
    """What thresholds and sets were asked for; null: no precision, no sets."""

    coverage: float
    precision: float | None
    max_fpr: dict[str, float]
    alpha: float | None


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ConformalSets(_Frozen):
    """Quantiles of `mien.evaluate.conformal`; null: too few rows, every class is in every set."""

    alpha: float = Share
    n: int
    split: float | None
    class_conditional: dict[str, float | None]
    raps: float | None


class Precision(_Frozen):
    """The confidence from which answers are right at least `wanted` of the time; null: not to be had."""

    wanted: float = Share
    threshold: float | None


class AbstentionPolicy(_Frozen):
    """Thresholds on calibrated confidence, fitted on calib's part for thresholds."""

    abstain_below: float = Field(ge=0, description="no label below this confidence; above 1: never")
    coverage: float = Field(ge=0, le=1, description="share of rows that was wanted to be answered")
    answered: float = Field(ge=0, le=1, description="share of the fitting rows that all thresholds let answer")
    precision: Precision | None = None
    max_fpr: dict[str, float] = Field(default={}, description="wanted bounds of classes' false-positive rates")
    class_thresholds: dict[str, float] = Field(
        default={}, description="no such label below this confidence; above 1: never"
    )
    conformal: ConformalSets | None = None
    n: int = Field(gt=0, description="rows it was fitted on")
    warnings: list[str] = []

    @property
    def asked(self) -> Asked:
        """What was wanted, whatever thresholds the rows gave for it."""
        return {
            "coverage": self.coverage,
            "precision": None if self.precision is None else self.precision.wanted,
            "max_fpr": self.max_fpr,
            "alpha": None if self.conformal is None else self.conformal.alpha,
        }

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """The confidence that each class needs, (7,)."""
        return np.array([max(self.abstain_below, self.class_thresholds.get(name, 0.0)) for name in LABELS])

    def answered_rows(self, probabilities: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which rows (n, 7) get a label."""
        best = probabilities.argmax(1)
        return np.asarray(probabilities[np.arange(len(best)), best] >= self.thresholds[best])

    def conformal_set(self, probabilities: NDArray[np.floating]) -> tuple[str, ...]:
        """The labels that one row (7,) may have, likeliest first: `1 - conformal.alpha` of such sets hold the true one.

        Split conformal sets (see `mien.evaluate.conformal`). All labels where there were too few rows to fit them; none
        may be in a set, where no label is likely enough.
        """
        row = np.asarray(probabilities, dtype=np.float64)
        quantile = None if self.conformal is None else self.conformal.split
        order = np.argsort(-row, kind="stable").tolist()
        return tuple(LABELS[c] for c in order if quantile is None or 1 - row[c] <= quantile)

    def label(self, probabilities: NDArray[np.floating]) -> str | None:
        """The likeliest label of one row (7,), None where it is not sure enough."""
        return LABELS[int(np.argmax(probabilities))] if self.answered_rows(np.asarray(probabilities)[None])[0] else None
