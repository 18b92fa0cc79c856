"""Contact sheets: the images of a class side by side, a band for each split."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.index import SPLITS, Index
from mien.core.artifacts.pixels import PixelRows
from mien.core.artifacts.suspects import FoundSuspects
from mien.core.labels import LABELS

_COLUMNS, _GAP, _TITLE = 16, 2, 26


def contact_sheet(index: Index, label: str, *, per_split: int = 48) -> NDArray[np.uint8]:
    """RGB uint8 of a class: for each split a titled band of evenly chosen images, in the order of their rows."""
    bands = []
    for split in SPLITS:
        rows = np.flatnonzero((index.splits == split) & (index.labels == LABELS.index(label)))
        if len(rows):
            chosen = rows[np.unique(np.linspace(0, len(rows) - 1, per_split).round().astype(int))]
            grid = _grid(index.pixels[chosen])
            bands += [_title(f"{label}, {split}: {len(chosen):,} of {len(rows):,}", grid.shape[1]), grid]
    return np.concatenate(bands) if bands else _title(f"{label}: no images", 400)


def _title(text: str, width: int) -> NDArray[np.uint8]:
    """A white strip with a line of text."""
    strip = np.full((_TITLE, width, 3), 255, np.uint8)
    cv2.putText(strip, text, (4, _TITLE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


def _grid(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = images.shape[1] + _GAP
    rows = -(-len(images) // _COLUMNS)
    out = np.full((rows * side, _COLUMNS * side, 3), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = i // _COLUMNS * side, i % _COLUMNS * side
        out[y : y + side - _GAP, x : x + side - _GAP] = image
    return out


def suspects_sheet(
    pixels: PixelRows, rows: NDArray[np.int64], labels: NDArray[np.int64], suspects: FoundSuspects, count: int
) -> bytes:
    """A PNG of the images whose labels are most in doubt, each over its label and the one that is suggested."""
    positions = np.flatnonzero(suspects["suspect"])
    order = positions[np.argsort(suspects["quality"][positions], kind="stable")][:count]
    side, high = 96, 30
    width = _COLUMNS // 2
    title = _title(
        f"{len(order):,} of {len(positions):,} suspects, the most doubtful first: label -> suggestion",
        width * (side + _GAP),
    )
    out = np.full((max(1, -(-len(order) // width)) * (side + high), width * (side + _GAP), 3), 255, np.uint8)
    for i, place in enumerate(order):
        y, x = i // width * (side + high), i % width * (side + _GAP)
        image = np.broadcast_to(pixels[rows[place : place + 1]][0], (*pixels.shape[1:3], 3))
        out[y : y + side, x : x + side] = cv2.resize(
            np.ascontiguousarray(image), (side, side), interpolation=cv2.INTER_AREA
        )
        for line, name in enumerate((LABELS[labels[place]], "-> " + LABELS[suspects["suggested"][place]])):
            cv2.putText(
                out, name, (x + 2, y + side + 11 + 13 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA
            )
    whole = np.concatenate([title, out])
    return bytes(cv2.imencode(".png", whole[..., ::-1])[1].tobytes())
