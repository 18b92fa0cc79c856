"""Splits: strictest side, whole units, shares, and the caps' arithmetic."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.core.labels import LABELS
from mien.data.splits import SPLITS, Shares, assign, carve, strictest, water_level

SHARES = Shares(val=0.12, test=0.18, calib=0.1, seed=0)
CODE = {name: i for i, name in enumerate(SPLITS)}


def split(official, units, labels, shares=SHARES, names=None):
    """`assign` in words: official sides or None, unit names, labels or None."""
    numbers = {unit: i for i, unit in enumerate(dict.fromkeys(units))}
    sides, own = assign(
        np.array([CODE.get(side, -1) for side in official], np.int8),
        np.array([numbers[unit] for unit in units]),
        names or [f"{i:05}".encode() for i in range(len(units))],
        np.array([-1 if label is None else LABELS.index(label) for label in labels], np.int8),
        shares,
    )
    return [SPLITS[i] for i in sides], [SPLITS[i] for i in own]


def naive_carve(units, labels, keys, fraction):
    """Unit by unit, in words: take in the order of keys until one more would miss the target by more."""
    members = {}
    for unit, label in zip(units, labels, strict=True):
        members.setdefault(int(unit), []).append(int(label))
    chosen = set()
    for label in range(7):
        mine = [
            u
            for u, found in members.items()
            if min(k for k in range(7) if found.count(k) == max(map(found.count, range(7)))) == label
        ]
        mine.sort(key=lambda u: (keys[u], u))
        target, taken = fraction * sum(len(members[u]) for u in mine), 0
        for u in mine[: max(0, len(mine) - 1)]:
            if taken and taken + len(members[u]) - target > target - taken:
                break
            chosen.add(u)
            taken += len(members[u])
    return [int(unit) in chosen for unit in units]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.floats(0.05, 0.5))
def test_carving_equals_the_naive_loop(seed, count, fraction):
    rng = np.random.default_rng(seed)
    units = np.concatenate([np.arange(count), rng.integers(0, count, 3 * count)])
    labels = rng.integers(0, 7, len(units)).astype(np.int8)
    keys = rng.integers(0, 50, count).astype(np.uint64)
    assert carve(units, labels, keys, fraction).tolist() == naive_carve(units, labels, keys, fraction)


def test_strictest():
    sides = np.array([0, 2, -1, 3, 1, -1], np.int8)
    assert strictest(sides, np.array([0, 0, 0, 1, 1, 2])).tolist() == [2, 2, 2, 3, 3, -1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_units_are_never_torn_and_shares_hold(seed, per_unit):
    n = 7 * 60
    units = [i // per_unit for i in range(n)]
    labels = [LABELS[i % 7] for i in range(n)]
    sides, own = split([None] * n, units, labels, Shares(0.12, 0.18, 0.1, seed))
    together = {}
    for unit, side in zip(units, sides, strict=True):
        together.setdefault(unit, set()).add(side)
    assert all(len(s) == 1 for s in together.values())
    assert own == sides
    counts = Counter(sides)
    assert counts["test"] / n == pytest.approx(0.18, abs=0.05)
    assert counts["val"] / n == pytest.approx(0.12, abs=0.05)
    for side in SPLITS:
        assert {label for label, s in zip(labels, sides, strict=True) if s == side} == set(LABELS)


def test_official_sides_stay_and_the_rest_of_a_unit_follows_the_strictest():
    n = 7 * 20
    labels = [LABELS[i % 7] for i in range(n)]
    official = ["train"] * 100 + ["val"] * 20 + ["test"] * 20
    units = list(range(n))
    units[0] = units[139]  # a train row of a test unit
    sides, own = split(official, units, labels)
    assert (sides[0], own[0]) == ("test", "train")
    assert sides[100:120] == ["val"] * 20
    assert sides[120:] == ["test"] * 20
    assert set(sides[1:100]) == {"train", "calib"}
    assert own[1:] == sides[1:]


def test_a_source_without_official_test_gives_one_from_its_train_rows():
    n = 7 * 40
    labels = [LABELS[i % 7] for i in range(n)]
    sides, _ = split(["val" if i >= 240 else "train" for i in range(n)], range(n), labels)
    assert sides[240:] == ["val"] * 40
    assert Counter(sides)["test"] > 0


def test_unlabelled_images_follow_their_unit_and_are_not_counted():
    labels = [LABELS[i % 7] for i in range(140)]
    alone, _ = split([None] * 140, range(140), labels)
    more, _ = split([None] * 150, [*range(140), *range(10)], [*labels, *[None] * 10])
    assert more[:140] == alone
    assert more[140:] == alone[:10]


def test_an_order_of_rows_does_not_matter():
    labels, names = [LABELS[i % 7] for i in range(210)], [f"{i:05}".encode() for i in range(210)]
    units = [i // 3 for i in range(210)]
    before, _ = split([None] * 210, units, labels, names=names)
    order = np.random.default_rng(0).permutation(210)
    after, _ = split(
        [None] * 210, [units[i] for i in order], [labels[i] for i in order], names=[names[i] for i in order]
    )
    assert after == [before[i] for i in order]


def test_a_fraction_of_one_takes_all_and_of_zero_nothing():
    labels = [LABELS[i % 5] for i in range(40)]
    everything, own = split([None] * 40, range(40), labels, Shares(val=0.12, test=1.0, calib=0.1, seed=0))
    assert everything == own == ["test"] * 40
    nothing, _ = split([None] * 40, range(40), labels, Shares(val=0.0, test=0.0, calib=0.0, seed=0))
    assert nothing == ["train"] * 40
    halves, _ = split([None] * 40, range(40), labels, Shares(val=0.5, test=0.5, calib=0.1, seed=0))
    assert Counter(halves) == {"test": 20, "val": 20}


def test_official_test_rows_alone_stay_test():
    labels = [LABELS[i % 5] for i in range(12)]
    assert split(["test"] * 12, range(12), labels)[0] == ["test"] * 12


@given(st.lists(st.integers(0, 500), min_size=1, max_size=9), st.integers(0, 3000))
def test_water_level_is_the_largest_cap_that_fits(counts, budget):
    level = water_level(counts, budget)
    assert sum(min(c, level) for c in counts) <= budget
    assert level == max(counts) or sum(min(c, level + 1) for c in counts) > budget
