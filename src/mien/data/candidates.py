"""Candidates for near-duplicates: every pair of pictures whose hashes meet within a radius under some view."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.core.progress import meter
from mien.data.engines import Engine
from mien.data.hamming import HammingIndex

Rows = NDArray[np.int64]
_QUERIES = 1 << 16  # looked up in one task


@dataclass(frozen=True)
class Candidates:
    """Pairs of pictures whose hashes met: `query` under view number `view`, `row` as it is."""

    query: Rows
    row: Rows
    view: NDArray[np.int64]
    distance: NDArray[np.uint8]


@lru_cache(maxsize=1)
def _index(path: str, radius: int) -> HammingIndex:
    return HammingIndex(np.load(path, mmap_mode="r")[0], radius)


def search(task: tuple[str, int, int, int, int]) -> tuple[int, Rows, Rows, NDArray[np.uint8]]:
    """All pairs of queries `start:stop` under one view: (view, query, row, distance); of (a, b) and (b, a) one."""
    path, radius, view, start, stop = task
    found = list(_index(path, radius).pairs(np.ascontiguousarray(np.load(path, mmap_mode="r")[view][start:stop])))
    query, row, distance = (np.concatenate([part[i] for part in found]) for i in range(3))
    query = query + start
    # Under the whole picture's views both directions are the same pair.
    keep = query < row if view < 2 else query != row
    return view, query[keep], row[keep], distance[keep]


def candidates(path: Path, kind: str, radius: int, engine: Engine) -> Candidates:
    """Every pair within `radius` under any view, once: with the view and direction of least distance.

    `path` is a `.npy` of hashes (views, n), n the pictures.
    """
    count, n = np.load(path, mmap_mode="r").shape
    tasks = [
        (str(path), radius, view, start, min(start + _QUERIES, n))
        for view in range(count)
        for start in range(0, n, _QUERIES)
    ]
    best = np.empty((0, 3), dtype=np.int64)
    with meter("comparing hashes", len(tasks)) as progress:
        for view, query, row, distance in engine.map(search, tasks):
            low, high = np.minimum(query, row), np.maximum(query, row)
            # One number orders the ways in which a pair met: distance, then view, then direction.
            rank = (distance.astype(np.int64) * count + view) * 2 + (query > row)
            best = _best(np.concatenate([best, np.stack([low, high, rank], 1)]))
            progress.advance()
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
