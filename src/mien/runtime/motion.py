"""A face's position between two detections: a constant-velocity Kalman filter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mien.core.config.live import LiveRules
from mien.core.geometry import Box

Floats = NDArray[np.float64]
FIRST_SPEED = 4.0  # box sides a second: the standard deviation of the speed of a face that was detected once
LONGEST = 0.4  # seconds for which the speed of a face that is not detected is trusted


class Motion:
    """A box that moves: its centre with a constant velocity (Kalman 1960), its size without one.

    Both axes have the same noise, in box sides, so one 2 × 2 covariance of position and velocity serves all.
    """

    def __init__(self, box: Box, time_s: float, rules: LiveRules) -> None:
        self._rules = rules
        self._centre, self._size = _split(box)
        self._speed = np.zeros(2)
        noise = rules.box_noise * self.side
        self._covariance = np.diag([noise**2, (FIRST_SPEED * self.side) ** 2])
        self.time_s = time_s

    @property
    def side(self) -> float:
        """The box's longer side, pixels."""
        return float(self._size.max())

    @property
    def sides_per_second(self) -> float:
        """How fast the centre moves, in box sides a second."""
        return float(np.hypot(*self._speed)) / self.side

    @property
    def centre(self) -> Floats:
        """Where the centre was when it was last measured, (2,)."""
        return self._centre

    @property
    def size(self) -> Floats:
        """Width and height, (2,)."""
        return self._size

    def centre_at(self, time_s: float) -> Floats:
        """Where the centre is expected, (2,)."""
        return np.asarray(self._centre + self._speed * min(max(0.0, time_s - self.time_s), LONGEST))

    def box_at(self, time_s: float) -> Box:
        """Where the box is expected."""
        x, y = self.centre_at(time_s) - self._size / 2
        return float(x), float(y), float(self._size[0]), float(self._size[1])

    def correct(self, box: Box, time_s: float) -> None:
        """Take in a measured box of `time_s`, not before the last one's."""
        dt = max(1e-3, time_s - self.time_s)
        step = np.array([[1.0, dt], [0.0, 1.0]])
        push = np.array([dt**2 / 2, dt]) * self._rules.acceleration * self.side
        covariance = step @ self._covariance @ step.T + np.outer(push, push)
        gain = covariance[:, 0] / (covariance[0, 0] + (self._rules.box_noise * self.side) ** 2)
        self._covariance = covariance - np.outer(gain, covariance[0])
        centre, size = _split(box)
        expected = self.centre_at(time_s)
        self._centre = expected + gain[0] * (centre - expected)
        self._speed = self._speed + gain[1] * (centre - expected)
        self._size = self._size + gain[0] * (size - self._size)
        self.time_s = time_s


def _split(box: Box) -> tuple[Floats, Floats]:
    """Centre and size of a box."""
    x, y, width, height = box
    return np.array([x + width / 2, y + height / 2]), np.array([width, height], np.float64)
