"""The bootstrap's matrix products against metrics of really resampled rows."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import faces
from mien.evaluate import bootstrap
from mien.evaluate import calibration_error as e
from mien.evaluate import metrics as m
from mien.evaluate.selection import baselines


def near(value):
    """Equal within float32 sums: n rows in any order are off by up to n/2 units of 6e-8, and are rounded once more."""
    return pytest.approx(value, rel=2e-5, abs=1e-5)


def test_every_metric_equals_that_of_the_resampled_rows():
    rng = np.random.default_rng(0)
    p, y = m.softmax(rng.normal(0, 2, (80, 7))), rng.integers(0, 7, 80)
    found = bootstrap.resampled(p, y, resamples=6, seed=3)
    weights = np.concatenate(list(bootstrap._weights(80, 6, 3)))
    assert set(found) == set(bootstrap.METRICS)
    for r, w in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(80), w)
        truth = m.metrics(p[rows], y[rows])
        for key in (
            "accuracy",
            "macro_f1",
            "macro_f1_present",
            "minority_f1",
            "ece",
            "ece_debiased",
            "ece_classwise",
            "brier",
            "nll",
            "mean_confidence",
            "signed_gap",
        ):
            assert found[key][r] == near(truth[key]), key
        assert found["f1_fear"][r] == near(truth["per_class_f1"]["fear"])
        assert found["ece_fear"][r] == near(truth["per_class_ece"]["fear"])


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for repeat in range(60):
        y = rng.integers(0, 7, 200)
        right = rng.random(200) < 0.7
        p = np.eye(7)[np.where(right, y, (y + 1) % 7)]
        low, high = bootstrap.intervals(p, y, resamples=300, seed=repeat, smooth=0)["accuracy"]
        inside += low <= 0.7 <= high
    assert 50 <= inside <= 60


@pytest.mark.slow
@pytest.mark.parametrize("n", [60, 500, 3000])
def test_intervals_of_ece_hold_the_estimate_and_cover_the_truth(n):
    """A calibrated model's ECE has expectation about its floor; the raw percentiles lie far above it."""
    inside = 0
    for seed in range(20):
        z, y = faces.simulated(n, seed=seed)
        p = m.softmax(z)
        low, high = bootstrap.intervals(p, y, resamples=200, seed=seed, smooth=0)["ece"]
        assert 0 <= low <= e.ece(p, y) <= high
        inside += low <= e.ece_floor(p) <= high
    assert inside >= 17


def test_two_models_see_the_same_resamples():
    rng = np.random.default_rng(2)
    p, y = m.softmax(rng.normal(0, 2, (100, 7))), rng.integers(0, 7, 100)
    a, b = (bootstrap.resampled(p, y, resamples=20, seed=5)["nll"] for _ in range(2))
    assert a == near(b)
    assert a.std() > 0.01


def test_several_models_at_once_are_each_by_itself():
    rng = np.random.default_rng(4)
    y = rng.integers(0, 7, 120)
    several = [m.softmax(rng.normal(0, 2, (120, 7))) for _ in range(3)]
    together = bootstrap.resampled_many(several, y, resamples=70, seed=1)
    for p, found in zip(several, together, strict=True):
        alone = bootstrap.resampled(p, y, resamples=70, seed=1)
        assert all(found[key] == near(alone[key]) for key in alone)
    basic = bootstrap.resampled_many(several, y, resamples=70, seed=1, full=False)[0]
    assert set(basic) == set(bootstrap.BASIC)


def test_the_interval_of_the_smooth_error_holds_its_estimate():
    z, y = faces.simulated(400, seed=3, sharpness=2.0)
    p = m.softmax(z)
    low, high = bootstrap.intervals(p, y, resamples=100, smooth=60)["smooth_ece"]
    assert low < m.metrics(p, y)["smooth_ece"] < high
    assert "smooth_ece" not in bootstrap.intervals(p, y, resamples=100, smooth=0)


def test_the_ratio_of_two_models_is_paired():
    z, y = faces.simulated(400, seed=5)
    p, worse = m.softmax(z), m.softmax(z + np.random.default_rng(0).normal(0, 1, z.shape))
    assert bootstrap.ratio([p, p], y, "macro_f1", resamples=50) == pytest.approx(np.ones(50))
    found = bootstrap.ratio([worse, p], y, "macro_f1", resamples=300, seed=4)
    each = [bootstrap.resampled(q, y, resamples=300, seed=4)["macro_f1"] for q in (worse, p)]
    assert found == pytest.approx(each[0] / each[1], rel=1e-5)
    low, high = bootstrap.interval(found)
    assert low < m.metrics(worse, y)["macro_f1"] / m.metrics(p, y)["macro_f1"] < high < 1


def test_mcnemar_is_the_exact_binomial():
    first = np.array([True] * 9 + [False] * 1 + [True] * 20)
    second = np.array([False] * 9 + [True] * 1 + [True] * 20)
    found = bootstrap.mcnemar(first, second)
    assert (found["only_first"], found["only_second"]) == (9, 1)
    assert found["p"] == pytest.approx(2 * (1 + 10) / 2**10)
    assert bootstrap.mcnemar(first, first)["p"] == 1.0


def test_baselines_equal_a_simulation():
    rng = np.random.default_rng(0)
    y = rng.choice(7, 4000, p=[0.3, 0.05, 0.1, 0.25, 0.1, 0.1, 0.1])
    rows = baselines(y, y)
    chance = np.mean([m.metrics(np.eye(7)[rng.integers(0, 7, 4000)], y)["macro_f1"] for _ in range(20)])
    assert rows["chance"]["macro_f1"] == pytest.approx(chance, abs=0.005)
    truth = m.metrics(np.eye(7)[np.zeros(4000, dtype=int)], y)
    assert rows["always angry"]["accuracy"] == pytest.approx(truth["accuracy"])
    assert rows["always angry"]["macro_f1"] == pytest.approx(truth["macro_f1"])


def test_the_interval_of_the_true_error_covers_it_whatever_the_over_confidence_and_n():
    """Of a model that is calibrated, a little, and far over-confident, on few rows and on many."""
    covered = []
    for sharpness in (1.0, 1.1, 1.25, 1.5):
        z, y = faces.simulated(350_000, seed=50, sharpness=sharpness)
        p, right = m.softmax(z), m.softmax(z / sharpness)
        gap = (p - right)[np.arange(len(y)), p.argmax(1)]  # of the confidence to the chance of being right
        truth = np.abs(np.bincount(e.bin_of(p.max(1)), gap)).sum() / len(y)
        for n in (1000, 3500):
            rows = [slice(i * n, (i + 1) * n) for i in range(100)]
            ends = np.array([e.ece_interval(p[r], y[r], np.arange(n)) for r in rows])
            covered.append(((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean())
    assert min(covered) >= 0.87  # 95 % less 3.5 standard errors
    assert 0.92 <= np.mean(covered) <= 0.98


def test_the_interval_of_the_true_error_holds_its_estimate():
    for n in (30, 400):
        for seed in range(10):
            z, y = faces.simulated(n, seed=seed, sharpness=1.5)
            low, high = bootstrap.intervals(m.softmax(z), y, resamples=20, smooth=0)["ece_debiased"]
            assert 0 <= low <= e.ece_debiased(m.softmax(z), y) <= high <= 1


def test_near_duplicates_widen_every_interval():
    """Each row four times: no more is known than from the rows once."""
    z, y = faces.simulated(300, seed=1, sharpness=1.4)
    p, groups = m.softmax(z), np.array([f"g{i}" for i in range(300)])
    alone = bootstrap.intervals(p, y, resamples=300, smooth=60)
    copied = bootstrap.intervals(
        np.repeat(p, 4, 0), np.repeat(y, 4), resamples=300, smooth=60, groups=np.repeat(groups, 4)
    )
    blind = bootstrap.intervals(np.repeat(p, 4, 0), np.repeat(y, 4), resamples=300, smooth=60)
    for name in ("accuracy", "macro_f1", "nll", "smooth_ece"):
        assert copied[name] == pytest.approx(alone[name], abs=1e-5)
        assert np.diff(blind[name]) < 0.7 * np.diff(copied[name])
    assert np.diff(copied["ece_debiased"]) == pytest.approx(np.diff(alone["ece_debiased"]), rel=0.3)
    assert np.diff(blind["ece_debiased"]) < 0.7 * np.diff(copied["ece_debiased"])


def test_groups_are_resampled_in_whole():
    rng = np.random.default_rng(7)
    p, y, groups = m.softmax(rng.normal(0, 2, (60, 7))), rng.integers(0, 7, 60), rng.integers(0, 25, 60).astype(str)
    number = bootstrap.group_numbers(groups, 60)
    for i in range(60):
        assert (number == number[i]).tolist() == (groups == groups[i]).tolist()
    found = bootstrap.resampled(p, y, resamples=6, seed=3, groups=groups)
    weights = np.concatenate(list(bootstrap._weights(len(set(groups)), 6, 3)))
    for r, w in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(60), w[number])
        truth = m.metrics(p[rows], y[rows])
        for key in ("accuracy", "macro_f1", "ece", "ece_debiased", "ece_classwise", "nll"):
            assert found[key][r] == pytest.approx(truth[key], abs=1e-5), key
    apart = bootstrap.resampled(p, y, resamples=6, seed=3, groups=np.arange(60).astype(str))
    plain = bootstrap.resampled(p, y, resamples=6, seed=3)
    assert all((apart[key] == plain[key]).all() for key in plain)
