"""Perceptual hashes, vectorised: 64 signs of a picture's low DCT frequencies.

The usual pHash (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions",
section 3.2.1): 32×32 luma, DCT-II, the 8×8 lowest frequencies against their median.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE, _LOW = 32, 8
_K = np.arange(_LOW)[:, None]
_DCT = np.cos(np.pi * (2 * np.arange(_SIDE)[None, :] + 1) * _K / (2 * _SIDE))


def perceptual_hash(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint64]:
    """Hashes (n,) of RGB uint8 pictures (H, W, 3) of any sizes."""
    if not pictures:
        return np.empty(0, dtype=np.uint64)
    small = np.empty((len(pictures), _SIDE, _SIDE))
    for i, picture in enumerate(pictures):
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        small[i] = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    low = (_DCT @ small @ _DCT.T).reshape(len(pictures), -1)
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    packed = np.packbits(bits, axis=1)
    return packed.view(">u8").astype(np.uint64).ravel()
