"""The kit's objects: the same as the functions, and closed to test rows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from helpers import faces
from mien.core.errors import InputError, SplitError, UsageError
from mien.core.labels import LABELS
from mien.evaluate import estimators as e
from mien.evaluate.bootstrap import with_intervals
from mien.evaluate.metrics import nll_rows, softmax
from mien.evaluate.temperature import fit_temperature

Z, Y = faces.simulated(2000, seed=1, sharpness=3.0)
OTHER, TRUTH = faces.simulated(2000, seed=2, sharpness=3.0)


@pytest.mark.parametrize("kind", [e.TemperatureScaling, e.VectorScaling, e.DirichletScaling, e.AutoScaling])
def test_calibrators_calibrate_other_rows(kind):
    model = kind().fit(e.calib_rows(Z, Y, split="calib"))
    p = model.predict_proba(OTHER)
    assert p.sum(1) == pytest.approx(np.ones(2000))
    assert nll_rows(p, TRUTH).mean() < nll_rows(softmax(OTHER), TRUTH).mean() - 0.2


def test_the_temperature_is_that_of_the_function():
    model = e.TemperatureScaling(resamples=20).fit(e.calib_rows(Z, Y, split="calib"))
    assert model.temperature_.value == fit_temperature(e.calib_rows(Z, Y, split="calib"), resamples=0).value
    assert e.AutoScaling().fit(e.calib_rows(Z, Y, split="calib")).choice_.scaling.method == "temperature"


def test_huge_logits_are_scaled_down_or_refused():
    from mien.core.errors import CalibrationError

    model = e.VectorScaling().fit(e.calib_rows(5 * Z, Y, split="calib"))
    assert nll_rows(model.predict_proba(5 * OTHER), TRUTH).mean() == pytest.approx(
        nll_rows(e.VectorScaling().fit(e.calib_rows(Z, Y, split="calib")).predict_proba(OTHER), TRUTH).mean(), abs=1e-3
    )
    with pytest.raises(CalibrationError, match="edge"):
        e.VectorScaling().fit(e.calib_rows(1e4 * Z, Y, split="calib"))


def test_a_pool_of_two():
    rng = np.random.default_rng(0)
    a, b = (OTHER / 3 + rng.normal(0, 1, OTHER.shape) for _ in range(2))
    pool = e.Pool().fit(
        [e.calib_rows(a[:1000], TRUTH[:1000], split="calib"), e.calib_rows(b[:1000], TRUTH[:1000], split="calib")]
    )
    joined = nll_rows(pool.predict_proba([a[1000:], b[1000:]]), TRUTH[1000:]).mean()
    assert joined < min(nll_rows(softmax(z[1000:]), TRUTH[1000:]).mean() for z in (a, b)) - 0.02
    assert pool.fitted_.weighting in ("equal", "nll")


def test_sets_cover():
    p = softmax(OTHER)
    for kind in ("split", "class_conditional", "raps"):
        sets = e.ConformalSets(kind=kind).fit(e.calib_rows(Z, Y, split="calib")).predict_set(p)
        assert sets[np.arange(2000), TRUTH].mean() == pytest.approx(0.9, abs=0.025)


def test_labels_may_be_names():
    rows = e.calib_rows(Z, np.array(LABELS)[Y], split="calib")
    assert (rows.labels == Y).all()


def test_test_rows_and_what_cannot_be():
    with pytest.raises(SplitError, match="test decides nothing"):
        e.calib_rows(Z, Y, split="test")
    with pytest.raises(TypeError, match="split"):
        e.calib_rows(Z, Y)
    with pytest.raises(InputError, match="in the order"):
        e.calib_rows(Z[:, :6], Y, split="calib")
    with pytest.raises(InputError, match="NaN"):
        e.calib_rows(np.where(Z > 3, np.nan, Z), Y, split="calib")
    with pytest.raises(InputError, match="Labels reach"):
        e.calib_rows(Z, Y + 1, split="calib")
    with pytest.raises(InputError, match="bare cosines"):
        e.calib_rows(np.clip(Z, -1, 1), Y, split="calib")
    with pytest.raises(InputError, match="None"):
        e.calib_rows(Z[:3], [None, "happy", "sad"], split="calib")
    with pytest.raises(InputError, match="twice"):
        e.calib_rows(Z[:3], Y[:3], ids=["a", "b", "a"], split="calib")
    with pytest.raises(InputError, match="shape"):
        e.calib_rows(Z[:3], np.eye(7)[Y[:3]], split="calib")
    assert len(e.calib_rows(np.clip(Z, -1, 1), Y, head="linear", split="calib")) == 2000
    with pytest.raises(InputError, match="different rows"):
        e.Pool().fit(
            [e.calib_rows(Z, Y, split="calib"), e.calib_rows(Z, Y, ids=[f"x{i}" for i in range(2000)], split="calib")]
        )
    with pytest.raises(InputError, match="No member"):
        e.Pool().fit([])
    for wrong in ({"pool": "prob"}, {"searches": ("foo",)}):
        with pytest.raises(InputError, match="Pools:"):
            e.Pool(**wrong).fit([e.calib_rows(Z, Y, split="calib")])
    with pytest.raises(InputError, match="alpha"):
        e.ConformalSets(alpha=1.5).fit(e.calib_rows(Z, Y, split="calib"))
    with pytest.raises(InputError, match="no probabilities"):
        e.ConformalSets().fit(e.calib_rows(Z, Y, split="calib")).predict_set(OTHER)
    with pytest.raises(InputError, match="kind"):
        e.ConformalSets(kind="foo").fit(e.calib_rows(Z, Y, split="calib")).predict_set(softmax(OTHER))
    for model in (e.AutoScaling(), e.Pool(), e.ConformalSets()):
        with pytest.raises(UsageError, match="not fitted"):
            model.predict_set(Z) if isinstance(model, e.ConformalSets) else model.predict_proba(Z)


def test_the_documented_example_runs(capsys):
    """The code of docs/judging.md, on simulated models, word for word."""
    page = (Path(__file__).parents[3] / "docs" / "judging.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    truth, labels = faces.simulated(2400, seed=3, skill=2.0)
    rng = np.random.default_rng(4)
    a, b = (truth + rng.normal(0, 1, truth.shape) for _ in range(2))
    half = slice(1200), slice(1200, None)
    names = {
        "logits": a[half[0]],
        "labels": labels[half[0]],
        "other_logits": a[half[1]],
        "other_labels": labels[half[1]],
        "a": a[half[0]],
        "b": b[half[0]],
        "other_a": a[half[1]],
        "other_b": b[half[1]],
    }
    exec(compile(code, "docs/judging.md", "exec"), names)
    assert "equal ones" in capsys.readouterr().out
    covered = names["sets"].predict_set(names["probabilities"])[np.arange(1200), labels[half[1]]].mean()
    assert covered == pytest.approx(0.9, abs=0.04)


def test_what_is_no_number_of_seven_is_refused():
    model, pool = (
        e.TemperatureScaling().fit(e.calib_rows(Z, Y, split="calib")),
        e.Pool().fit([e.calib_rows(Z, Y, split="calib")] * 2),
    )
    sets, p = e.ConformalSets().fit(e.calib_rows(Z, Y, split="calib")), softmax(OTHER[:5])
    holed = OTHER[:5].copy()
    holed[2, 3] = np.nan
    for bad, said in ((holed, "NaN"), (OTHER[:5, :6], "shape"), (OTHER[0], "shape")):
        for call in (model.predict_proba, sets.predict_set, lambda z: pool.predict_proba([z, z])):
            with pytest.raises(InputError, match=said):
                call(bad)
    with pytest.raises(InputError, match="fitted on 2"):
        pool.predict_proba([OTHER])
    with pytest.raises(InputError, match="no probabilities"):
        sets.predict_set(2 * p)
    for wrong in (np.where(np.eye(5, 7) > 0, np.nan, p), p[:, :6] / p[:, :6].sum(1, keepdims=True)):
        with pytest.raises(InputError):
            with_intervals(wrong, TRUTH[:5])
    with pytest.raises(InputError, match="type"):
        with_intervals(p, np.array(LABELS)[TRUTH[:5]])


def test_folds_and_rows_that_are_none():
    for kind in (e.AutoScaling(folds=1), e.AutoScaling(folds=0)):
        with pytest.raises(InputError, match="at least 2 folds"):
            kind.fit(e.calib_rows(Z, Y, split="calib"))
    with pytest.raises(InputError, match="at least 2 folds"):
        e.Pool(folds=1).fit([e.calib_rows(Z, Y, split="calib")] * 2)
    with pytest.raises(TypeError, match="CalibrationRows"):
        e.Pool().fit([Z, Z])


def test_what_rows_lack_is_said():
    few = e.calib_rows(Z[:30], np.where(Y[:30] == 1, 0, Y[:30]), split="calib")
    with pytest.warns(UserWarning, match="few_rows|class_missing") as said:
        e.TemperatureScaling().fit(few)
    assert {str(w.message).split(":")[0] for w in said} == {"few_rows", "class_missing"}
