"""Two models on the same rows: differences of all metrics with paired intervals, and McNemar's test."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.metrics import Intervals, PairedDifference
from mien.evaluate.bootstrap import interval, mcnemar, resampled_many, unbiased
from mien.evaluate.calibration_error import Floats, Ints
from mien.evaluate.metrics import metrics

Compared = Literal["accuracy", "macro_f1", "minority_f1", "ece", "brier", "nll"]
COMPARED: tuple[Compared, ...] = ("accuracy", "macro_f1", "minority_f1", "ece", "brier", "nll")


def paired(
    first: Floats,
    second: Floats,
    labels: Ints,
    *,
    resamples: int = 1000,
    seed: int = 0,
    groups: NDArray[np.str_] | None = None,
) -> PairedDifference:
    """Differences, first minus second, of probabilities (n, k) each: `delta`, `ci95` and `mcnemar`.

    Both models see the same resamples of the rows (Efron & Tibshirani 1993, ch. 13); near-duplicate `groups` (n,) stay
    together.
    """
    first_draws, second_draws = resampled_many(
        [first, second], labels, resamples=resamples, seed=seed, groups=groups, full=False
    )
    a, b = metrics(first, labels), metrics(second, labels)
    ends: Intervals = {
        n: interval(unbiased(n, first_draws[n], a[n]) - unbiased(n, second_draws[n], b[n])) for n in COMPARED
    }
    return {
        "delta": {name: a[name] - b[name] for name in COMPARED},
        "ci95": ends,
        "mcnemar": mcnemar(first.argmax(1) == labels, second.argmax(1) == labels),
    }
