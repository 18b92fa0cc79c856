"""All pairs within a radius: against brute force, and against faiss."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.data.duplicates.hamming import HammingIndex, pieces


def pairs(index, queries):
    found = list(index.pairs(queries))
    return {
        (int(q), int(r)): int(d) for query, row, distance in found for q, r, d in zip(query, row, distance, strict=True)
    }, sum(len(query) for query, _, _ in found)


def clustered(seed, n):
    """Hashes with many near ones: a few centres, some bits flipped."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, 8, dtype=np.uint64)
    out = centres[rng.integers(0, 8, n)]
    for _ in range(8):
        flip = rng.random(n) < 0.6
        out[flip] ^= np.uint64(1) << rng.integers(0, 64, int(flip.sum())).astype(np.uint64)
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(0, 10))
def test_equals_brute_force(seed, n, radius):
    hashes, queries = clustered(seed, n), clustered(seed + 1, 40)
    queries[:20] = hashes[np.arange(20) % n]
    found, count = pairs(HammingIndex(hashes, radius), queries)
    distance = np.bitwise_count(queries[:, None] ^ hashes[None])
    expected = {(int(q), int(r)): int(distance[q, r]) for q, r in zip(*np.nonzero(distance <= radius), strict=True)}
    assert found == expected
    assert count == len(expected)  # every pair once


@pytest.mark.parametrize("count", [1, 10**4, 10**6, 10**8])
@pytest.mark.parametrize("radius", range(11))
def test_the_pieces_miss_no_pair(count, radius):
    """The pigeonhole: if every piece i had more than t_i flips there would be more than radius flips."""
    cut = pieces(count, radius)
    assert sum(bits for bits, _ in cut) == 64
    assert sum(flips + 1 for _, flips in cut) == radius + 1


def test_equals_faiss():
    hashes, radius = clustered(0, 5000), 6
    index = faiss.IndexBinaryMultiHash(64, 4, 16)
    index.nflip = 1
    assert 4 * (index.nflip + 1) > radius
    index.add(hashes.view(np.uint8).reshape(-1, 8))
    limits, _, rows = index.range_search(hashes.view(np.uint8).reshape(-1, 8), radius + 1)
    queries = np.repeat(np.arange(len(hashes)), np.diff(limits.astype(np.int64)))
    found, _ = pairs(HammingIndex(hashes, radius), hashes)
    assert set(found) == set(zip(queries.tolist(), rows.tolist(), strict=True))


def test_nothing_in_nothing_out():
    empty = np.empty(0, np.uint64)
    assert pairs(HammingIndex(empty, 6), clustered(0, 3)) == ({}, 0)
    assert pairs(HammingIndex(clustered(0, 3), 6), empty) == ({}, 0)
