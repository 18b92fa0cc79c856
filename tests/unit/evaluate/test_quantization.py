"""A quantised model's own calibration, and the gate before it is written."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from helpers import faces
from mien.core.artifacts.calibration import Calibration
from mien.core.artifacts.calibration_rows import CalibrationRows
from mien.core.errors import MienError, SplitError
from mien.evaluate.decisions import fit_decisions
from mien.evaluate.quantization import check_int8, compare, recalibrate

ASKED = {"coverage": 0.8, "precision": None, "max_fpr": {"disgust": 0.05}, "alpha": 0.2}


def origin(rows: CalibrationRows, **changes) -> Calibration:
    """A calibration of temperature 1 on `rows`."""
    values = {
        "fingerprint": "f",
        "method": "temperature",
        "matrix": np.eye(7).tolist(),
        "bias": (0.0,) * 7,
        "temperature": 1.0,
        "temperature_ci95": (0.9, 1.1),
        "n": len(rows),
        "weights_hash": "w",
        "predictions_hash": "p",
        "map_hash": "m",
        "decisions": fit_decisions(rows.part("thresholds"), **ASKED),
        "before": {},
        "after": {},
        "test_accesses": 0,
    }
    return Calibration(**(values | changes))


def best_temperature(rows: CalibrationRows) -> float:
    def nll(t):
        z = rows.logits / t
        return float((np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), rows.labels]).mean())

    return float(minimize_scalar(nll, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-7}).x)


@pytest.mark.parametrize("factor", [0.6, 1.8])
def test_the_temperature_is_of_the_models_own_logits(factor):
    rows = faces.fit_rows(3000)
    quantised = rows.with_logits(rows.logits * factor)
    found = recalibrate(quantised, origin(rows))
    assert found.temperature == pytest.approx(best_temperature(quantised.part("temperature")), rel=1e-4)
    assert found.temperature == pytest.approx(factor * recalibrate(rows, origin(rows)).temperature, rel=1e-4)
    assert found.scaling.matrix == pytest.approx(np.eye(7) / found.temperature)
    assert not found.scaling.bias.any()


def test_thresholds_and_sets_are_its_own_and_as_they_were_asked_for():
    rows = faces.fit_rows(3000)
    rng = np.random.default_rng(1)
    worse = rows.with_logits(rows.logits + rng.normal(0, 2, rows.logits.shape))
    before = origin(rows)
    found = recalibrate(worse, before)
    assert found.decisions.asked == before.decisions.asked
    assert found.decisions.abstain_below != before.decisions.abstain_below
    part = worse.part("thresholds")
    z = part.logits / found.temperature
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    assert (p.max(1) >= found.decisions.abstain_below).mean() == pytest.approx(ASKED["coverage"], abs=0.01)
    assert found.decisions.conformal.split > before.decisions.conformal.split  # a worse model needs larger sets


def test_a_richer_map_of_the_origins_kind_is_fitted_where_it_pays():
    rows = faces.fit_rows(4000)
    offset = np.linspace(-1.5, 1.5, 7)
    found = recalibrate(rows.with_logits(rows.logits + offset), origin(rows, method="vector"))
    assert found.scaling.method == "vector"
    assert found.scaling.bias == pytest.approx(-offset, abs=0.2)
    assert recalibrate(rows.with_logits(rows.logits + offset), origin(rows)).scaling.method == "temperature"


def test_the_class_shares_that_were_asked_for_stay():
    rows = faces.fit_rows(3000)
    shift = np.log(np.array([3.0, 1, 1, 1, 1, 1, 1]))
    prior = np.exp(shift) / np.exp(shift).sum()
    asked = origin(rows, bias=tuple(shift.tolist()), prior=tuple(prior.tolist()), assumed=(1 / 7,) * 7)
    bias = recalibrate(rows, asked).scaling.bias
    assert bias - bias.mean() == pytest.approx(shift - shift.mean())


def test_test_rows_cannot_be_fitted_on():
    with pytest.raises(SplitError):
        CalibrationRows.of(faces.predictions(*faces.simulated(100), split="test"))
    with pytest.raises(TypeError):
        recalibrate(faces.predictions(*faces.simulated(100)), origin(faces.fit_rows(300)))


def probabilities(labels, wrong, confidence=0.9):
    """Rows that name their label, but for the first `wrong` ones, with this confidence."""
    named = labels.copy()
    named[:wrong] = (named[:wrong] + 1) % 7
    p = np.full((len(labels), 7), (1 - confidence) / 6)
    p[np.arange(len(labels)), named] = confidence
    return p


LABELS_OF = np.arange(1400) % 7


def test_the_gate_refuses_a_loss_of_macro_f1():
    """Of 1,400 balanced rows 140 are wrong already; 7 more (one a class, .5 points) may be, 14 may not."""
    before = probabilities(LABELS_OF, 140)
    for more, refused in ((0, False), (6, False), (14, True)):
        found = compare(before, probabilities(LABELS_OF, 140 + more), LABELS_OF)
        assert found["labels_changed"] == pytest.approx(more / 1400)
        assert found["float"]["macro_f1"] - found["int8"]["macro_f1"] == pytest.approx(more / 1400, abs=2e-4)
        if refused:
            with pytest.raises(MienError, match=r"macro-F1 0\.9000 → 0\.8900") as caught:
                check_int8(found)
            assert "without --int8" in caught.value.fix
            assert "1.0% of the labels changed" in str(caught.value)
        else:
            check_int8(found)


def test_the_gate_refuses_a_rise_of_the_calibration_error():
    before = probabilities(LABELS_OF, 140)
    check_int8(compare(before, probabilities(LABELS_OF, 140, confidence=0.905), LABELS_OF))
    with pytest.raises(MienError, match=r"ECE 0\.0000 → 0\.0300"):
        check_int8(compare(before, probabilities(LABELS_OF, 140, confidence=0.93), LABELS_OF))
    check_int8(compare(probabilities(LABELS_OF, 150), before, LABELS_OF))  # better is never refused
