"""Percentiles of a stream in bounded memory."""

from __future__ import annotations

import math

import numpy as np

LOW, HIGH, RATIO = 1e-3, 1e6, 1.01


class Percentiles:
    """Counts of positive values in bins that are 1 % wide, from `LOW` to `HIGH`; values outside count as its ends.

    A percentile is the geometric middle of the bin that holds it: within 0.5 % of a value that was added.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(math.ceil(math.log(HIGH / LOW) / math.log(RATIO)), np.int64)
        self.n = 0

    def add(self, value: float) -> None:
        """Count one value."""
        bin_ = int(math.log(max(value, LOW) / LOW) / math.log(RATIO))
        self._counts[min(bin_, len(self._counts) - 1)] += 1
        self.n += 1

    def __call__(self, q: float) -> float:
        """The `q`-th percentile by nearest rank, `q` in (0, 100]; needs at least one value."""
        rank = max(1, math.ceil(self.n * q / 100))
        bin_ = int(np.searchsorted(self._counts.cumsum(), rank))
        return float(LOW * RATIO ** (bin_ + 0.5))
