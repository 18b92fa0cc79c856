"""Filters of logits over time, for frames at any distance."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mien.core.config.live import LiveRules

Floats = NDArray[np.float64]
SHORTEST = 1e-6  # seconds between two frames, at least


class Filter(Protocol):
    """What smooths a vector over time."""

    def __call__(self, value: Floats, time_s: float) -> Floats:
        """The filtered value at `time_s`; times must not fall."""


class OneEuro:
    """The One-Euro filter (Casiez, Roussel & Vogel 2012) on a vector: the faster it changes, the less it is smoothed.

    `cutoff` in Hz, `beta` per unit of speed.
    """

    def __init__(self, *, cutoff: float, beta: float, speed_cutoff: float = 1.0) -> None:
        self.cutoff, self.beta, self.speed_cutoff = cutoff, beta, speed_cutoff
        self._value: Floats | None = None
        self._speed: Floats | None = None
        self._time = 0.0

    def __call__(self, value: Floats, time_s: float) -> Floats:
        """The filtered value at `time_s`; times must not fall."""
        if self._value is None or self._speed is None:
            self._value, self._speed, self._time = value.copy(), np.zeros_like(value), time_s
            return value.copy()
        dt = max(SHORTEST, time_s - self._time)
        speed = (value - self._value) / dt
        self._speed = self._speed + _gain(self.speed_cutoff, dt) * (speed - self._speed)
        # One cut-off for the whole vector, so that its argmax moves only where the evidence does.
        cutoff = self.cutoff + self.beta * float(np.abs(self._speed).mean())
        self._value = self._value + _gain(cutoff, dt) * (value - self._value)
        self._time = time_s
        return self._value.copy()


def _gain(cutoff: float, dt: float) -> float:
    rate = 2 * np.pi * cutoff * dt
    return float(rate / (rate + 1))


class Ema:
    """Exponential moving average of a vector; `time_constant` in seconds, so that it is the same at any frame rate."""

    def __init__(self, *, time_constant: float) -> None:
        self.time_constant = time_constant
        self._value: Floats | None = None
        self._time = 0.0

    def __call__(self, value: Floats, time_s: float) -> Floats:
        """The average at `time_s`; times must not fall."""
        dt, self._time = max(SHORTEST, time_s - self._time), time_s
        if self._value is None:
            self._value = value.copy()
        else:
            self._value = self._value + (1 - np.exp(-dt / self.time_constant)) * (value - self._value)
        return self._value.copy()


def unfiltered(value: Floats, time_s: float) -> Floats:
    """The value itself."""
    return value.copy()


def make_filter(rules: LiveRules) -> Filter:
    """A new filter by the rules."""
    if rules.filter == "one_euro":
        return OneEuro(cutoff=rules.cutoff, beta=rules.beta, speed_cutoff=rules.speed_cutoff)
    return Ema(time_constant=rules.time_constant) if rules.filter == "ema" else unfiltered
