"""Which packed images are copies of others: what an index finds within itself, found between two."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.pixels import PixelRows
from mien.core.config.index import IndexConfig
from mien.core.progress import meter
from mien.data.audit.suspicious import CONSTANT
from mien.data.duplicates.candidates import NONE_MET, Candidates, decoded, merge, nearest
from mien.data.duplicates.hamming import HammingIndex
from mien.data.duplicates.near import verified
from mien.data.duplicates.phash import THUMB, Hasher, thumbnail
from mien.data.loading.engines import Serial

Rows = NDArray[np.int64]
KIND = "crops"
_CHUNK = 4096


def copies(pixels: PixelRows, rows: Rows, others: PixelRows, other_rows: Rows) -> NDArray[np.bool_]:
    """Which of the images `pixels[rows]` (n, s, s, c) show one of `others[other_rows]` too, (n,).

    Each side's mirror images and small crops are looked up among the other's images, with the radius and the
    threshold on the pixels that `mien index build` has by default.
    """
    radius, threshold = (IndexConfig.model_fields[name].default for name in ("near_radius", "near_threshold"))
    is_copy = np.zeros(len(rows), dtype=bool)
    if not len(rows) or not len(other_rows):
        return is_copy
    thumbs = np.concatenate([_thumbs(pixels, rows), _thumbs(others, other_rows)])
    textured = np.flatnonzero(thumbs.reshape(len(thumbs), -1).std(1) >= CONSTANT)
    split = int(np.searchsorted(textured, len(rows)))  # where the second side begins among the textured images
    if not 0 < split < len(textured):
        return is_copy
    hashes = _hashes(thumbs[textured])
    sides = np.arange(split), np.arange(split, len(textured))
    candidates = _candidates(hashes, sides, radius)
    pairs = verified(
        candidates,
        len(textured),
        lambda positions: thumbs[textured[positions]],
        kind=KIND,
        threshold=threshold,
        engine=Serial(),
    )
    is_copy[textured[pairs.a]] = True  # the smaller number is of the first side
    return is_copy


def _thumbs(pixels: PixelRows, rows: Rows) -> NDArray[np.uint8]:
    out = np.empty((len(rows), THUMB, THUMB), dtype=np.uint8)
    for start in range(0, len(rows), _CHUNK):
        part = np.array(pixels[rows[start : start + _CHUNK]])
        out[start : start + len(part)] = [thumbnail(image) for image in part]
    return out


def _hashes(thumbs: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(views, n)."""
    hasher = Hasher(KIND)
    parts = [hasher(thumbs[start : start + _CHUNK]) for start in range(0, len(thumbs), _CHUNK)]
    return np.ascontiguousarray(np.concatenate(parts).T)


def _candidates(hashes: NDArray[np.uint64], sides: tuple[Rows, Rows], radius: int) -> Candidates:
    """Pairs across the sides within `radius` under any view of either, each once, by its least distance."""
    best, count = NONE_MET, len(hashes)
    with meter("comparing hashes", 2 * count) as progress:
        for queries, answers in (sides, sides[::-1]):
            index = HammingIndex(hashes[0][answers], radius)
            for view, view_hashes in enumerate(hashes):
                for block in index.pairs(np.ascontiguousarray(view_hashes[queries])):
                    query, row, distance = nearest(*block)
                    best = merge(best, queries[query], answers[row], distance, view, count)
                progress.advance()
    return decoded(best, count)
