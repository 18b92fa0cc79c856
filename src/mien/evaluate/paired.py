"""Two models on the same rows: differences of all metrics with paired intervals, and McNemar's test."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.evaluate.bootstrap import interval, mcnemar, resampled_many, unbiased
from mien.evaluate.calibration_error import Floats, Ints
from mien.evaluate.metrics import metrics

COMPARED = ("accuracy", "macro_f1", "minority_f1", "ece", "brier", "nll")


def paired(
    first: Floats,
    second: Floats,
    labels: Ints,
    *,
    resamples: int = 1000,
    seed: int = 0,
    groups: NDArray[np.str_] | None = None,
) -> dict[str, Any]:
    """Differences, first minus second, of probabilities (n, k) each: `delta`, `ci95` and `mcnemar`.

    Both models see the same resamples of the rows (Efron & Tibshirani 1993, ch. 13); near-duplicate `groups` (n,) stay
    together.
    """
    wanted: dict[str, Any] = {"resamples": resamples, "seed": seed, "groups": groups, "full": False}
    mine, theirs = resampled_many([first, second], labels, **wanted)
    a, b = metrics(first, labels), metrics(second, labels)
    ends = {n: interval(unbiased(n, mine[n], a[n]) - unbiased(n, theirs[n], b[n])) for n in COMPARED}
    return {
        "delta": {name: a[name] - b[name] for name in COMPARED},
        "ci95": ends,
        "mcnemar": mcnemar(first.argmax(1) == labels, second.argmax(1) == labels),
    }
