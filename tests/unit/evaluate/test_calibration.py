"""Temperature scaling finds the planted truth, and refuses what cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import faces
from mien.core.artifacts.calibration_rows import CalibrationRows
from mien.core.errors import CalibrationError, InputError, SplitError
from mien.evaluate import abstention, conformal, pooling, scaling
from mien.evaluate import temperature as c
from mien.evaluate.calibration_error import ece, ece_floor
from mien.evaluate.metrics import softmax

FITTERS = (
    c.fit_temperature,
    c.fit_by_sweep,
    scaling.fit_vector,
    scaling.fit_dirichlet,
    lambda r: scaling.choose(r, 1.0),
    lambda r: pooling.fit_pool([r], [1.0], "logit"),
    lambda r: pooling.rivals([r, r], [1.0, 1.0], "logit"),
    lambda r: abstention.threshold_for_coverage(r, 0.9),
    lambda r: abstention.threshold_for_precision(r, 0.9),
    lambda r: abstention.class_thresholds(r, {}),
    conformal.fit_conformal,
)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0, 10.0])
def test_the_planted_temperature_is_found_within_its_interval(sharpness):
    found = c.fit_temperature(faces.fit_rows(4000, sharpness=sharpness), resamples=60)
    assert found.value == pytest.approx(sharpness, rel=0.08)
    assert found.ci95[0] < found.value < found.ci95[1]


def test_calibrated_ece_falls_to_its_floor_on_other_rows():
    t = c.fit_temperature(faces.fit_rows(4000, sharpness=4.0), resamples=0).value
    logits, labels = faces.simulated(4000, seed=9, sharpness=4.0)
    before, after = softmax(logits), softmax(logits / t)
    assert ece(before, labels) > 0.15
    assert ece(after, labels) < 1.6 * ece_floor(after)


def test_the_minimum_equals_a_fine_grid():
    rows = faces.fit_rows(600, sharpness=2.0)
    grid = np.geomspace(0.5, 8, 4001)
    best = grid[np.argmin([c.nll_at(t, rows.logits, rows.labels) for t in grid])]
    assert c.fit_temperature(rows, resamples=0).value == pytest.approx(best, rel=2e-3)


@pytest.mark.parametrize("labels", ["all right", "all wrong"])
def test_an_optimum_on_the_edge_is_an_error(labels):
    logits = np.random.default_rng(0).normal(0, 2, (200, 7))
    right = logits.argmax(1)
    wrong = logits.argmin(1)
    rows = CalibrationRows.of(faces.predictions(logits, right if labels == "all right" else wrong))
    with pytest.raises(CalibrationError, match="edge"):
        c.fit_temperature(rows, resamples=0)


def test_where_the_edges_are():
    assert c.at_edge(0.05)
    assert c.at_edge(20.0)
    assert not c.at_edge(1.2)


def test_confidence_that_rises_with_temperature_is_an_error():
    with pytest.raises(CalibrationError, match="rises"):
        c.check_falling((1.0, 1.2), [0.3, 0.8])
    c.check_falling((1.0, 1.2), [0.8, 0.3])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_mean_confidence_of_one_model_never_rises(seed):
    c.check_direction(np.random.default_rng(seed).normal(0, 3, (50, 7)))


def test_fitters_take_fit_rows_alone():
    logits, labels = faces.simulated(50)
    for fit in FITTERS:
        with pytest.raises(TypeError, match="CalibrationRows"):
            fit((logits, labels))
        with pytest.raises(TypeError, match="CalibrationRows"):
            fit(faces.predictions(logits, labels, split="test"))
    with pytest.raises(SplitError, match="test decides nothing"):
        CalibrationRows.of(faces.predictions(logits, labels, split="test"))
    with pytest.raises(SplitError, match="by hand"):
        CalibrationRows(logits, labels, np.array(["a"] * 50), np.array(["a"] * 50), "calib", token=object())


def test_the_interval_equals_that_of_refits():
    """The bootstrap interpolates slopes; refitting every resample, by a general minimiser, is the slow truth."""
    from scipy.optimize import minimize_scalar

    for n, seed in ((60, 0), (400, 1)):
        rows = faces.fit_rows(n, seed=seed, sharpness=2.0)
        found = c.fit_temperature(rows, resamples=150, seed=5)
        rng, refitted = np.random.default_rng(5), []
        for _ in range(150):
            drawn = rng.integers(0, n, n)
            z, y = rows.logits[drawn], rows.labels[drawn]
            best = minimize_scalar(lambda x, z=z, y=y: c.nll_at(np.exp(x), z, y), bounds=(-3, 3), method="bounded")
            refitted.append(np.exp(best.x))
        assert found.ci95 == pytest.approx(np.quantile(refitted, [0.025, 0.975]), rel=0.01)


def test_the_reports_sweep_finds_what_lies_inside_and_refuses_its_edges():
    inside = c.fit_by_sweep(faces.fit_rows(4000, sharpness=1.0))
    assert 0.9 < inside.value < 1.1
    for sharpness in (0.5, 3.0):
        with pytest.raises(CalibrationError, match="--method temperature"):
            c.fit_by_sweep(faces.fit_rows(2000, sharpness=sharpness))


def test_the_sweep_orders_by_nll_then_ece():
    rows = faces.fit_rows(3000)
    grid = np.linspace(0.8, 1.2, 21)
    naive = min(
        grid,
        key=lambda t: (
            round(c.nll_at(t, rows.logits, rows.labels), 6),
            round(ece(softmax(rows.logits / t), rows.labels), 6),
        ),
    )
    assert c.fit_by_sweep(rows).value == pytest.approx(naive)


def test_the_reports_puzzle():
    """ECE .620 at T = 1 and .098 at T = 1.2, of one model at accuracy .8: unscaled cosines in the first row, s = 30 in
    the second. Each step of the way is now refused: the cosines by the reader, by the gap alarm if forced in; the jump
    between the rows by the rule that confidence falls with T."""
    from mien.evaluate.metrics import alarms, metrics

    rng = np.random.default_rng(1)
    labels = rng.integers(0, 7, 4000)
    cosines = rng.normal(0, 0.12, (4000, 7)).clip(-1, 1)
    cosines[np.arange(4000), labels] += 0.25
    bare, scaled = softmax(cosines), softmax(30 * cosines / 1.2)
    assert 0.5 < ece(bare, labels) < 0.75
    assert ece(scaled, labels) < 0.12
    with pytest.raises(InputError, match="Multiply by the head's scale"):
        faces.predictions(cosines, labels, head="arcface")
    assert "scale" in alarms(metrics(bare, labels))[0]
    with pytest.raises(CalibrationError, match="can only fall"):
        c.check_falling((1.0, 1.2), [float(bare.max(1).mean()), float(scaled.max(1).mean())])


def test_bare_cosines_are_refused_and_caught_by_the_gap_if_forced_in():
    cosines = np.random.default_rng(0).uniform(-1, 1, (300, 7))
    with pytest.raises(InputError, match="bare cosines"):
        faces.predictions(cosines, cosines.argmax(1), head="arcface")
    from mien.evaluate.metrics import alarms, metrics

    assert alarms(metrics(softmax(cosines), cosines.argmax(1)))
