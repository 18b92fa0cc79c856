"""Calm output: logits through a One-Euro filter, labels with hysteresis and a dwell time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mien.core.labels import LABELS

Floats = NDArray[np.float64]


class OneEuro:
    """The One-Euro filter (Casiez, Roussel & Vogel 2012) on a vector: still signals are held calm,
    fast ones followed closely. `cutoff` in Hz, `beta` per unit of speed."""

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
        dt = max(1e-6, time_s - self._time)
        speed = (value - self._value) / dt
        self._speed = self._speed + _gain(np.float64(self.speed_cutoff), dt) * (speed - self._speed)
        # One cut-off for the whole vector, so that its argmax moves only where the evidence does.
        cutoff = self.cutoff + self.beta * np.abs(self._speed).mean()
        self._value = self._value + _gain(cutoff, dt) * (value - self._value)
        self._time = time_s
        return self._value.copy()


def _gain(cutoff: np.floating, dt: float) -> float:
    rate = 2 * np.pi * float(cutoff) * dt
    return rate / (rate + 1)


class Smoother:
    """One face's smoothed probabilities and the label that is shown; `thresholds` (7,) are what each class needs."""

    def __init__(self, *, cutoff: float, beta: float, dwell: float, hysteresis: float, thresholds: Floats) -> None:
        self._filter = OneEuro(cutoff=cutoff, beta=beta)
        self.dwell, self.hysteresis, self.thresholds = dwell, hysteresis, thresholds
        self._shown: int | None = None
        self._rival: int | None = None
        self._since = 0.0

    def update(self, logits: Floats, time_s: float) -> tuple[Floats, str | None]:
        """Smoothed probabilities (7,) and the label; None while the model is not sure."""
        centred = logits.astype(np.float64) - logits.mean()
        z = self._filter(centred, time_s)
        p = np.exp(z - z.max())
        p /= p.sum()
        best = int(p.argmax())
        if self._shown is None:
            self._shown = best
        leads = best != self._shown and p[best] - p[self._shown] >= self.hysteresis
        if not leads:
            self._rival = None
        elif best != self._rival:
            self._rival, self._since = best, time_s
        if leads and time_s - self._since >= self.dwell:
            self._shown, self._rival = best, None
        sure = p[self._shown] >= self.thresholds[self._shown]
        return p, LABELS[self._shown] if sure else None
