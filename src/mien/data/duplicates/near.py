"""Near-duplicates: candidates by hash, each verified on the pixels, joined to clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.core.progress import meter
from mien.data.duplicates.candidates import Candidates, candidates
from mien.data.duplicates.verify import HOPELESS, LIKELY, verify_quick, verify_slow
from mien.data.loading.engines import Engine

Rows = NDArray[np.int64]
_QUICK, _SLOW = 1 << 11, 1 << 7  # pairs in one task


@dataclass(frozen=True)
class Pairs:
    """Pairs of images a < b with a score each."""

    a: Rows
    b: Rows
    score: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.a)


Thumbs = Callable[[Rows], NDArray[np.uint8]]


def find(
    path: Path,
    thumbs: Thumbs,
    *,
    kind: str,
    radius: int,
    threshold: float,
    engine: Engine,
    members: Sequence[NDArray[np.bool_]] = (),
) -> Pairs:
    """Verified near-duplicate pairs among n images; `path` is a `.npy` of hashes (views, n)."""
    n = int(np.load(path, mmap_mode="r").shape[1])
    return verified(
        candidates(path, kind, radius, engine),
        n,
        thumbs,
        kind=kind,
        threshold=threshold,
        engine=engine,
        members=members,
    )


def verified(
    pairs: Candidates,
    n: int,
    thumbs: Thumbs,
    *,
    kind: str,
    threshold: float,
    engine: Engine,
    members: Sequence[NDArray[np.bool_]] = (),
) -> Pairs:
    """The candidates among n images that are the same image on the pixels.

    Pairs that are settled by the view under which they met come first. Of the others those are registered,
    the likely ones first, whose images are not yet in one cluster: a pair that is left out for that reason
    would not change the clusters. Nor would it change those within any of `members`, masks (n,) of the images
    of one source: what a source's own pairs join does not depend on other sources.
    """
    coarse, score = _quick(pairs, thumbs, kind, engine)
    for least, most in ((LIKELY, np.inf), (HOPELESS, LIKELY)):
        sure = score >= threshold
        unjoined = _unjoined(pairs, sure, np.ones(n, dtype=bool))
        for mask in members:
            unjoined |= _unjoined(pairs, sure, mask)
        _register(
            pairs, np.flatnonzero(~sure & unjoined & (coarse >= least) & (coarse < most)), score, thumbs, kind, engine
        )
    good = np.flatnonzero(score >= threshold)
    low, high = np.minimum(pairs.query, pairs.row)[good], np.maximum(pairs.query, pairs.row)[good]
    return Pairs(low, high, score[good])


def _unjoined(pairs: Candidates, sure: NDArray[np.bool_], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which candidates, both in `mask`, the sure pairs within `mask` do not join."""
    both = mask[pairs.query] & mask[pairs.row]
    groups = components(len(mask), pairs.query[sure & both], pairs.row[sure & both])
    return np.asarray(both & (groups[pairs.query] != groups[pairs.row]))


def _quick(
    pairs: Candidates, thumbs: Thumbs, kind: str, engine: Engine
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coarse and fine scores of all candidates, each under the view by which it was met."""
    order = np.argsort(pairs.view, kind="stable")
    coarse, fine = np.full(len(order), -1, np.float32), np.full(len(order), -1, np.float32)
    parts = [
        run[start : start + _QUICK]
        for run in np.split(order, np.flatnonzero(np.diff(pairs.view[order])) + 1)
        for start in range(0, len(run), _QUICK)
    ]

    def tasks() -> Iterator[tuple[int, str, NDArray[np.uint8], NDArray[np.uint8]]]:
        for part in parts:
            yield int(pairs.view[part[0]]), kind, thumbs(pairs.query[part]), thumbs(pairs.row[part])

    with meter("verifying pairs", len(order)) as progress:
        for part, (a, b) in zip(parts, engine.map(verify_quick, tasks()), strict=True):
            coarse[part], fine[part] = a, b
            progress.advance(len(part))
    return coarse, fine


def _register(
    pairs: Candidates, chosen: Rows, score: NDArray[np.float32], thumbs: Thumbs, kind: str, engine: Engine
) -> None:
    """Put the registered scores of some candidates in `score`."""
    parts = [chosen[start : start + _SLOW] for start in range(0, len(chosen), _SLOW)]
    tasks = ((pairs.view[part], kind, thumbs(pairs.query[part]), thumbs(pairs.row[part])) for part in parts)
    with meter("registering pairs", len(chosen)) as progress:
        for part, scores in zip(parts, engine.map(verify_slow, tasks), strict=True):
            score[part] = scores
            progress.advance(len(part))


def components(n: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """The cluster of each of n images, by its smallest member's number."""
    # Each root is hooked onto the smallest root next to it, then every path to a root is shortened to one step.
    # Written here since importing scipy.sparse takes longer than the clusters of a hundred thousand images.
    head = np.arange(n)
    while len(a):
        ends = head[a], head[b]
        open_ = ends[0] != ends[1]
        a, b, ends = a[open_], b[open_], (ends[0][open_], ends[1][open_])
        for end in ends:
            np.minimum.at(head, end, np.minimum(*ends))
        while (shorter := head[head]).tobytes() != head.tobytes():
            head = shorter
    return head
