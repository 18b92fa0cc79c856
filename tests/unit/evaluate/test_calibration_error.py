"""Calibration errors against netcal, torchmetrics, naive loops and simulations with a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import faces
from mien.evaluate import calibration_error as e
from mien.evaluate.metrics import softmax
from unit.evaluate.test_metrics import CASES, K, case


@pytest.fixture(scope="module")
def netcal():
    from mien.nn.torchvision_cure import import_timm

    import_timm()  # netcal imports torchvision
    import netcal.metrics

    return netcal.metrics


@pytest.mark.parametrize("name", CASES)
def test_ece_against_netcal(netcal, name):
    p, y = CASES[name]
    confidence, hit = e.top(p, y)
    inside = (confidence * e.BINS) % 1 > 1e-6  # netcal's bins are [lo, hi): on an edge the two differ
    if not inside.any():
        return
    truth = netcal.ECE(e.BINS).measure(confidence[inside], hit[inside].astype(int))
    assert e.binned_gap(confidence[inside], hit[inside]) == pytest.approx(truth, abs=1e-9)


def test_many_random_cases_against_netcal(netcal):
    for seed in range(30):
        p, y = case(20 + 40 * seed, seed, temperature=0.3 + 0.1 * seed)
        confidence, hit = e.top(p, y)
        assert e.ece(p, y) == pytest.approx(netcal.ECE(e.BINS).measure(confidence, hit.astype(int)), abs=1e-9)


def test_per_class_errors_average_to_the_classwise_one():
    p, y = CASES["random"]
    each = e.ece_by_class(p, y)
    assert each.shape == (K,)
    assert e.ece_classwise(p, y) == pytest.approx(each.mean(), abs=1e-12)
    one = e.ece_by_class(p[:, [2, *[i for i in range(K) if i != 2]]], np.where(y == 2, 0, 1))[0]
    assert each[2] == pytest.approx(one, abs=1e-12)


def test_debiased_ece_takes_off_what_a_simulation_says_is_bias():
    """The mean of ECE over redrawn hits, less ECE at the true rates, equals what is taken off."""
    rng = np.random.default_rng(0)
    n, bins = np.full(15, 200.0), np.arange(15)
    confidence = (bins + 0.5) / 15
    rates = np.clip(confidence - 0.02, 0, 1)
    hits = rng.binomial(200, rates, (4000, 15)).astype(float)
    plain = np.abs(confidence - hits / 200).mean(1)
    debiased = np.array([float(e.debiased_gap(n, n * confidence, h)) for h in hits[:800]])
    truth = np.abs(confidence - rates).mean()
    assert plain.mean() > truth + 0.004
    assert abs(debiased.mean() - truth) < 0.5 * (plain.mean() - truth)


def test_debiased_ece_of_a_calibrated_model_lies_far_under_its_ece():
    for seed in range(5):
        z, y = faces.simulated(1500, seed=seed)
        p = softmax(z)
        assert 0 <= e.ece_debiased(p, y) < 0.7 * e.ece(p, y)
        assert e.ece_debiased(softmax(4 * z), y) == pytest.approx(e.ece(softmax(4 * z), y), rel=0.05)


def naive_smooth(confidence, hit):
    """The definition: residuals through a Gaussian reflected at 0 and 1, integrated, at the width that equals it."""
    t = (np.arange(1000) + 0.5) / 1000

    def at(width):
        total = np.zeros(1000)
        for c, h in zip(confidence, hit, strict=True):
            images = [2 * k + s * c for k in range(-3, 4) for s in (1, -1)]
            kernel = sum(np.exp(-((t - x) ** 2) / (2 * width**2)) for x in images) / (width * np.sqrt(2 * np.pi))
            total += (h - c) * kernel
        return np.abs(total).mean() / len(hit)

    low, high = 1e-3, 1.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle) > middle else (low, middle)
    return at((low + high) / 2)


@pytest.mark.parametrize("seed", range(4))
def test_smooth_ece_against_the_definition(seed):
    z, y = faces.simulated(60, seed=seed, sharpness=1.0)
    p = softmax(z * (1 + seed))
    assert e.smooth_ece(p, y) == pytest.approx(naive_smooth(*e.top(p, y)), abs=2e-3)


@pytest.mark.parametrize("name", CASES)
def test_degenerate_cases_give_finite_errors(name):
    p, y = CASES[name]
    for metric in (e.ece, e.ece_debiased, e.smooth_ece, e.ece_classwise):
        assert 0 <= metric(p, y) <= 1
    if name == "perfect":
        assert e.ece(p, y) == e.ece_debiased(p, y) == pytest.approx(e.smooth_ece(p, y), abs=1e-9) == 0
    if name == "always wrong":
        assert e.ece(p, y) == e.ece_debiased(p, y) == 1
        assert e.smooth_ece(p, y) > 0.4


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 80), st.integers(0, 10_000))
def test_the_order_of_rows_and_classes_is_no_matter(n, seed):
    p, y = case(n, seed)
    rng = np.random.default_rng(seed + 1)
    rows, classes = rng.permutation(n), rng.permutation(K)
    moved = np.empty(K, dtype=int)
    moved[classes] = np.arange(K)
    for metric in (e.ece, e.ece_debiased, e.smooth_ece, e.ece_classwise):
        assert metric(p[rows], y[rows]) == pytest.approx(metric(p, y), abs=1e-9)
        assert metric(p[:, classes], moved[y]) == pytest.approx(metric(p, y), abs=1e-9)


def test_floor_is_the_mean_ece_of_redrawn_labels():
    rng = np.random.default_rng(0)
    p = softmax(rng.normal(0, 1.5, (800, K)))
    drawn = [e.binned_gap(p.max(1), (rng.random(800) < p.max(1)).astype(float)) for _ in range(300)]
    assert e.ece_floor(p, resamples=300) == pytest.approx(np.mean(drawn), rel=0.04)
