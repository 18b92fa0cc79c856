"""Pools against naive loops, their invariances, and weights that must earn their place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import faces
from mien.core.artifacts.calibration_rows import CalibrationRows, deal
from mien.core.errors import InputError, TemperatureNotFound
from mien.evaluate.estimators import calib_rows
from mien.evaluate.metrics import metrics, nll_rows, softmax
from mien.evaluate.pooling import diversity, fit_pool, pooled_logits, rivals, tempered
from mien.evaluate.scaling import fit_dirichlet, spread_folds
from mien.evaluate.selection import Candidate, select
from mien.evaluate.temperature import RANGE, fit_temperature, minimum
from mien.evaluate.weights import combine, equal_weights_p, search_greedy, search_grid, search_nll, simplex

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
    found = fit_pool([CalibrationRows.of(faces.predictions(z, labels)) for z in logits], [1.0, 6.0], pool)
    assert found.weighting == "nll"
    assert found.weights[0] > 0.8
    assert found.weights.sum() == pytest.approx(1)


def weighting(logits, labels, pool):
    rows = [CalibrationRows.of(faces.predictions(z, labels)) for z in logits]
    return fit_pool(rows, [1.0] * len(rows), pool, folds=3, resamples=0).weighting


@pytest.mark.parametrize("pool", POOLS)
def test_equal_members_keep_equal_weights(pool):
    searched = [weighting(*members(2000, 10 * seed, (1.0, 1.0, 1.0)), pool) != "equal" for seed in range(60)]
    assert sum(searched) <= 12  # a test of level 10 %: more than 12 of 60 come with a chance of 0.5 %


def test_the_test_of_equal_weights_holds_for_models_that_are_wrong():
    """Three members alike, over-confident on the same tenth of the rows: a likelihood-ratio test rejects in a third."""
    rejected = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        truth, labels = faces.simulated(600, seed=seed, skill=1.8)
        hot = np.where(rng.random((600, 1)) < 0.1, 5.0, 1.0)
        logits = [hot * (truth + rng.normal(0, 1, truth.shape)) for _ in range(3)]
        logs = tempered(logits, [minimum(z, labels) for z in logits])
        rejected += equal_weights_p(logs, labels, "logit") < 0.1
    assert rejected <= 18  # of 100 at level 10 %; more come with a chance of half a per cent
    assert equal_weights_p(np.stack([logs[0]] * 3), labels, "probability") == 1.0  # copies have nothing to weigh


@pytest.mark.parametrize("pool", POOLS)
def test_two_copies_share_their_weight(pool):
    """A gain of a hundredth of a nat, which 600 rows can show though single rows scatter by a fifth of one."""
    found = 0
    for seed in range(10):
        logits, labels = members(2000, 10 * seed, (1.5, 1.5))
        found += weighting([logits[0], logits[0], logits[1]], labels, pool) == "nll"
    assert found >= 8


def test_a_pool_is_calibrated_and_better_than_its_members():
    logits, labels = members(4000, 3, (1.5, 1.5))
    rows = [CalibrationRows.of(faces.predictions(z[:2000], labels[:2000])) for z in logits]
    found = fit_pool(rows, [1.0, 1.0], "logit")
    held = [z[2000:] for z in logits]
    pooled = softmax(pooled_logits(held, found.weights, [1.0, 1.0], "logit") / found.temperature.value)
    own = [
        nll_rows(softmax(z / fit_pool([r], [1.0], "logit").temperature.value), labels[2000:]).mean()
        for z, r in zip(held, rows, strict=True)
    ]
    assert nll_rows(pooled, labels[2000:]).mean() < min(own) - 0.02


@pytest.mark.parametrize("pool", POOLS)
def test_a_pools_confidence_is_its_accuracy_on_other_rows(pool):
    """Members with Dirichlet maps that hug their 400 rows: a temperature fitted on these leaves a gap of .04."""
    gaps = []
    for seed in range(12):
        logits, labels = members(3000, 20 * seed, (1.0, 1.0))
        rows = [CalibrationRows.of(faces.predictions(2 * z[:1000], labels[:1000])) for z in logits]
        maps = [fit_dirichlet(r.part("temperature"), 1e-4, 2.0) for r in rows]
        own = [r.with_logits(f.apply(r.logits)) for f, r in zip(maps, rows, strict=True)]
        found = fit_pool(own, [1.0] * 2, pool, folds=3, resamples=0)
        held = [f.apply(2 * z[1000:]) for f, z in zip(maps, logits, strict=True)]
        p = softmax(pooled_logits(held, found.weights, [1.0] * 2, pool) / found.temperature.value)
        gaps.append(metrics(p, labels[1000:])["signed_gap"])
    assert abs(np.mean(gaps)) < 0.025


def test_cross_validation_keeps_groups_in_one_fold():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 7, 400), rng.integers(0, 150, 400).astype(str)
    fold = spread_folds(labels, 5, 0, groups)
    assert all(len(set(fold[groups == g])) == 1 for g in set(groups))
    assert np.bincount(fold).min() > 60


def test_members_must_agree_on_the_groups():
    z, y = faces.simulated(400, seed=1)
    ids = [str(i) for i in range(400)]
    first, second = (
        calib_rows(z, y, split="calib", ids=ids),
        calib_rows(z, y, split="calib", ids=ids, groups=["twins"] * 2 + ids[2:]),
    )
    with pytest.raises(InputError, match="different rows"):
        fit_pool([first, second], [1.0, 1.0], "logit")


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
    assert "within 1.1 times the least: small" in found.why[-1]


def general_minimum(logs, labels, pool):
    """Weights and temperature by a general constrained minimiser with numeric slopes."""
    from scipy.optimize import minimize

    m = len(logs)

    def loss(x):
        z = combine(logs, np.clip(x[:m], 0, None) / max(x[:m].clip(0).sum(), 1e-9), pool)
        return nll_rows(softmax(z / np.exp(x[m])), labels).mean()

    done = minimize(
        loss,
        np.append(np.full(m, 1 / m), 0.0),
        method="SLSQP",
        bounds=[(0, 1)] * m + [(-2, 2)],
        constraints={"type": "eq", "fun": lambda x: x[:m].sum() - 1},
        options={"ftol": 1e-12, "maxiter": 300},
    )
    return done.x[:m], done.fun


@pytest.mark.parametrize("pool", POOLS)
def test_the_likelihoods_search_equals_a_general_minimiser(pool):
    for seed, noise in ((0, (1.0, 2.0, 1.5)), (1, (0.5, 4.0)), (2, (1.0, 1.0, 1.0, 3.0))):
        logits, labels = members(3000, seed, noise)
        logs = tempered(logits, [1.0 + s for s in noise])
        found = search_nll(logs, labels, pool, tolerance=1e-9)
        truth, least = general_minimum(logs, labels, pool)
        z = combine(logs, found, pool)
        assert nll_rows(softmax(z / minimum(z, labels)), labels).mean() == pytest.approx(least, abs=2e-5)
        assert found == pytest.approx(truth, abs=0.03)


def test_the_grid_is_all_points_of_the_simplex():
    assert len(simplex(2)) == 11
    points = simplex(3)
    assert len(points) == 66
    assert len(np.unique(np.round(points, 6), axis=0)) == 66
    assert points.sum(1) == pytest.approx(np.ones(66))
    assert points.min() == 0
    assert len(simplex(8)) <= 1001


def test_the_grids_choice_is_the_best_of_a_naive_loop():
    logits, labels = members(600, 4, (1.0, 2.0))
    logs = tempered(logits, [1.0, 1.0])
    scores = {}
    for tenths in range(11):
        w = np.array([tenths / 10, 1 - tenths / 10])
        scores[tenths] = metrics(softmax(combine(logs, w, "probability")), labels)["macro_f1"]
    best = search_grid(logs, labels, "probability")
    assert scores[round(10 * best[0])] == max(scores.values())


def test_greedy_selection_adds_with_replacement():
    logits, labels = members(1500, 7, (0.5, 0.5, 9.0))
    w = search_greedy(tempered(logits, [1.0, 1.0, 8.0]), labels, "logit", rounds=10)
    assert w.sum() == pytest.approx(1)
    assert w[2] < 0.15
    assert min(w[:2]) > 0.2


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 4), min_size=2, max_size=3), st.sampled_from(POOLS))
def test_integer_weights_are_repeats(seed, counts, pool):
    rng = np.random.default_rng(seed)
    z = [rng.normal(0, 2, (6, 7)) for _ in counts]
    weighted = pooled_logits(z, np.array(counts) / sum(counts), [1.0] * len(z), pool)
    repeated = [one for one, count in zip(z, counts, strict=True) for _ in range(count)]
    equal = pooled_logits(repeated, np.full(len(repeated), 1 / len(repeated)), [1.0] * len(repeated), pool)
    assert softmax(weighted) == pytest.approx(softmax(equal), abs=1e-9)


def test_stacking_finds_what_no_pool_can():
    """One member has two classes exchanged: a linear map of log-probabilities mends that, weights cannot."""
    logits, labels = members(4000, 8, (0.7, 0.7))
    logits[1] = logits[1][:, [1, 0, 2, 3, 4, 5, 6]]
    rows = [CalibrationRows.of(faces.predictions(z, labels)) for z in logits]
    found = rivals(rows, [1.0, 1.0], "logit")
    assert set(found) == {"equal", "nll", "grid", "greedy", "best_single", "stacking"}
    assert found["stacking"] < found["nll"] - 0.02
    assert found["nll"] <= found["equal"] + 1e-3


def test_diversity_against_counts_by_hand():
    labels = np.zeros(10, dtype=np.int64)
    first = np.array([0] * 6 + [1] * 4)
    second = np.array([0] * 4 + [1] * 2 + [0] * 1 + [2] * 3)
    (row,) = diversity({"a": first, "b": second}, labels)
    assert row["disagreement"] == pytest.approx(6 / 10)  # 2 + 1 right against wrong, 3 wrong in two ways
    assert row["double_fault"] == pytest.approx(3 / 10)
    assert row["q"] == pytest.approx((4 * 3 - 2 * 1) / (4 * 3 + 2 * 1))


def test_weights_and_temperature_come_from_parts_that_share_no_row():
    logits, labels = members(1000, 9, (0.5, 3.0))
    rows = [CalibrationRows.of(faces.predictions(z, labels)) for z in logits]
    whole = fit_pool(rows, [1.0, 3.0], "logit", seed=1)
    parts = deal(rows[0].ids, labels, rows[0].ids)
    others = np.concatenate([parts["temperature"], parts["thresholds"]])  # of members' maps, and of decisions
    spoilt = [z.copy() for z in logits]
    for z in spoilt:
        z[others] = 50.0 * np.eye(7)[labels[others]]
    again = fit_pool([CalibrationRows.of(faces.predictions(z, labels)) for z in spoilt], [1.0, 3.0], "logit", seed=1)
    assert again.weights == pytest.approx(whole.weights, abs=1e-9)
    assert again.temperature.value == pytest.approx(whole.temperature.value, rel=1e-9)


def test_selection_passes_over_what_is_not_known_and_uses_what_is():
    logits, labels = members(500, 6, (1.0,))
    same = softmax(logits[0])
    steady, wild = (0.40, 0.401, 0.399, 0.40, 0.40), (0.40, 0.60, 0.20, 0.55, 0.25)
    found = select(
        [Candidate("wild", same, 1, 1.0, wild), Candidate("steady", same, 9, 9.0, steady)], labels, resamples=100
    )
    assert found.name == "steady"
    assert "stability" in found.why[-1]
    found = select([Candidate("a", same, None, 5.0), Candidate("b", same, 3, 1.0)], labels, resamples=100)
    assert found.name == "b"
    assert any("parameters: not known of a" in line for line in found.why)


def test_selection_loses_the_best_of_equals_rarely():
    """Twelve models of one skill: at the first criterion nobody is thrown out more often than about 1 in 20."""
    thrown = 0
    for seed in range(40):
        logits, labels = members(400, 100 + seed, (1.0,) * 12)
        found = select(
            [Candidate(str(i), softmax(z / 1.4), 1) for i, z in enumerate(logits)], labels, resamples=300, seed=seed
        )
        thrown += "significantly worse:" in found.why[0]
    assert thrown <= 6


@pytest.mark.parametrize("pool", ["probability", "logit"])
def test_fixed_weights_stay_and_only_the_temperature_is_fitted(pool):
    logits, labels = members(900, 3, (0.5, 2.0))
    rows = [CalibrationRows.of(faces.predictions(z, labels)) for z in logits]
    found = fit_pool(rows, [1.0, 1.0], pool, folds=3, resamples=0, fixed=np.array([0.7, 0.3]))
    assert (found.weighting, found.heldout) == ("fixed", {})
    assert found.weights.tolist() == [0.7, 0.3]
    part = rows[0].part("weights")
    z = np.log(naive([r.part("weights").logits for r in rows], np.array([0.7, 0.3]), [1.0, 1.0], pool))
    grid = np.exp(np.linspace(-1.5, 1.5, 601))
    rows_of = [np.log(np.exp(z / t).sum(1)) - z[np.arange(len(z)), part.labels] / t for t in grid]
    assert found.temperature.value == pytest.approx(grid[int(np.argmin([r.mean() for r in rows_of]))], rel=0.01)


def test_a_pool_without_a_temperature_keeps_its_members_calibrations():
    """Members that know nothing: their best T lies on the edge, an error for one model and a warning for a pool."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 7, 900)
    useless = [calib_rows(rng.normal(0, 0.4, (900, 7)), labels, split="calib") for _ in range(2)]
    with pytest.raises(TemperatureNotFound, match="edge of its range"):
        fit_temperature(useless[0].part("weights"))
    fitted = fit_pool(useless, [1.0, 1.0], "probability")
    assert fitted.temperature.value == 1
    assert fitted.temperature.ci95 == RANGE
    assert "temperature_not_found" in fitted.warnings[0]
    known = [calib_rows(*faces.simulated(900, seed=k), split="calib") for k in (0, 0)]
    assert fit_pool(known, [1.0, 1.0], "probability").warnings == []
