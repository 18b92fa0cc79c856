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
    """Equal as far as sums in float32 tell: n rows in any order are off by up to n/2 units of 6e-8, and round once more."""
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
        for key in ("accuracy", "macro_f1", "minority_f1", "ece", "ece_debiased", "ece_classwise", "brier", "nll", "mean_confidence", "signed_gap"):  # fmt: skip
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
        low, high = bootstrap.intervals(p, y, resamples=200, seed=seed)["ece"]
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


@pytest.mark.parametrize(("sharpness", "truth"), [(1.0, 0.0), (1.6, None)])
def test_the_interval_of_the_debiased_ece_covers_the_true_error(sharpness, truth):
    """The truth: for a calibrated model 0, else the ECE of very many rows."""
    if truth is None:
        z, y = faces.simulated(400_000, seed=50, sharpness=sharpness)
        truth = e.ece(m.softmax(z), y)
    inside = 0
    for seed in range(40):
        z, y = faces.simulated(1000, seed=seed, sharpness=sharpness)
        low, high = bootstrap.intervals(m.softmax(z), y, resamples=200, seed=seed, smooth=0)["ece_debiased"]
        inside += low <= truth <= high
    assert inside >= 35
