"""Candidates for near-duplicates: every pair of images whose hashes meet within a radius under some view."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.core.progress import meter
from mien.data.duplicates.hamming import HammingIndex
from mien.data.loading.engines import Engine

Rows = NDArray[np.int64]
_BLOCK = 1 << 19  # hashes looked up in one task; memory is about 60 bytes each
MOST = 64
NONE_MET: NDArray[np.int64] = np.empty((0, 3), dtype=np.int64)


@dataclass(frozen=True)
class Candidates:
    """Pairs of images whose hashes met: `query` under view number `view`, `row` as it is."""

    query: Rows
    row: Rows
    view: NDArray[np.int64]
    distance: NDArray[np.uint8]


@dataclass(frozen=True)
class Lookup:
    """Some hashes of a `.npy` (views, n), counted through all views."""

    path: str
    radius: int
    start: int
    stop: int


Met = tuple[NDArray[np.int64], Rows, Rows, NDArray[np.uint8]]


def search(task: Lookup) -> Met:
    """Pairs of the queries: (view, query, row, distance); of (a, b) and (b, a) one, of each query the `MOST` nearest.

    An image that matches more than that (a frame of a film, say) belongs to a group whose members match each other:
    the nearest links join the group as well as all links do, whose number grows with the square of its size.

    The table is made of the queries, which are many times more than the images: each image's own hash is
    looked up once in it, instead of each query's among the images.
    """
    hashes = np.load(task.path, mmap_mode="r")
    n = hashes.shape[1]
    blocks = list(HammingIndex(hashes.reshape(-1)[task.start : task.stop], task.radius).pairs(hashes[0]))
    row, place, distance = (np.concatenate([part[i] for part in blocks]) for i in range(3))
    view, query = np.divmod(place + task.start, n)
    # Whole images meet in both directions or in none.
    keep = np.flatnonzero(np.where(view == 0, query < row, query != row))
    keep = keep[np.lexsort((row[keep], place[keep]))]
    place, row, distance = nearest(place[keep], row[keep], distance[keep])
    view, query = np.divmod(place + task.start, n)
    return view, query, row, distance


def nearest(query: Rows, row: Rows, distance: NDArray[np.uint8]) -> tuple[Rows, Rows, NDArray[np.uint8]]:
    """Of each query (ascending) the `MOST` pairs of least distance, then of least row."""
    if not len(query) or np.bincount(query - query[0]).max() <= MOST:
        return query, row, distance
    order = np.lexsort((row, distance, query))
    ordered = query[order]
    begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    place = np.arange(len(order)) - np.repeat(begins, np.diff(np.append(begins, len(order))))
    kept = np.sort(order[place < MOST])
    return query[kept], row[kept], distance[kept]


def candidates(path: Path, kind: str, radius: int, engine: Engine) -> Candidates:
    """Every pair within `radius` under any view, once: with the view and direction of least distance.

    `path` is a `.npy` of hashes (views, n), n the images.
    """
    count, n = np.load(path, mmap_mode="r").shape
    tasks = [Lookup(str(path), radius, start, min(start + _BLOCK, count * n)) for start in range(0, count * n, _BLOCK)]
    best = NONE_MET
    with meter("comparing hashes", len(tasks)) as progress:
        for view, query, row, distance in engine.map(search, tasks):
            best = merge(best, query, row, distance, view, count)
            progress.advance()
    return decoded(best, count)


def merge(
    best: NDArray[np.int64],
    query: Rows,
    row: Rows,
    distance: NDArray[np.uint8],
    view: NDArray[np.int64] | int,
    count: int,
) -> NDArray[np.int64]:
    """`best` (n, 3) with the pairs that met under `view` of `count` views: each once, with its best rank.

    `view` is one number, or one a pair.
    """
    low, high = np.minimum(query, row), np.maximum(query, row)
    # One number orders the ways in which a pair met: distance, then view, then direction.
    rank = (distance.astype(np.int64) * count + view) * 2 + (query > row)
    return _best(np.concatenate([best, np.stack([low, high, rank], 1)]))


def decoded(best: NDArray[np.int64], count: int) -> Candidates:
    """Merged pairs with the view and direction of least distance."""
    low, high, rank = best.T
    swapped = rank % 2 == 1
    return Candidates(
        np.where(swapped, high, low),
        np.where(swapped, low, high),
        rank // 2 % count,
        (rank // 2 // count).astype(np.uint8),
    )


def _best(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each (low, high) the row of least rank, in order."""
    pairs = pairs[np.lexsort((pairs[:, 2], pairs[:, 1], pairs[:, 0]))]
    if len(pairs) < 2:
        return pairs
    first = np.ones(len(pairs), dtype=bool)
    first[1:] = (pairs[1:, :2] != pairs[:-1, :2]).any(1)
    return pairs[first]
