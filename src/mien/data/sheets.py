"""Contact sheets: the pictures of a class side by side, a band for each split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.index import SPLITS, Index
from mien.core.labels import LABELS

_COLUMNS, _GAP = 16, 2


def contact_sheet(index: Index, label: str, *, per_split: int = 48) -> NDArray[np.uint8]:
    """RGB uint8 of a class: per split a band of evenly chosen pictures, in the order of their rows."""
    bands = []
    for split in SPLITS:
        rows = np.flatnonzero((index.splits == split) & (index.labels == LABELS.index(label)))
        if len(rows):
            chosen = rows[np.unique(np.linspace(0, len(rows) - 1, per_split).round().astype(int))]
            bands.append(_grid(index.pixels[chosen]))
    gap = np.full((4 * _GAP, bands[0].shape[1], 3), 255, np.uint8) if bands else np.zeros((1, 1, 3), np.uint8)
    return np.concatenate([part for band in bands for part in (band, gap)][:-1]) if bands else gap


def _grid(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = pictures.shape[1] + _GAP
    rows = -(-len(pictures) // _COLUMNS)
    out = np.full((rows * side, _COLUMNS * side, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // _COLUMNS * side, i % _COLUMNS * side
        out[y : y + side - _GAP, x : x + side - _GAP] = picture
    return out
