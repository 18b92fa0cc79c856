"""Bounds on published figures against random models, and the figures that they rule out."""

from __future__ import annotations

import numpy as np
import pytest

from mien.core.config.earlier import EarlierReport
from mien.evaluate.calibration_error import ece
from mien.evaluate.metrics import softmax
from mien.evaluate.published import FALSE, OPEN, TRUE, check_published, confidence_range, largest_move


def score(model, where, **figures):
    return {"model": model, "where": where} | figures


def checked(*scores, shares=(), best=None):
    report = {"title": "r", "scores": scores, "shares": shares, "best_single": best or {}}
    return check_published(EarlierReport.model_validate(report))


def test_no_model_breaks_the_range_of_its_confidence():
    rng = np.random.default_rng(0)
    for _ in range(300):
        p = softmax(rng.normal(0, rng.uniform(0.1, 6), (60, 7)))
        y = np.where(rng.random(60) < rng.random(), p.argmax(1), rng.integers(0, 7, 60))
        low, high = confidence_range(float((p.argmax(1) == y).mean()), ece(p, y))
        assert low - 1e-9 <= p.max(1).mean() <= high + 1e-9


def test_the_range_is_reached():
    """Right answers at 1/7 and wrong ones at 1 are all of the gap there is; one of two thirds is its middle."""
    low, high = confidence_range(0.8051, 0.627)
    assert (low, high) == (pytest.approx(0.8051 - 0.627), pytest.approx(0.8051 - 0.627 + 2 * (1 - 0.8051)))


@pytest.mark.parametrize(("first", "second"), [(1.0, 1.2), (0.8, 1.2), (2.0, 1.0)])
def test_no_probability_moves_further(first, second):
    rng = np.random.default_rng(1)
    z = rng.normal(0, 1, (200_000, 7)) * rng.uniform(0, 8, (200_000, 1))
    moved = np.abs(softmax(z / first) - softmax(z / second)).max()
    bound = largest_move(first, second)
    assert moved <= bound + 1e-6
    six = np.array([[d, *[0.0] * 6] for d in np.linspace(0, 12, 2001)])
    assert np.abs(softmax(six / first) - softmax(six / second)).max() == pytest.approx(bound, abs=1e-4)


def test_two_errors_of_one_set_of_logits_that_cannot_both_be():
    apart = (
        score("pair", "a", accuracy=0.8051, ece=0.627, temperature=1.0),
        score("pair", "b", ece=0.0993, temperature=1.2),
    )
    (row,) = checked(*apart)
    assert row["verdict"] == FALSE
    assert row["stated"] == pytest.approx(0.8051 - 0.0993)
    assert row["high"] == pytest.approx(0.5679 + 0.1005, abs=2e-4)
    near = (score("pair", "a", accuracy=0.8, ece=0.13, temperature=1.0), score("pair", "b", ece=0.09, temperature=1.2))
    assert [r["verdict"] for r in checked(*near)] == [TRUE]


def test_two_errors_under_one_calibration_are_one_figure():
    assert [r["verdict"] for r in checked(score("b3", "a", ece=0.2066), score("b3", "b", ece=0.2036))] == [FALSE]
    assert checked(score("b3", "a", ece=0.2066), score("b3", "b", ece=0.2066)) == []


def test_means_shares_edges_and_the_best_single_model():
    f1 = dict(
        zip(
            ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
            (0.7557, 0.7654, 0.7524, 0.8812, 0.8127, 0.7023, 0.8843),
            strict=True,
        )
    )
    rows = checked(
        score("pair", "seven", macro_f1=0.7934, minority_f1=0.75, per_class_f1=f1, joined=True),
        score("rn18", "nine", macro_f1=0.7701, temperature=1.2, swept=(0.8, 1.2)),
        score("b3", "nine", macro_f1=0.7627, temperature=1.0, swept=(0.8, 1.2)),
        shares=[
            {"what": "minority", "part": 19680, "whole": 72981, "per_cent": 26.96, "digits": 2},
            {"what": "neutral", "part": 22083, "whole": 93675, "per_cent": 23.57, "digits": 2},
        ],
        best={"b3": "three", "rn18": "summary", "unknown": "x"},
    )
    found = {row["what"]: row["verdict"] for row in rows}
    assert found == {
        "macro-F1 of pair": TRUE,
        "minority-F1 of pair": FALSE,
        "temperature of rn18": OPEN,
        "minority (%)": FALSE,
        "neutral (%)": TRUE,
        "b3 as the best single model by macro-F1": FALSE,
        "rn18 as the best single model by macro-F1": TRUE,
    }
