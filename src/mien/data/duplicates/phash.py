"""Perceptual hashes, vectorised: 64 signs of an image's low DCT frequencies, and those of its crops.

The usual pHash (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions",
section 3.2.1): 32×32 luma, DCT-II, the 8×8 lowest frequencies against their median. Resampling and
DCT are linear, so that the hash of any window of an image, and of its mirror image, is one more pair of
small matrices applied to the same grey thumbnail.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

THUMB = 48
_SIDE, _LOW = 32, 8
_BLOCK = 64  # images hashed at a time: what comes of them should stay in a core's cache
_THIRDS = (0.0, 1 / 3, 2 / 3, 1.0)
# (share of the side that is cut away, offsets of the window as shares of what is cut away): measured,
# see docs/results/near_duplicates.json.
_CUTS: tuple[tuple[float, tuple[float, ...]], ...] = ((0.05, (0.0, 0.5, 1.0)), (0.10, _THIRDS))


@dataclass(frozen=True)
class View:
    """A window of an image: `cut` of each side is gone, placed at `down` and `right` of it; then mirrored."""

    cut: float
    down: float
    right: float
    flip: bool


def views(kind: str) -> list[View]:
    """The views whose hashes are looked up: `plain` (the image, its mirror image) or `crops` too."""
    cuts = ((0.0, (0.0,)),) + (_CUTS if kind == "crops" else ())
    return [
        View(cut, down, right, flip)
        for cut, offsets in cuts
        for flip in (False, True)
        for down in offsets
        for right in offsets
    ]


def window_matrix(side: int, cut: float, offset: float) -> NDArray[np.float64]:
    """(side, side): bilinear resampling of a window's rows (or columns) to the full side."""
    out = np.zeros((side, side))
    position = np.clip((np.arange(side) + 0.5) * (1 - cut) + offset * cut * side - 0.5, 0, side - 1)
    low = np.minimum(np.floor(position).astype(int), side - 2)
    rows = np.arange(side)
    out[rows, low] += 1 - (position - low)
    out[rows, low + 1] += position - low
    return out


def area_matrix(source: int, target: int) -> NDArray[np.float64]:
    """(target, source): averaging over areas."""
    edges = np.arange(target + 1) * source / target
    cells = np.arange(source)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.asarray(np.clip(overlap, 0, None) * target / source)


def dct_matrix() -> NDArray[np.float64]:
    """(8, 32): the lowest frequencies of the DCT-II, unscaled."""
    return np.asarray(np.cos(np.pi * (2 * np.arange(_SIDE)[None] + 1) * np.arange(_LOW)[:, None] / (2 * _SIDE)))


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The whole image as grey uint8 (48, 48), its shape not kept; a 48×48 grey image is itself."""
    grey = image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if grey.shape == (THUMB, THUMB):
        return np.asarray(grey, np.uint8)
    down = min(grey.shape) > THUMB
    return np.asarray(
        cv2.resize(grey, (THUMB, THUMB), interpolation=cv2.INTER_AREA if down else cv2.INTER_LINEAR), np.uint8
    )


class Hasher:
    """Hashes of thumbnails under a list of views."""

    def __init__(self, kind: str) -> None:
        self.views = views(kind)
        to_low = dct_matrix() @ area_matrix(THUMB, _SIDE)
        self._cuts = []
        for cut in sorted({view.cut for view in self.views}):
            offsets = sorted({view.down for view in self.views if view.cut == cut})
            stack = np.concatenate(
                [to_low @ window_matrix(THUMB, cut, offset) if cut else to_low for offset in offsets]
            )
            self._cuts.append((len(offsets), stack.astype(np.float32)))

    def __call__(self, thumbs: NDArray[np.uint8]) -> NDArray[np.uint64]:
        """Hashes (n, number of views) of thumbnails (n, 48, 48); the first is the image's own."""
        out = np.empty((len(thumbs), len(self.views)), dtype=np.uint64)
        for start in range(0, len(thumbs), _BLOCK):
            out[start : start + _BLOCK] = self._block(thumbs[start : start + _BLOCK])
        return out

    def _block(self, thumbs: NDArray[np.uint8]) -> NDArray[np.uint64]:
        pixels, n = thumbs.astype(np.float32), len(thumbs)
        signs = np.where(np.arange(_LOW) % 2, -1, 1).astype(np.float32)  # mirroring negates odd frequencies
        out = []
        for k, stack in self._cuts:
            low = (stack @ pixels @ stack.T).reshape(n, k, _LOW, k, _LOW).swapaxes(2, 3).reshape(n, k * k, _LOW, _LOW)
            out += [_signs(low), _signs(low * signs)]
        return np.concatenate(out, axis=1)


def _signs(low: NDArray[np.floating]) -> NDArray[np.uint64]:
    """(n, v) of (n, v, 8, 8): which coefficients exceed their median (the mean brightness left out of it)."""
    flat = low.reshape(*low.shape[:2], _LOW * _LOW)
    middle = (_LOW * _LOW - 1) // 2
    median = np.partition(flat[..., 1:], middle, axis=-1)[..., middle : middle + 1]
    return np.packbits(flat > median, axis=-1).view(">u8").astype(np.uint64)[..., 0]
