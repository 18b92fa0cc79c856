"""Vector and Dirichlet scaling: against scikit-learn, against planted maps, and chosen only where they pay."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import faces
from mien.core.artifacts.calibration_rows import CalibrationRows
from mien.core.errors import InputError
from mien.evaluate import priors, scaling
from mien.evaluate.metrics import log_softmax, nll_rows, softmax
from mien.evaluate.temperature import fit_temperature, minimum, nll_at

RNG = np.random.default_rng(0)


def distorted(n, seed, matrix, bias):
    """Rows whose calibrated log-probabilities are matrix · log_softmax(z) + bias."""
    rng = np.random.default_rng(seed)
    z = log_softmax(rng.normal(0, 1.5, (n, 7)))
    p = softmax(z @ matrix.T + bias)
    labels = (p.cumsum(1) > rng.random((n, 1))).argmax(1)
    return CalibrationRows.of(faces.predictions(z, labels))


def test_the_newton_fit_equals_scikit_learns_ridge_regression():
    from sklearn.linear_model import LogisticRegression

    x, y = RNG.normal(0, 1, (500, 4)), RNG.integers(0, 7, 500)
    n, strength = len(y), 0.02
    truth = LogisticRegression(C=1 / (n * strength), fit_intercept=False, tol=1e-10, max_iter=5000).fit(x, y)
    found = scaling.fit_multinomial(x, y, np.zeros((7, 4)), np.full((7, 4), strength), np.ones((7, 4), dtype=bool))
    assert found == pytest.approx(truth.coef_, abs=1e-4)  # L-BFGS stops where the loss stands still, about 1e-5 off


def test_vector_scaling_finds_a_planted_map():
    scale, bias = np.array([0.5, 1.5, 1.0, 0.8, 1.2, 2.0, 0.7]), np.array([0.5, -1, 0, 0.3, 0, 0.2, 0])
    found = scaling.fit_vector(distorted(30_000, 1, np.diag(scale), bias))
    assert np.diag(found.matrix) == pytest.approx(scale, abs=0.1)
    assert found.bias == pytest.approx(bias - bias.mean(), abs=0.15)
    assert (found.matrix - np.diag(np.diag(found.matrix)) == 0).all()


def test_temperature_is_the_special_case():
    rows = faces.fit_rows(3000, sharpness=2.5)
    t = fit_temperature(rows, resamples=0).value
    map_ = scaling.by_temperature(t)
    assert softmax(map_.apply(rows.logits)) == pytest.approx(softmax(rows.logits / t), abs=1e-12)
    strong = scaling.fit_dirichlet(rows, penalty=100.0)
    gap = nll_rows(softmax(strong.apply(rows.logits)), rows.labels).mean() - nll_at(t, rows.logits, rows.labels)
    assert abs(gap) < 5e-3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(-50, 50))
def test_a_constant_added_to_all_logits_changes_nothing(seed, constant):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (20, 7))
    map_ = scaling.Scaling("dirichlet", rng.normal(0, 1, (7, 7)), rng.normal(0, 1, 7))
    assert softmax(map_.apply(z)) == pytest.approx(softmax(map_.apply(z + constant)), abs=1e-9)


def test_richer_maps_are_chosen_where_their_error_is_planted_and_rarely_elsewhere():
    crossed = np.eye(7) + 0.5 * np.roll(np.eye(7), 1, 1)
    planted = {
        "vector": (np.diag([0.4, 1.6, 1, 1, 0.5, 1.8, 1]), np.array([1.0, -1, 0, 0, 0, 0, 0])),
        "dirichlet": (crossed, np.zeros(7)),
    }
    for method, (matrix, bias) in planted.items():
        rows = distorted(4000, 2, matrix, bias)
        choice = scaling.choose(rows, fit_temperature(rows, resamples=0).value)
        assert choice.scaling.method == method, choice.why
        assert choice.heldout[method]["gain"] > 0
    kept = 0
    for seed in range(12):
        rows = faces.fit_rows(1200, seed=seed, sharpness=2.0)
        kept += scaling.choose(rows, 2.0).scaling.method == "temperature"
    assert kept >= 11


def test_heldout_nll_equals_a_naive_loop_over_folds():
    rows = faces.fit_rows(300, sharpness=2.0)
    choice = scaling.choose(rows, 2.0, folds=3, seed=4)
    fold, total = scaling.spread_folds(rows.labels, 3, 4, rows.groups), 0.0
    for f in range(3):
        t = fit_temperature(rows.take(np.flatnonzero(fold != f)), resamples=0).value
        for i in np.flatnonzero(fold == f):
            total -= np.log(softmax(rows.logits[i : i + 1] / t)[0, rows.labels[i]])
    assert choice.heldout["temperature"]["nll"] == pytest.approx(total / 300, abs=1e-6)


def test_a_class_with_few_rows_keeps_to_temperature_and_says_so():
    z, y = faces.simulated(600)
    rows = CalibrationRows.of(faces.predictions(z, np.where(y == 1, 0, y)))
    choice = scaling.choose(rows, 1.0)
    assert choice.scaling.method == "temperature"
    assert "disgust" in choice.why


def test_another_prior_equals_weighting_the_rows():
    """Calibrated probabilities shifted to another prior are calibrated on rows drawn with that prior."""
    z, y = faces.simulated(60_000, seed=3)
    p, here = softmax(z), np.bincount(y, minlength=7) / 60_000
    there = np.array([0.4, 0.05, 0.05, 0.2, 0.1, 0.1, 0.1])
    keep = np.random.default_rng(0).random(60_000) < (there / here)[y] / (there / here).max()
    moved = priors.shift(p[keep], here, there)
    assert moved.mean(0) == pytest.approx(np.bincount(y[keep], minlength=7) / keep.sum(), abs=0.006)
    by_map = scaling.by_temperature(1.0).with_prior(here, there)
    assert softmax(by_map.apply(z[keep])) == pytest.approx(moved, abs=1e-9)
    assert priors.estimate(p[keep], here) == pytest.approx(there, abs=0.015)
    assert priors.estimate(p, here) == pytest.approx(here, abs=0.02)


UNIFORM, NATURAL = np.full(7, 1 / 7), np.array([0.138, 0.015, 0.142, 0.25, 0.173, 0.168, 0.114])
OTHER = np.array([0.05, 0.3, 0.2, 0.1, 0.05, 0.1, 0.2])


def overconfident(n, shares, learned, seed):
    """Logits (n, 7), 1.8 times too large, of a model that learned the class shares `learned`; labels by `shares`."""
    rng, centres = np.random.default_rng(seed), np.random.default_rng(5).normal(0, 1, (7, 6))
    centres *= 1.9 / np.linalg.norm(centres, axis=1, keepdims=True)
    y = rng.choice(7, n, p=shares)
    seen = centres[y] + rng.normal(0, 1, (n, 6))
    return 1.8 * log_softmax(seen @ centres.T + np.log(learned)), y


@pytest.mark.parametrize(
    ("learned", "declared", "said"),
    [
        (UNIFORM, True, "declares"),
        (UNIFORM, False, "uniform|asked"),
        (NATURAL, False, "calib|asked"),
        (OTHER, False, "estimated|asked"),
        (OTHER, True, "declares"),
    ],
)
@pytest.mark.parametrize("target", [UNIFORM, NATURAL, OTHER])
def test_true_shares_never_cost_after_a_temperature(learned, declared, said, target):
    z, y = overconfident(1200, NATURAL, learned, 1)
    rows = CalibrationRows.of(faces.predictions(z, y))
    fitted = scaling.by_temperature(minimum(z, y))
    found = priors.assumed_by(fitted, rows, target, learned.tolist() if declared else None)
    assert re.search(said, found.why)
    assert np.log(found.shares) == pytest.approx(np.log(learned), abs=0.45)
    held, truth = overconfident(20_000, target, learned, 2)
    before, after = (
        nll_rows(softmax(m.apply(held)), truth).mean() for m in (fitted, fitted.with_prior(found.shares, target))
    )
    assert after <= before + 0.005
    if not np.array_equal(learned, target):
        assert after < before - 0.05


def test_biases_assume_the_shares_of_the_rows():
    z, y = overconfident(1200, NATURAL, UNIFORM, 1)
    rows = CalibrationRows.of(faces.predictions(z, y))
    found = priors.assumed_by(scaling.fit_vector(rows), rows, UNIFORM, UNIFORM.tolist())
    assert found.shares == pytest.approx(np.bincount(y, minlength=7) / 1200, abs=1e-3)


def test_the_estimate_of_assumed_shares_is_what_a_general_minimiser_finds():
    from scipy.optimize import minimize

    z, y = overconfident(800, NATURAL, OTHER, 3)
    z = z / 1.8
    found = priors.assumed_shares(z, y, {"uniform ones": UNIFORM})
    assert found.why.startswith("estimated")
    best = minimize(lambda b: nll_rows(softmax(z + b), y).mean() + 1e-9 * (b**2).sum(), np.zeros(7), tol=1e-12).x
    here = np.bincount(y, minlength=7) / 800
    assert found.shares == pytest.approx(softmax((np.log(here) - best)[None])[0], abs=0.03)


@pytest.mark.parametrize("prior", [[0.5, 0.5], [1.0, 0, 0, 0, 0, 0, 0], [0.3] * 7, [np.nan] * 7])
def test_shares_that_are_none(prior):
    with pytest.raises(InputError, match="sum to 1"):
        priors.shift(np.full((2, 7), 1 / 7), np.full(7, 1 / 7), np.array(prior))
