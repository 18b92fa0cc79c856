"""Light on the head, and what a camera does to the image afterwards."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mien.synthetic.anatomy import Pose

ImageArray = NDArray[np.float32]


def shading(side: int, pose: Pose, rng: np.random.Generator) -> NDArray[np.float32]:
    """Lambert shading of an ellipsoid head with one lamp and ambient light, (side, side, 1)."""
    ys, xs = np.mgrid[0:side, 0:side].astype(np.float32) / side
    nx = (xs - pose.x) / (pose.scale * 1.1)
    ny = (ys - pose.y) / (pose.scale * 1.5)
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0.02, None))
    lamp = np.array([rng.normal(0, 0.55), rng.normal(-0.45, 0.35), 1.0])
    lamp /= np.linalg.norm(lamp)
    ambient = rng.uniform(0.45, 0.8)
    lit = ambient + (1 - ambient) * 1.35 * np.clip(nx * lamp[0] + ny * lamp[1] + nz * lamp[2], 0, None)
    return np.asarray(lit[..., None], dtype=np.float32)


def background(side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A soft two-colour gradient with a few shapes."""
    first, second = rng.uniform(20, 235, 3), rng.uniform(20, 235, 3)
    angle = rng.uniform(0, 2 * np.pi)
    ys, xs = np.mgrid[0:side, 0:side] / side - 0.5
    mix = np.clip(xs * np.cos(angle) + ys * np.sin(angle) + 0.5, 0, 1)[..., None]
    image = np.ascontiguousarray((first + mix * (second - first)).astype(np.uint8))
    for _ in range(rng.integers(0, 4)):
        centre = rng.integers(0, side, 2).tolist()
        size = rng.integers(max(2, side // 12), side // 3, 2).tolist()
        cv2.ellipse(
            image, centre, size, float(rng.uniform(0, 180)), 0, 360, rng.uniform(20, 235, 3).tolist(), -1, cv2.LINE_AA
        )
    return image


def occlude(image: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Now and then cover a part with a flat shape, as hands, scarves and microphones do."""
    if rng.random() > 0.1:
        return
    side = len(image)
    colour = rng.uniform(20, 230, 3).tolist()
    centre = (int(rng.uniform(0, side)), int(rng.choice([rng.uniform(0, 0.25), rng.uniform(0.65, 1.0)]) * side))
    axes = (int(side * rng.uniform(0.08, 0.22)), int(side * rng.uniform(0.08, 0.16)))
    cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)


def camera(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Exposure, tint, blur and noise."""
    out = image.astype(np.float32)
    out = (out - 128) * float(rng.uniform(0.7, 1.15)) + 128 + float(rng.normal(0, 14))
    out *= rng.normal(1, 0.015, 3).astype(np.float32)
    sigma = float(rng.gamma(1.2, 0.0042)) * len(image)
    if sigma > 0.3:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), sigma), dtype=np.float32)
    out += rng.normal(0, float(rng.gamma(1.5, 2.5)), out.shape[:2] + (1,)).astype(np.float32)
    return np.clip(out, 0, 255).astype(np.uint8)
