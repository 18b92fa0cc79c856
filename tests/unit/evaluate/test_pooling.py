"""Pools against naive loops, their invariances, and weights that must earn their place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import faces
from mien.core.artifacts.predictions import FitRows
from mien.core.errors import InputError
from mien.evaluate.metrics import nll_rows, softmax
from mien.evaluate.pooling import fit_pool, pooled_logits
from mien.evaluate.selection import Candidate, select

POOLS = ("probability", "logit")


def naive(members, weights, temperatures, pool):
    out = []
    for i in range(len(members[0])):
        row = np.zeros(7)
        for z, w, t in zip(members, weights, temperatures, strict=True):
            p = np.exp(z[i] / t) / np.exp(z[i] / t).sum()
            row += w * (p if pool == "probability" else np.log(p))
        row = row if pool == "probability" else np.exp(row)
        out.append(row / row.sum())
    return np.array(out)


@pytest.mark.parametrize("pool", POOLS)
def test_pool_equals_a_naive_loop(pool):
    rng = np.random.default_rng(0)
    members = [rng.normal(0, 2, (20, 7)) for _ in range(3)]
    weights, temperatures = np.array([0.5, 0.2, 0.3]), [1.0, 2.0, 0.7]
    found = softmax(pooled_logits(members, weights, temperatures, pool))
    assert found == pytest.approx(naive(members, weights, temperatures, pool), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 0.95), st.sampled_from(POOLS))
def test_splitting_a_member_keeps_the_pool(seed, share, pool):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 2, (10, 7)), rng.normal(0, 2, (10, 7))
    whole = pooled_logits([a, b], np.array([0.6, 0.4]), [1.0, 1.5], pool)
    split = pooled_logits([a, a, b], np.array([0.6 * share, 0.6 * (1 - share), 0.4]), [1.0, 1.0, 1.5], pool)
    assert softmax(whole) == pytest.approx(softmax(split), abs=1e-9)


def test_weights_must_be_shares():
    z = [np.zeros((2, 7)), np.zeros((2, 7))]
    for weights in ([0.7, 0.7], [1.2, -0.2]):
        with pytest.raises(InputError):
            pooled_logits(z, np.array(weights), [1.0, 1.0], "logit")


def members(n, seed, noise):
    """Models that see the truth through noise of different strength."""
    truth, labels = faces.simulated(n, seed=seed, skill=2.0)
    rng = np.random.default_rng(seed + 1)
    return [truth + rng.normal(0, s, truth.shape) for s in noise], labels


@pytest.mark.parametrize("pool", POOLS)
def test_a_useless_member_loses_its_weight(pool):
    logits, labels = members(3000, 0, (0.5, 8.0))
    found = fit_pool([FitRows.of(faces.predictions(z, labels)) for z in logits], [1.0, 6.0], pool)
    assert found.weighting == "fitted"
    assert found.weights[0] > 0.8
    assert found.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("pool", POOLS)
def test_equal_members_keep_equal_weights(pool):
    kept = 0
    for seed in range(8):
        logits, labels = members(800, 10 * seed, (1.0, 1.0))
        kept += (
            fit_pool([FitRows.of(faces.predictions(z, labels)) for z in logits], [1.0, 1.0], pool, folds=3).weighting
            == "equal"
        )
    assert kept >= 7


def test_a_pool_is_calibrated_and_better_than_its_members():
    logits, labels = members(4000, 3, (1.5, 1.5))
    rows = [FitRows.of(faces.predictions(z[:2000], labels[:2000])) for z in logits]
    found = fit_pool(rows, [1.0, 1.0], "logit")
    held = [z[2000:] for z in logits]
    pooled = softmax(pooled_logits(held, found.weights, [1.0, 1.0], "logit") / found.temperature.value)
    own = [
        nll_rows(softmax(z / fit_pool([r], [1.0], "logit").temperature.value), labels[2000:]).mean()
        for z, r in zip(held, rows, strict=True)
    ]
    assert nll_rows(pooled, labels[2000:]).mean() < min(own) - 0.02


def test_selection_prefers_what_is_really_better_and_says_why():
    logits, labels = members(3000, 5, (0.3, 3.0))
    found = select(
        [Candidate("good", softmax(logits[0]), 10), Candidate("bad", softmax(logits[1] / 3), 1)], labels, resamples=200
    )
    assert found.name == "good"
    assert "significantly worse: bad" in found.why[0]


def test_of_equals_the_smaller_is_selected():
    logits, labels = members(500, 6, (1.0,))
    same = softmax(logits[0])
    found = select([Candidate("large", same, 100), Candidate("small", same, 1)], labels, resamples=100)
    assert found.name == "small"
    assert "fewest parameters" in found.why[-1]
