"""Near-duplicates: candidates by hash, each verified on the pixels, joined to clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from mien.core.progress import meter
from mien.data.engines import Engine
from mien.data.hamming import HammingIndex
from mien.data.phash import views
from mien.data.verify import HOPELESS, quick_scores, registered_score

Rows = NDArray[np.int64]
_QUERIES = 1 << 16  # looked up in one task
_PAIRS = 1 << 11  # verified in one task


@dataclass(frozen=True)
class Pairs:
    """Pairs of pictures a < b with a score each."""

    a: Rows
    b: Rows
    score: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.a)


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


def verify_quick(task: tuple[int, str, NDArray[np.uint8], NDArray[np.uint8]]) -> tuple[Any, Any]:
    """Coarse and fine scores of pairs that met under one view."""
    view, kind, queries, others = task
    return quick_scores(queries, others, views(kind)[view])


def verify_slow(task: tuple[NDArray[np.int64], str, NDArray[np.uint8], NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Registered scores of pairs, each with its view."""
    cv2.setNumThreads(1)
    numbers, kind, queries, others = task
    known = views(kind)
    return np.array(
        [registered_score(q, o, known[v]) for v, q, o in zip(numbers.tolist(), queries, others, strict=True)],
        np.float32,
    )


def find(
    path: Path, thumbs: Callable[[Rows], NDArray[np.uint8]], *, kind: str, radius: int, threshold: float, engine: Engine
) -> Pairs:
    """Verified near-duplicate pairs among n pictures.

    Pairs that are settled by the view under which they met come first; of the others those are
    registered whose pictures are not yet in one cluster. A pair that is left out for that reason would
    not change the clusters.
    """
    met = candidates(path, kind, radius, engine)
    order = np.argsort(met.view, kind="stable")
    coarse, fine = np.full(len(order), -1, np.float32), np.full(len(order), -1, np.float32)

    def tasks() -> Iterator[tuple[int, str, NDArray[np.uint8], NDArray[np.uint8]]]:
        for part in parts:
            yield int(met.view[part[0]]), kind, thumbs(met.query[part]), thumbs(met.row[part])

    parts = [
        run[start : start + _PAIRS]
        for run in np.split(order, np.flatnonzero(np.diff(met.view[order])) + 1)
        for start in range(0, len(run), _PAIRS)
    ]
    with meter("verifying pairs", len(order)) as progress:
        for part, (a, b) in zip(parts, engine.map(verify_quick, tasks()), strict=True):
            coarse[part], fine[part] = a, b
            progress.advance(len(part))
    n = int(np.load(path, mmap_mode="r").shape[1])
    sure = fine >= threshold
    groups = components(n, met.query[sure], met.row[sure])
    open_ = np.flatnonzero(~sure & (coarse >= HOPELESS) & (groups[met.query] != groups[met.row]))
    slow = [open_[start : start + 256] for start in range(0, len(open_), 256)]
    with meter("registering pairs", len(open_)) as progress:
        found = engine.map(
            verify_slow, ((met.view[part], kind, thumbs(met.query[part]), thumbs(met.row[part])) for part in slow)
        )
        for part, scores in zip(slow, found, strict=True):
            fine[part] = scores
            progress.advance(len(part))
    good = np.flatnonzero(fine >= threshold)
    low, high = np.minimum(met.query, met.row)[good], np.maximum(met.query, met.row)[good]
    return Pairs(low, high, fine[good])


def components(n: int, a: NDArray[np.integer[Any]], b: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """The cluster of each of n pictures, by its smallest member's number."""
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    first = np.full(int(labels.max(initial=-1)) + 1, n, dtype=np.int64)
    np.minimum.at(first, labels, np.arange(n))
    return np.asarray(first[labels])
