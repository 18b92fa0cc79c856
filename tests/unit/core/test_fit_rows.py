"""Parts of calib: disjoint, whole, the same for every model and order; and rows that cannot be fitted on."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import faces
from mien.core.artifacts.calibration_rows import SHARES, CalibrationRows, deal
from mien.core.errors import InputError, SplitError
from mien.evaluate.temperature import fit_temperature


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(0, 1000))
def test_parts_are_disjoint_whole_and_the_same_in_any_order(n, seed):
    rng = np.random.default_rng(seed)
    ids, labels = np.array([f"{seed}-{i}" for i in range(n)]), rng.integers(0, 7, n)
    parts = deal(ids, labels, ids)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(n))
    order = rng.permutation(n)
    again = deal(ids[order], labels[order], ids[order])
    for name in SHARES:
        assert set(ids[order][again[name]]) == set(ids[parts[name]])


def test_shares_hold_in_every_class():
    rng = np.random.default_rng(0)
    ids, labels = np.array([str(i) for i in range(5000)]), rng.integers(0, 7, 5000)
    for name, rows in deal(ids, labels, ids).items():
        for c in range(7):
            assert (labels[rows] == c).sum() == pytest.approx(SHARES[name] * (labels == c).sum(), abs=1)


def test_near_duplicates_stay_in_one_part():
    """Groups of one to six rows, some of several classes, in any order; and as before where each row is alone."""
    rng = np.random.default_rng(1)
    groups = np.repeat([f"g{i}" for i in range(900)], rng.integers(1, 7, 900))
    n = len(groups)
    ids, labels = np.array([f"i{i}" for i in range(n)]), np.where(rng.random(n) < 0.9, 3, rng.integers(0, 7, n))
    parts = deal(ids, labels, groups)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(n))
    owners = [set(groups[rows]) for rows in parts.values()]
    assert sum(map(len, owners)) == len(set.union(*owners)) == 900
    for name, rows in parts.items():
        assert len(rows) == pytest.approx(SHARES[name] * n, rel=0.03)
    order = rng.permutation(n)
    again = deal(ids[order], labels[order], groups[order])
    assert all(set(ids[order][again[name]]) == set(ids[parts[name]]) for name in SHARES)
    keys = np.array([hashlib.sha256(f"part:{i}".encode()).hexdigest() for i in ids])
    happy = np.flatnonzero(labels == 3)
    first = happy[np.argsort(keys[happy])][: int(0.4 * len(happy))]
    assert set(first) <= set(deal(ids, labels, ids)["temperature"])


def test_parts_carry_their_name_and_are_not_dealt_again():
    rows = faces.fit_rows(200)
    part = rows.part("weights")
    assert part.name == "weights"
    assert part.take(np.arange(5)).name == "weights"
    with pytest.raises(SplitError, match="already"):
        part.part("temperature")


def test_rows_cannot_be_altered_nor_built_by_hand():
    rows = faces.fit_rows(60)
    with pytest.raises(ValueError, match="read-only"):
        rows.logits[0, 0] = 1.0
    with pytest.raises(SplitError, match="by hand"):
        CalibrationRows(rows.logits, rows.labels, rows.ids, rows.groups, "calib", token=None)
    with pytest.raises(InputError):
        rows.with_logits(rows.logits[:3])
    for name in ("logits", "labels", "split"):
        with pytest.raises(SplitError, match="cannot be set"):
            setattr(rows, name, getattr(rows, name))
    bare = object.__new__(CalibrationRows)
    bare.logits, bare.labels, bare.split = rows.logits, rows.labels, "test"
    with pytest.raises(TypeError, match="test rows may not be fitted on"):
        fit_temperature(bare)


def test_named_warnings():
    few = CalibrationRows.of(faces.predictions(np.eye(7)[:5] * 3, np.arange(5)))
    said = few.shortcomings()
    assert said[0].startswith("few_rows:")
    assert said[1] == "class_missing: calib has no sad, surprise"
    assert not faces.fit_rows(500).shortcomings()
