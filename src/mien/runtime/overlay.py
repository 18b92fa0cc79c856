"""Drawing on a frame: a box, the label, one bar per class."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mien.core.geometry import Box
from mien.core.labels import LABELS

# Okabe & Ito 2008: colours that colour-blind people tell apart, RGB.
COLOURS = {
    "angry": (213, 94, 0),
    "disgust": (0, 158, 115),
    "fear": (204, 121, 167),
    "happy": (240, 228, 66),
    "neutral": (200, 200, 200),
    "sad": (0, 114, 178),
    "surprise": (86, 180, 233),
}
UNSURE = (140, 140, 140)


def draw_face(
    frame: NDArray[np.uint8], box: Box, label: str | None, probabilities: NDArray[np.float64], face_id: int
) -> None:
    """Draw one face on an RGB frame, in place."""
    height, width = frame.shape[:2]
    unit = max(1.0, min(height, width) / 360)
    colour = COLOURS[label] if label else UNSURE
    x, y, w, h = (round(v) for v in box)
    cv2.rectangle(frame, (x, y), (x + w, y + h), colour, max(1, round(2 * unit)), cv2.LINE_AA)
    _text(frame, f"{face_id}: {label or 'unsure'}", (x, max(round(14 * unit), y - round(6 * unit))), 0.5 * unit, colour)
    bar, line = round(70 * unit), round(13 * unit)
    left = x + w + round(6 * unit)
    if left + bar > width:
        left = max(0, x - bar - round(6 * unit))
    top = min(max(0, y), max(0, height - line * len(LABELS)))
    for i, name in enumerate(LABELS):
        row = top + i * line
        cv2.rectangle(frame, (left, row), (left + bar, row + line - 2), (30, 30, 30), -1)
        cv2.rectangle(
            frame, (left, row), (left + round(bar * float(probabilities[i])), row + line - 2), COLOURS[name], -1
        )
        _text(frame, name, (left + 2, row + line - round(4 * unit)), 0.32 * unit, (255, 255, 255))


def _text(
    frame: NDArray[np.uint8], text: str, position: tuple[int, int], size: float, colour: tuple[int, int, int]
) -> None:
    thick = max(1, round(1.4 * size))
    cv2.putText(frame, text, position, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), thick + 2, cv2.LINE_AA)
    cv2.putText(frame, text, position, cv2.FONT_HERSHEY_SIMPLEX, size, colour, thick, cv2.LINE_AA)
