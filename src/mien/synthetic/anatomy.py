"""One person's face: proportions, colours, hair, glasses, and the 3-D pose of the head.

Face coordinates: x to the right and y down, the face's half width is 1, the eyes' line near -0.2,
the mouth near 0.66, the chin near 1.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

# Skin from light to dark, RGB (after the Fitzpatrick scale's usual swatches).
_SKIN = np.array([[246, 215, 190], [236, 195, 165], [219, 172, 136], [190, 137, 98], [150, 100, 66], [98, 64, 44]])
_HAIR = np.array([[28, 22, 20], [60, 40, 28], [105, 70, 40], [170, 130, 75], [130, 60, 35], [165, 160, 155]])
_IRIS = np.array([[62, 40, 24], [88, 60, 32], [70, 98, 70], [78, 108, 140]])


@dataclass(frozen=True)
class Identity:
    """What stays with a person over all images."""

    skin: Points
    hair: Points
    iris: Points
    jaw: float
    long: float
    eye_gap: float
    eye_size: float
    eye_slant: float
    brow_height: float
    brow_thick: float
    nose_width: float
    nose_long: float
    mouth_width: float
    lip_full: float
    mouth_y: float
    age: float
    hairline: float
    fringe: float
    long_hair: bool
    glasses: bool
    beard: float


def draw_identity(rng: np.random.Generator) -> Identity:
    """A random person."""

    def spread(mean: float, sd: float) -> float:
        return float(np.clip(rng.normal(mean, sd), mean - 2.2 * sd, mean + 2.2 * sd))

    tone = rng.uniform(0, len(_SKIN) - 1)
    low = int(tone)
    skin = _SKIN[low] + (tone - low) * (_SKIN[min(low + 1, len(_SKIN) - 1)] - _SKIN[low])
    return Identity(
        skin=np.clip(skin + rng.normal(0, 6, 3), 20, 250),
        hair=np.clip(_HAIR[rng.integers(len(_HAIR) if tone < 2.5 else 2)] + rng.normal(0, 8, 3), 5, 220),
        iris=_IRIS[rng.integers(len(_IRIS) if tone < 2.5 else 2)].astype(float),
        jaw=spread(0.80, 0.07),
        long=spread(1.18, 0.05),
        eye_gap=spread(0.43, 0.025),
        eye_size=spread(1.0, 0.10),
        eye_slant=spread(0.0, 0.02),
        brow_height=spread(0.0, 0.03),
        brow_thick=spread(0.065, 0.016),
        nose_width=spread(0.19, 0.03),
        nose_long=spread(0.32, 0.03),
        mouth_width=spread(0.36, 0.03),
        lip_full=spread(1.0, 0.22),
        mouth_y=spread(0.67, 0.02),
        age=float(rng.beta(1.3, 2.2)),
        hairline=spread(-0.78, 0.08),
        fringe=float(rng.random() < 0.35) * float(rng.uniform(0.05, 0.28)),
        long_hair=bool(rng.random() < 0.45),
        glasses=bool(rng.random() < 0.12),
        beard=float(rng.random() < 0.18) * float(rng.uniform(0.3, 0.8)),
    )


@dataclass(frozen=True)
class Pose:
    """Head rotation (radians) and its place in the image."""

    yaw: float
    pitch: float
    roll: float
    scale: float
    x: float
    y: float

    def project(self, points: Points) -> Points:
        """Face coordinates (n, 2) to image coordinates in units of the image's side, (n, 2).

        Points lie on an ellipsoid that is rotated and seen from far away (orthographic).
        """
        x, y = points[:, 0], points[:, 1]
        z = 0.95 * np.sqrt(np.clip(1 - (x / 1.12) ** 2 - (y / 1.45) ** 2, 0, None))
        cy, sy, cp, sp = np.cos(self.yaw), np.sin(self.yaw), np.cos(self.pitch), np.sin(self.pitch)
        x1, z1 = cy * x + sy * z, cy * z - sy * x
        y1 = cp * y - sp * z1
        cr, sr = np.cos(self.roll), np.sin(self.roll)
        out = np.stack([cr * x1 - sr * y1, sr * x1 + cr * y1], axis=1)
        return np.asarray(self.scale * out + np.array([self.x, self.y]))


def draw_pose(rng: np.random.Generator) -> Pose:
    """A random pose, mostly frontal, framed as tightly as FER2013's crops."""
    return Pose(
        yaw=float(np.clip(rng.normal(0, 0.22), -0.5, 0.5)),
        pitch=float(np.clip(rng.normal(0, 0.12), -0.3, 0.3)),
        roll=float(np.clip(rng.normal(0, 0.09), -0.3, 0.3)),
        scale=float(rng.uniform(0.36, 0.42)),
        x=0.5 + float(rng.normal(0, 0.02)),
        y=0.47 + float(rng.normal(0, 0.02)),
    )
