"""Contact sheets: the pictures of a class side by side, a band for each split."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.index import SPLITS, Index
from mien.core.labels import LABELS

_COLUMNS, _GAP, _TITLE = 16, 2, 26


def contact_sheet(index: Index, label: str, *, per_split: int = 48) -> NDArray[np.uint8]:
    """RGB uint8 of a class: for each split a titled band of evenly chosen pictures, in the order of their rows."""
    bands = []
    for split in SPLITS:
        rows = np.flatnonzero((index.splits == split) & (index.labels == LABELS.index(label)))
        if len(rows):
            chosen = rows[np.unique(np.linspace(0, len(rows) - 1, per_split).round().astype(int))]
            grid = _grid(index.pixels[chosen])
            bands += [_title(f"{label}, {split}: {len(chosen):,} of {len(rows):,}", grid.shape[1]), grid]
    return np.concatenate(bands) if bands else _title(f"{label}: no pictures", 400)


def _title(text: str, width: int) -> NDArray[np.uint8]:
    """A white strip with a line of text."""
    strip = np.full((_TITLE, width, 3), 255, np.uint8)
    cv2.putText(strip, text, (4, _TITLE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


def _grid(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = pictures.shape[1] + _GAP
    rows = -(-len(pictures) // _COLUMNS)
    out = np.full((rows * side, _COLUMNS * side, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // _COLUMNS * side, i % _COLUMNS * side
        out[y : y + side - _GAP, x : x + side - _GAP] = picture
    return out
