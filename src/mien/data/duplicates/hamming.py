"""All pairs of 64-bit hashes within a Hamming radius: exact, vectorised, memory linear in the hashes.

The hash is cut into pieces; two hashes within radius r agree in at least one piece up to its own small
radius t when sum(t + 1) = r + 1 (the general pigeonhole principle; Qin et al. 2018, "GPH: Similarity
Search in Hamming Space", theorem 1). Each piece has a table of the hashes sorted by that piece; looking
up a piece and its few-bit neighbours gives the candidates, whose true distance is then taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]

_BITS = 64
_BLOCK = 1 << 11  # queries at a time: what they expand to should stay in a core's cache
_CANDIDATES = 1 << 15  # expanded at a time, at most, for the same reason


@dataclass(frozen=True)
class _Piece:
    shift: int
    bits: int
    flips: NDArray[np.uint32]
    order: NDArray[np.int32]
    hashes: Hashes
    starts: NDArray[np.int64]


def _keys(hashes: Hashes, shift: int, bits: int) -> NDArray[np.uint32]:
    """The piece of each hash: `bits` of it from bit `shift` on."""
    return ((hashes >> np.uint64(shift)) & np.uint64((1 << bits) - 1)).astype(np.uint32)


def pieces(count: int, radius: int) -> list[tuple[int, int]]:
    """(bits, flips) of each piece for `count` hashes: wider pieces where buckets would grow long."""
    number = 4 if count < 1 << 20 else 3
    bits = [_BITS // number + (i < _BITS % number) for i in range(number)]
    # A piece with a budget of none (more pieces than radius + 1) is not looked up: -1 flips.
    shares = [(radius + 1) // number + (i < (radius + 1) % number) for i in range(number)]
    return [(b, share - 1) for b, share in zip(bits, shares, strict=True)]


class HammingIndex:
    """Hashes that can be searched within a radius."""

    def __init__(self, hashes: Hashes, radius: int) -> None:
        self.hashes, self.radius = np.ascontiguousarray(hashes), radius
        self._pieces, shift = [], 0
        for bits, flips in pieces(len(hashes), radius):
            if flips >= 0:
                self._pieces.append(self._piece(shift, bits, flips))
            shift += bits

    def _piece(self, shift: int, bits: int, flips: int) -> _Piece:
        keys = _keys(self.hashes, shift, bits)
        # Numbers of 16 bits are sorted by radix, several times as fast as wider ones.
        order = np.argsort(keys.astype(np.uint16) if bits <= 16 else keys, kind="stable").astype(np.int32)
        starts = np.zeros((1 << bits) + 1, dtype=np.int64)
        np.cumsum(np.bincount(keys, minlength=1 << bits), out=starts[1:])
        masks = [sum(1 << i for i in chosen) for k in range(flips + 1) for chosen in combinations(range(bits), k)]
        return _Piece(shift, bits, np.array(masks, dtype=np.uint32), order, self.hashes[order], starts)

    def pairs(self, queries: Hashes) -> Iterator[tuple[Rows, Rows, NDArray[np.uint8]]]:
        """Blocks of (query, row, distance): every pair within the radius once, ordered by query and row."""
        for start in range(0, len(queries), _BLOCK):
            yield self._block(queries, start)

    def _block(self, queries: Hashes, start: int) -> tuple[Rows, Rows, NDArray[np.uint8]]:
        block = queries[start : start + _BLOCK]
        matches = [part for piece in self._pieces for part in self._look_up(piece, block)]
        both = np.unique(np.concatenate(matches)) if matches else np.empty(0, np.int64)
        query, row = both // max(1, len(self.hashes)), both % max(1, len(self.hashes))
        distance = np.bitwise_count(block[query] ^ self.hashes[row])
        return query + start, row, distance

    def _look_up(self, piece: _Piece, block: Hashes) -> Iterator[Rows]:
        """Pairs within the radius that agree in `piece`, coded query * n + row; with repetitions."""
        probes = (_keys(block, piece.shift, piece.bits)[:, None] ^ piece.flips[None]).ravel()
        low = piece.starts[probes]
        counts = piece.starts[probes + 1] - low
        hit = np.flatnonzero(counts)
        low, counts, query = low[hit], counts[hit], hit // len(piece.flips)
        hashes = block[query]
        ends = np.cumsum(counts)
        done = 0
        while done < len(ends):
            before = int(ends[done - 1]) if done else 0
            stop = max(done + 1, int(np.searchsorted(ends, before + _CANDIDATES, side="right")))
            part = slice(done, stop)
            places = np.arange(int(ends[stop - 1]) - before)
            places += np.repeat(low[part] - (ends[part] - before - counts[part]), counts[part])
            distance = np.bitwise_count(piece.hashes.take(places, mode="clip") ^ np.repeat(hashes[part], counts[part]))
            near = np.flatnonzero(distance <= self.radius)
            matched = query[done + np.searchsorted(ends[part] - before, near, side="right")]
            yield matched * len(self.hashes) + piece.order[places[near]]
            done = stop
