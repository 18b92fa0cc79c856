"""Draws a face from identity, action units and pose with anti-aliased polygons (OpenCV)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mien.synthetic.anatomy import Identity, Points, Pose
from mien.synthetic.light import shading

_SHIFT = 4  # OpenCV's fractional bits
_T = np.linspace(-1, 1, 25)


class Canvas:
    """A uint8 RGB image that is drawn on in face coordinates."""

    def __init__(self, image: NDArray[np.uint8], pose: Pose) -> None:
        self.image, self.pose, self.side = image, pose, len(image)

    def pixels(self, points: Points) -> NDArray[np.int32]:
        """Face coordinates to OpenCV's fixed-point pixels."""
        projected = self.pose.project(np.asarray(points, dtype=np.float64)) * self.side
        return np.round(projected * (1 << _SHIFT)).astype(np.int32)

    def fill(self, points: Points, colour: Points, alpha: float = 1.0) -> None:
        """Fill a polygon, blended over what is there."""
        target = self.image if alpha >= 1 else self.image.copy()
        cv2.fillPoly(target, [self.pixels(points)], _rgb(colour), cv2.LINE_AA, _SHIFT)
        if alpha < 1:
            cv2.addWeighted(target, alpha, self.image, 1 - alpha, 0, dst=self.image)

    def stroke(self, points: Points, colour: Points, width: float, alpha: float = 1.0) -> None:
        """Draw a line of `width` in face units."""
        if alpha <= 0.02:
            return
        pixels = max(1, round(width * self.pose.scale * self.side))
        target = self.image.copy()
        cv2.polylines(target, [self.pixels(points)], False, _rgb(colour), pixels, cv2.LINE_AA, _SHIFT)
        alpha = min(1.0, alpha)
        cv2.addWeighted(target, alpha, self.image, 1 - alpha, 0, dst=self.image)

    def mask(self, points: Points) -> NDArray[np.float32]:
        """Coverage of a polygon, (side, side, 1) in [0, 1]."""
        out = np.zeros((self.side, self.side), np.uint8)
        cv2.fillPoly(out, [self.pixels(points)], 255, cv2.LINE_AA, _SHIFT)
        return (out[..., None] / np.float32(255)).astype(np.float32)


def _rgb(colour: Points) -> Sequence[float]:
    return [float(v) for v in np.clip(colour, 0, 255)]


def _parabola(left: Points, right: Points, middle_y: float) -> Points:
    """A curve through two corners that reaches `middle_y` half-way."""
    x = left[0] + (right[0] - left[0]) * (_T + 1) / 2
    line = left[1] + (right[1] - left[1]) * (_T + 1) / 2
    return np.stack([x, line + (middle_y - (left[1] + right[1]) / 2) * (1 - _T**2)], axis=1)


def outline(identity: Identity, jaw_drop: float) -> Points:
    """The face's contour."""
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x, y = np.sin(angle), -np.cos(angle)
    lower = np.clip(y, 0, 1)
    x = x * (1 - (1 - identity.jaw) * lower**2)
    height = np.where(y > 0, identity.long + 0.16 * jaw_drop, 1.12)
    return np.stack([x, y * height], axis=1)


def draw_head(canvas: Canvas, identity: Identity, au: dict[int, float], rng: np.random.Generator) -> None:
    """Hair behind, neck, ears, the lit face, hair in front."""
    face = outline(identity, au[26])
    if identity.long_hair:
        canvas.fill(face * [1.28, 1.15] + [0, -0.05], identity.hair)
        canvas.fill(np.array([[-1.25, -0.2], [1.25, -0.2], [1.3, 1.9], [-1.3, 1.9]]), identity.hair)
    else:
        canvas.fill(face * [1.1, 1.08] + [0, -0.14], identity.hair)
    canvas.fill(np.array([[-0.55, 0.6], [0.55, 0.6], [0.62, 1.9], [-0.62, 1.9]]), identity.skin * 0.72)
    for side in (-1, 1):
        angle = np.linspace(0, 2 * np.pi, 16)
        ear = np.stack([side * 1.0 + 0.12 * np.cos(angle), 0.0 + 0.24 * np.sin(angle)], axis=1)
        canvas.fill(ear, identity.skin * 0.85)
    canvas.fill(face, identity.skin)
    lit = shading(canvas.side, canvas.pose, rng)
    cover = canvas.mask(face)
    canvas.image[:] = np.clip(canvas.image * (1 - cover + cover * lit), 0, 255).astype(np.uint8)
    if identity.beard:
        lower = face[(face[:, 1] > 0.35)]
        order = np.argsort(np.arctan2(lower[:, 0], lower[:, 1]))
        arc = lower[order]
        inner = arc[::-1] * [0.72, 0.62] + [0, 0.16]
        canvas.fill(np.concatenate([arc, inner]), identity.hair * 0.6 + identity.skin * 0.25, identity.beard)
    x = np.linspace(-1.02, 1.02, 31)
    top = np.stack([x, -1.16 * np.sqrt(np.clip(1.06 - x**2, 0, 1))], axis=1)
    edge = identity.hairline + identity.fringe - 0.10 * np.cos(x * 2.6) + 0.55 * np.abs(x) ** 4
    canvas.fill(np.concatenate([top, np.stack([x, edge], axis=1)[::-1]]), identity.hair)


def draw_brows(canvas: Canvas, identity: Identity, au: dict[int, float]) -> None:
    """Brows, forehead lines (AU 1, 2) and the lines between the brows (AU 4)."""
    dark = identity.hair * 0.55 + identity.skin * 0.1
    line = identity.skin * 0.62
    for side in (-1, 1):
        x = np.linspace(0, 1, 13)
        drop = 0.13 * au[4] + 0.05 * au[9] - 0.02 * au[7]
        inner = -0.22 * au[1] + 0.05 * au[4] + 0.04 * au[9]
        outer = -0.20 * au[2] + 0.03 * au[1]
        middle = -0.5 * (0.16 * au[1] + 0.20 * au[2])
        px = side * (0.16 - 0.05 * au[4] + x * (0.56 + 0.04 * au[4]))
        arch = -0.075 * np.sin(np.pi * x**0.8)
        py = (
            -0.47
            + identity.brow_height
            + drop
            + arch
            + inner * (1 - x) ** 1.5
            + outer * x**1.3
            + middle * np.sin(np.pi * x)
        )
        thick = identity.brow_thick * (1.15 - 0.7 * x)
        upper, lower = np.stack([px, py - thick], axis=1), np.stack([px, py + thick], axis=1)
        canvas.fill(np.concatenate([upper, lower[::-1]]), dark, 0.9)
        frown = np.array([[side * 0.07, -0.62], [side * 0.05, -0.50], [side * 0.065, -0.38]])
        canvas.stroke(frown, line, 0.03, 0.85 * au[4])
    for i, y in enumerate((-0.78, -0.70)):
        x = np.linspace(-0.5, 0.5, 15)
        lift = 0.5 * (au[1] + au[2])
        wave = np.stack([x, y + 0.03 * np.cos(x * 6) - 0.04 * lift], axis=1)
        canvas.stroke(wave, line, 0.022, lift * (0.45 + 0.4 * identity.age) * (1 - 0.25 * i))


def draw_eyes(canvas: Canvas, identity: Identity, au: dict[int, float], rng: np.random.Generator) -> None:
    """Eyes with lids (AU 5, 6, 7), crow's feet (AU 6)."""
    gaze = rng.normal(0, 0.025, 2)
    half = 0.215 * identity.eye_size
    squeeze = 0.42 * au[6] + 0.45 * au[7] + 0.40 * au[9]
    up = 0.098 * identity.eye_size * max(0.28, 1 + 0.85 * au[5] - 0.75 * squeeze)
    down = 0.072 * identity.eye_size * max(0.15, 1 + 0.25 * au[5] - 0.95 * squeeze - 0.3 * au[6])
    for side in (-1, 1):
        cx, cy = side * identity.eye_gap, -0.2
        inner = np.array([cx - side * half, cy + 0.02 - 0.03 * au[1]])
        outer = np.array([cx + side * half, cy - identity.eye_slant + 0.03 * au[1] * (1 - au[5])])
        upper, lower = _parabola(inner, outer, cy - up), _parabola(inner, outer, cy + down)
        eye = np.concatenate([upper, lower[::-1]])
        canvas.fill(eye * [1, 1] + [0, -0.025], identity.skin * 0.72, 0.55)
        white = canvas.mask(eye)
        patch = Canvas(canvas.image.copy(), canvas.pose)
        patch.fill(eye, np.array([238.0, 236, 232]))
        angle = np.linspace(0, 2 * np.pi, 20)
        ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        centre = np.array([cx + gaze[0], cy + 0.005 + gaze[1]])
        patch.fill(centre + 0.105 * identity.eye_size * ring, identity.iris)
        patch.fill(centre + 0.05 * ring, np.array([8.0, 8, 8]))
        patch.fill(centre + [0.03, -0.035] + 0.018 * ring, np.array([250.0, 250, 250]))
        canvas.image[:] = (canvas.image * (1 - white) + patch.image * white).astype(np.uint8)
        canvas.stroke(upper, identity.skin * 0.25, 0.035, 0.95)
        canvas.stroke(lower, identity.skin * 0.55, 0.02, 0.6)
        crease = _parabola(inner, outer, cy - up - 0.075) + [0, -0.01]
        canvas.stroke(crease[3:-3], identity.skin * 0.65, 0.02, 0.5 - 0.3 * au[5])
        bag = _parabola(inner, outer, cy + down + 0.07)
        canvas.stroke(bag[2:-2], identity.skin * 0.7, 0.025, 0.2 * identity.age + 0.6 * au[6] + 0.3 * au[7])
        for k in (-1, 0, 1):
            start = outer + [side * 0.05, 0.02 + 0.05 * k]
            canvas.stroke(np.array([start, start + [side * 0.13, 0.06 * k]]), identity.skin * 0.62, 0.02, 0.75 * au[6])
        if identity.glasses:
            rim = np.stack([cx + 0.3 * np.cos(angle), cy + 0.03 + 0.24 * np.sin(angle)], axis=1)
            canvas.stroke(np.concatenate([rim, rim[:1]]), identity.hair * 0.3, 0.04, 0.9)
    if identity.glasses:
        canvas.stroke(np.array([[-0.14, -0.2], [0, -0.24], [0.14, -0.2]]), identity.hair * 0.3, 0.04, 0.9)


def draw_nose(canvas: Canvas, identity: Identity, au: dict[int, float]) -> None:
    """Nose, its wrinkles (AU 9), the folds to the mouth (AU 9, 10, 12)."""
    shade = identity.skin * 0.68
    tip = identity.nose_long - 0.07 * au[9]
    wing = identity.nose_width * (1 + 0.18 * au[9] + 0.08 * au[12])
    lit_side = np.array([[0.05, -0.2], [0.09, tip - 0.12], [wing * 0.8, tip - 0.03], [0.03, tip - 0.05]])
    canvas.fill(lit_side, shade, 0.35)
    base = np.array(
        [
            [-wing, tip - 0.04],
            [-wing * 0.75, tip + 0.03],
            [0, tip + 0.06],
            [wing * 0.75, tip + 0.03],
            [wing, tip - 0.04],
        ]
    )
    canvas.stroke(base, identity.skin * 0.55, 0.03, 0.75)
    for side in (-1, 1):
        angle = np.linspace(0, 2 * np.pi, 10)
        hole = np.stack([side * wing * 0.45 + 0.045 * np.cos(angle), tip + 0.015 + 0.022 * np.sin(angle)], axis=1)
        canvas.fill(hole, identity.skin * 0.25, 0.8)
        for k in range(3):
            y = -0.24 + 0.085 * k
            canvas.stroke(
                np.array([[side * 0.02, y], [side * 0.16, y - 0.055]]), identity.skin * 0.52, 0.025, 0.95 * au[9]
            )
        pull = 0.12 * au[12] + 0.05 * au[20]
        fold = np.array(
            [
                [side * (wing + 0.04), tip - 0.07 - 0.05 * au[9]],
                [side * (wing + 0.17 + pull), tip + 0.10],
                [side * (identity.mouth_width + 0.10 + pull), identity.mouth_y - 0.04],
            ]
        )
        strength = 0.15 * identity.age + 0.75 * au[9] + 0.55 * au[10] + 0.65 * au[12]
        canvas.stroke(fold, identity.skin * 0.6, 0.03, min(0.95, strength))


def draw_mouth(canvas: Canvas, identity: Identity, au: dict[int, float]) -> None:
    """Lips, teeth and the dark inside (AU 10, 12, 15, 16, 17, 20, 23, 25, 26)."""
    width = identity.mouth_width * (1 + 0.34 * au[12] + 0.30 * au[20] - 0.20 * au[23] - 0.22 * au[26] * (1 - au[12]))
    y = identity.mouth_y - 0.05 * au[17] + 0.05 * au[26]
    gap = 0.045 * au[25] + 0.34 * au[26] + 0.10 * au[16] + 0.07 * au[12] * au[25] + 0.05 * au[20] * au[25]
    lift = 0.10 * au[10] + 0.06 * au[9]
    corner = -0.025 - 0.20 * au[12] + 0.19 * au[15] + 0.07 * au[20] + 0.25 * gap
    left, right = np.array([-width, y + corner]), np.array([width, y + corner])
    top_mid = y - 0.16 * gap - lift + 0.035 * au[12] - 0.06 * au[15]
    low_mid = y + 0.9 * gap + 0.055 * au[12] - 0.05 * au[15] + 0.05 * au[16]
    inner_top, inner_low = _parabola(left, right, top_mid), _parabola(left, right, max(low_mid, top_mid + 0.004))
    thin = 1 - 0.72 * au[23] - 0.2 * au[12]
    upper = inner_top - np.stack(
        [0 * _T, 0.075 * identity.lip_full * thin * (1 - _T**2) ** 0.6 * (1 - 0.25 * np.exp(-((_T / 0.12) ** 2)))],
        axis=1,
    )
    pout = 1 + 0.5 * au[17]
    lower = inner_low + np.stack([0 * _T, 0.105 * identity.lip_full * thin * pout * (1 - _T**2) ** 0.7], axis=1)
    lip = identity.skin * np.array([0.86, 0.62, 0.60])
    canvas.fill(np.concatenate([upper, inner_top[::-1]]), lip * 0.88)
    canvas.fill(np.concatenate([inner_low, lower[::-1]]), lip)
    inside = np.concatenate([inner_top, inner_low[::-1]])
    if gap > 0.02:
        canvas.fill(inside, np.array([52.0, 18, 20]))
        show = au[12] + au[10] + au[20] + 0.5 * au[9] + 0.15
        thick = min(0.75 * gap, 0.11) * min(1.0, show)
        teeth = np.concatenate([inner_top, inner_top[::-1] + [0, thick]])
        cover = canvas.mask(inside) * canvas.mask(teeth)
        canvas.image[:] = (canvas.image * (1 - cover) + np.array([232, 228, 218], np.float32) * cover).astype(np.uint8)
    canvas.stroke(inner_top, identity.skin * 0.3, 0.028, 0.9)
    for side, point in ((-1, left), (1, right)):
        canvas.stroke(
            np.array([point, point + [side * 0.05, 0.09 * au[15] - 0.05 * au[12]]]),
            identity.skin * 0.45,
            0.03,
            0.4 + 0.5 * max(au[12], au[15]),
        )
    low = float(lower[12, 1])
    canvas.stroke(
        np.array([[-0.13, low + 0.07], [0, low + 0.05], [0.13, low + 0.07]]),
        identity.skin * 0.62,
        0.03,
        0.3 + 0.6 * au[17],
    )
    for k in (-1, 1):
        canvas.stroke(
            np.array([[k * 0.07, low + 0.14], [k * 0.04, low + 0.2]]), identity.skin * 0.6, 0.025, 0.8 * au[17]
        )
    for side in (-1, 1):
        press = np.array([[side * (width + 0.03), y - 0.05], [side * (width + 0.05), y + 0.06]])
        canvas.stroke(press, identity.skin * 0.6, 0.03, 0.7 * au[23])
