"""Temperature scaling finds the planted truth, and refuses what cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import faces
from mien.core.artifacts.predictions import FitRows
from mien.core.errors import CalibrationError, InputError, SplitError
from mien.evaluate import calibration as c
from mien.evaluate.metrics import ece, ece_floor, softmax


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
    rows = FitRows.of(faces.predictions(logits, right if labels == "all right" else wrong))
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
    with pytest.raises(TypeError, match="FitRows"):
        c.fit_temperature((logits, labels))
    with pytest.raises(TypeError, match="FitRows"):
        c.threshold_for_coverage((logits, labels), 1.0, 0.9)
    with pytest.raises(SplitError, match="test decides nothing"):
        FitRows.of(faces.predictions(logits, labels, split="test"))
    with pytest.raises(SplitError, match="by hand"):
        FitRows(logits, labels, "calib", token=object())


def test_threshold_answers_the_wanted_share():
    rows = faces.fit_rows(2000)
    threshold = c.threshold_for_coverage(rows, 1.0, 0.8)
    assert (softmax(rows.logits).max(1) >= threshold).mean() == pytest.approx(0.8, abs=0.005)
    assert c.threshold_for_coverage(rows, 1.0, 1.0) == 0.0


def test_bare_cosines_are_refused_and_caught_by_the_gap_if_forced_in():
    cosines = np.random.default_rng(0).uniform(-1, 1, (300, 7))
    with pytest.raises(InputError, match="bare cosines"):
        faces.predictions(cosines, cosines.argmax(1), head="arcface")
    from mien.evaluate.metrics import alarms, metrics

    assert alarms(metrics(softmax(cosines), cosines.argmax(1)))
