"""Conformal sets: the classes that a row may have, right at least 1 - alpha of the time, whatever the model.

Split conformal (Vovk et al. 2005; the score 1 - p of Sadinle et al. 2019, arXiv 1609.00451), the same for each
class by itself, and RAPS (Angelopoulos et al. 2021, arXiv 2009.14193) without its random part: the score is the
probability of all classes before this one, on the fitting rows and on new ones alike, so that no set is empty.
Coverage is marginal: over rows like those fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.calibration_rows import CalibrationRows, require
from mien.core.errors import InputError
from mien.core.labels import LABELS
from mien.evaluate.calibration_error import Floats
from mien.evaluate.metrics import softmax

Kind = Literal["split", "class_conditional", "raps"]
KINDS: tuple[Kind, ...] = ("split", "class_conditional", "raps")
RAPS_LAMBDA, RAPS_FREE = 0.01, 2  # a penalty for each class after the second


@dataclass(frozen=True)
class Conformal:
    """Fitted quantiles. None stands for too few rows: every class is in every set."""

    alpha: float
    n: int
    split: float | None
    class_conditional: tuple[float | None, ...]
    raps: float | None

    def sets(self, probabilities: Floats, kind: Kind = "split") -> NDArray[np.bool_]:
        """Which classes are in each row's set, (n, 7)."""
        if kind not in KINDS:
            raise InputError(f"Sets of kind {kind!r}.", rule=f"One of {', '.join(KINDS)}.")
        if kind == "raps":
            return _within(raps_scores(probabilities), self.raps)
        if kind == "split":
            return _within(1 - probabilities, self.split)
        columns = [_within(1 - probabilities[:, c], q) for c, q in enumerate(self.class_conditional)]
        return np.column_stack(columns)


def _within(scores: Floats, quantile: float | None) -> NDArray[np.bool_]:
    return np.ones(scores.shape, dtype=bool) if quantile is None else np.asarray(scores <= quantile)


def raps_scores(probabilities: Floats) -> Floats:
    """Score (n, 7) of each class: the probability of all likelier classes, and a penalty by rank."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    total = np.cumsum(np.take_along_axis(probabilities, order, 1), 1)
    rank = np.arange(1, probabilities.shape[1] + 1)
    ranked = total - np.take_along_axis(probabilities, order, 1) + RAPS_LAMBDA * np.maximum(0, rank - RAPS_FREE)
    out: Floats = np.empty(probabilities.shape)
    np.put_along_axis(out, order, ranked, 1)
    return out


def quantile(scores: Floats, alpha: float) -> float | None:
    """The ceil((n + 1)(1 - alpha))-th smallest score; None when there are too few."""
    place = int(np.ceil((len(scores) + 1) * (1 - alpha)))
    return None if place > len(scores) else float(np.partition(scores, place - 1)[place - 1])


def fit_conformal(rows: CalibrationRows, alpha: float = 0.1) -> Conformal:
    """Quantiles of all three kinds from rows whose logits are calibrated already."""
    require(rows, "fit_conformal")
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha}.", rule="Sets miss the label with a probability between 0 and 1.")
    p = softmax(rows.logits)
    index = np.arange(len(rows))
    plain = 1 - p[index, rows.labels]
    by_class = tuple(quantile(plain[rows.labels == c], alpha) for c in range(len(LABELS)))
    return Conformal(
        alpha, len(rows), quantile(plain, alpha), by_class, quantile(raps_scores(p)[index, rows.labels], alpha)
    )


def coverage_interval(n: int, rows: int, alpha: float, level: float = 0.95) -> tuple[float, float] | None:
    """Where the coverage on `rows` new rows lies with probability `level`, fitted on `n` rows: beta-binomial.

    None where `n` is too small for a quantile.
    """
    from scipy.stats import betabinom  # noqa: PLC0415  (a second to import)

    place = int(np.ceil((n + 1) * (1 - alpha)))
    if place > n:
        return None
    law = betabinom(rows, place, n + 1 - place)
    return float(law.ppf((1 - level) / 2)) / rows, float(law.ppf((1 + level) / 2)) / rows
