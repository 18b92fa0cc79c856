"""Splits: strictest side, whole units, shares, and the caps' arithmetic."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.core.errors import SplitError
from mien.core.labels import LABELS
from mien.data.splits import assign, strictest, water_level

SHARES = {"val": 0.12, "test": 0.18, "calib": 0.1}


def test_strictest():
    assert strictest(["train", "val"]) == "val"
    assert strictest(["val", "test", "train"]) == "test"
    assert strictest(["calib", "train"]) == "calib"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_units_are_never_torn_and_shares_hold(seed, per_unit):
    n = 7 * 60
    units = [f"u{i // per_unit}" for i in range(n)]
    labels = [LABELS[i % 7] for i in range(n)]
    sides = assign([None] * n, units, labels, ["s"] * n, **SHARES, seed=seed, stated={})
    together: dict[str, set[str]] = {}
    for unit, side in zip(units, sides, strict=True):
        together.setdefault(unit, set()).add(side)
    assert all(len(s) == 1 for s in together.values())
    counts = Counter(sides)
    assert counts["test"] / n == pytest.approx(0.18, abs=0.05)
    assert counts["val"] / n == pytest.approx(0.12, abs=0.05)
    for side in ("train", "calib"):
        assert {label for label, s in zip(labels, sides, strict=True) if s == side} == set(LABELS)


def test_official_sides_stay_and_the_rest_of_a_unit_follows_the_strictest():
    n = 7 * 20
    labels = [LABELS[i % 7] for i in range(n)]
    official = (["train"] * 100 + ["val"] * 20 + ["test"] * 20)[:n]
    units = [f"u{i}" for i in range(n)]
    units[0] = units[139]  # a train row of a test unit
    sides = assign(official, units, labels, ["s"] * n, **SHARES, seed=0, stated={"s": {"train", "val", "test"}})
    assert sides[0] == "test"
    assert sides[100:120] == ["val"] * 20
    assert sides[120:] == ["test"] * 20
    assert set(sides[1:100]) == {"train", "calib"}


def test_a_source_without_official_test_gives_one_from_its_train_rows():
    n = 7 * 40
    labels = [LABELS[i % 7] for i in range(n)]
    official = ["val" if i >= 240 else "train" for i in range(n)]
    sides = assign(
        official, [f"u{i}" for i in range(n)], labels, ["s"] * n, **SHARES, seed=0, stated={"s": {"train", "val"}}
    )
    assert sides[240:] == ["val"] * 40
    assert Counter(sides)["test"] > 0


def test_adding_a_source_keeps_the_earlier_rows_sides():
    n = 7 * 40
    labels, units = [LABELS[i % 7] for i in range(n)], [f"u{i}" for i in range(n)]
    before = assign([None] * n, units, labels, ["a"] * n, **SHARES, seed=0, stated={})
    more = [f"w{i}" for i in range(n)]
    after = assign([None] * 2 * n, units + more, labels * 2, ["a"] * n + ["b"] * n, **SHARES, seed=0, stated={})
    assert after[:n] == before


def test_a_class_with_too_few_groups_is_an_error():
    labels = ["happy"] * 20 + ["fear"]
    with pytest.raises(SplitError, match="No picture of fear is left for calib"):
        assign([None] * 21, [f"u{i}" for i in range(21)], labels, ["s"] * 21, **SHARES, seed=0, stated={})


@given(st.lists(st.integers(0, 500), min_size=1, max_size=9), st.integers(0, 3000))
def test_water_level_is_the_largest_cap_that_fits(counts, budget):
    level = water_level(counts, budget)
    assert sum(min(c, level) for c in counts) <= budget
    assert level == max(counts) or sum(min(c, level + 1) for c in counts) > budget


def test_a_person_in_two_sources_is_never_torn():
    n = 7 * 40
    labels = [LABELS[i % 7] for i in range(n)] * 2
    sources = ["official"] * n + ["free"] * n
    official = [("train", "val", "test")[(i // 7) % 3] for i in range(n)] + [None] * n
    units = [f"p{i // 7}" for i in range(n)] + [f"p{i // 7 + 20}" for i in range(n)]
    sides = assign(official, units, labels, sources, **SHARES, seed=0, stated={"official": {"train", "val", "test"}})
    together: dict[str, set[str]] = {}
    for unit, side in zip(units, sides, strict=True):
        together.setdefault(unit, set()).add(side)
    assert all(len(s) == 1 for s in together.values())
