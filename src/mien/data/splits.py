"""Which side an image stands on: official sides first, then carving by groups and classes.

Each source is split by itself, from nothing but its own rows, so that adding a source changes no row of
another one. Then an image, a person or a near-duplicate cluster that stands on several sides goes to
the strictest (test over val over calib over train): adding a source can only move rows that way.

Official test and val stay; sources without official sides get val and test carved; calib is carved out
of train. What is carved are whole units (images of one person or one near-duplicate cluster together),
for each class its share, in an order that depends on the seed and the unit's own images alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.core.labels import LABELS
from mien.data.loading.load import NO_CODE, SPLIT_CODE

SPLITS = tuple(SPLIT_CODE)
"""By strictness: train, calib, val, test."""
Codes = NDArray[np.int8]
Units = NDArray[np.int64]


@dataclass(frozen=True)
class Shares:
    """Shares of the sides that are carved."""

    val: float
    test: float
    calib: float
    seed: int


def order_keys(seed: int, purpose: str, names: Sequence[bytes]) -> NDArray[np.uint64]:
    """Pseudo-random sort keys that depend on nothing but their arguments."""
    head = f"{seed}:{purpose}:".encode()
    return np.array([int.from_bytes(hashlib.sha256(head + name).digest()[:8]) for name in names], dtype=np.uint64)


def strictest(sides: Codes, units: Units) -> Codes:
    """For every row the strictest side in its unit; -1 where the unit has none."""
    top = np.full(int(units.max(initial=-1)) + 1, NO_CODE, dtype=np.int8)
    np.maximum.at(top, units, sides)
    return top[units]


def carve(units: Units, labels: Codes, keys: NDArray[np.uint64], fraction: float) -> NDArray[np.bool_]:
    """Choose whole units that hold about `fraction` of every class; True for chosen rows.

    `units` are 0 … k-1, `keys` (k,) order them. A unit counts for its commonest class. Every class
    with at least two units gives at least one and keeps at least one. A `fraction` of 0 chooses nothing, of 1 all.
    """
    if fraction in (0, 1):
        return np.full(len(units), fraction == 1)
    count = len(keys)
    per_class = np.zeros((count, len(LABELS)), dtype=np.int64)
    np.add.at(per_class, (units, labels), 1)
    belongs, sizes = per_class.argmax(1), per_class.sum(1)
    chosen = np.zeros(count, dtype=bool)
    for label in range(len(LABELS)):
        members = np.flatnonzero((belongs == label) & (sizes > 0))
        members = members[np.lexsort((members, keys[members]))]
        size = sizes[members]
        ends = np.cumsum(size)
        if len(members) < 2:
            continue
        # Stop where one more unit would miss the target by more than stopping does.
        further = np.flatnonzero(ends[1:] + ends[:-1] > 2 * fraction * ends[-1])
        stop = int(further[0]) + 1 if len(further) else len(members) - 1
        chosen[members[: min(stop, len(members) - 1)]] = True
    return chosen[units]


def assign(official: Codes, units: Units, names: Sequence[bytes], labels: Codes, shares: Shares) -> tuple[Codes, Codes]:
    """(side, own side) of every image of one source.

    They differ where an official side is less strict than another one in the image's unit: the own
    side is then the official one.

    `official` is each image's strictest official side, -1 where the source states none; `names` are
    the images' ids, which name their units; `labels` -1 takes no part in the carving.
    """
    compact, unit = np.unique(units, return_inverse=True)
    sides = strictest(official, unit)
    raised = (official != NO_CODE) & (sides > official)
    by_name = sorted(range(len(names)), key=names.__getitem__, reverse=True)
    named: list[bytes] = [b""] * len(compact)
    for row in by_name:  # a unit is named by its smallest id
        named[int(unit[row])] = names[row]
    stated = set(official.tolist())

    def move(rows: NDArray[np.bool_], fraction: float, side: str) -> None:
        rows = rows & (labels != NO_CODE)
        if rows.any():
            present, local = np.unique(unit[rows], return_inverse=True)
            keys = order_keys(shares.seed, side, [named[i] for i in present.tolist()])
            chosen = np.zeros(len(sides), dtype=bool)
            chosen[np.flatnonzero(rows)[carve(local, labels[rows], keys, fraction)]] = True
            sides[chosen] = SPLIT_CODE[side]
            sides[:] = strictest(sides, unit)  # unlabelled rows of a unit follow

    free = (NO_CODE, SPLIT_CODE["train"])
    # A source without official sides gives test and val from all its rows, one that lacks only one of
    # the two gives that one from its train rows.
    rest = shares.val / (1 - shares.test) if shares.test < 1 else 0.0
    for side, fraction in (("test", shares.test), ("val", min(1.0, rest))):
        if SPLIT_CODE[side] not in stated:
            move(np.isin(sides, free), fraction, side)
    if SPLIT_CODE["calib"] not in stated:
        move(np.isin(sides, free), shares.calib, "calib")
    sides = np.where(sides == NO_CODE, SPLIT_CODE["train"], sides).astype(np.int8)
    return sides, np.where(raised, official, sides).astype(np.int8)


def water_level(counts: Sequence[int], budget: int) -> int:
    """The largest cap c with sum(min(count, c)) <= budget."""
    low, high = 0, max(counts, default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(count, middle) for count in counts) <= budget:
            low = middle
        else:
            high = middle - 1
    return low
