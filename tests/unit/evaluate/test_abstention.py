"""Thresholds and conformal sets: against naive loops, and their guarantees over many splits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from helpers import faces
from mien.core.artifacts.calibration_rows import CalibrationRows
from mien.core.errors import InputError
from mien.core.labels import LABELS
from mien.evaluate import abstention as a
from mien.evaluate import conformal as c
from mien.evaluate.decisions import NEVER, fit_decisions, judge
from mien.evaluate.metrics import softmax


def test_risk_coverage_and_its_area_against_a_naive_loop():
    z, y = faces.simulated(300, seed=1)
    p = softmax(z)
    order = np.argsort(-p.max(1))
    wrong = (p.argmax(1) != y)[order]
    risks = [wrong[: i + 1].mean() for i in range(300)]
    found = a.risk_coverage(p, y)
    assert found["risk"] == pytest.approx(risks)
    assert found["coverage"][-1] == 1
    assert a.aurc(p, y) == pytest.approx(np.mean(risks))
    assert a.accuracy_at(p, y, 0.8) == pytest.approx(1 - risks[239])
    assert a.accuracy_at(p, y, 1.0) == pytest.approx((p.argmax(1) == y).mean())


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 50), st.integers(0, 1000))
def test_equal_confidences_make_the_order_no_matter(n, seed):
    rng = np.random.default_rng(seed)
    p = np.round(softmax(rng.normal(0, 1, (n, 7))), 1) + 1e-3
    p /= p.sum(1, keepdims=True)
    p[:, 0] += 0
    y = rng.integers(0, 7, n)
    rows = rng.permutation(n)
    assert a.aurc(p, y) == pytest.approx(a.aurc(p[rows], y[rows]))


def test_threshold_answers_the_wanted_share():
    rows = faces.fit_rows(2000)
    threshold = a.threshold_for_coverage(rows, 0.8)
    assert (softmax(rows.logits).max(1) >= threshold).mean() == pytest.approx(0.8, abs=0.005)
    assert a.threshold_for_coverage(rows, 1.0) == 0.0


@pytest.mark.parametrize("hits, n", [(0, 10), (3, 10), (10, 10), (250, 300)])
def test_bounds_are_those_of_the_binomial_test(hits, n):
    low = stats.binomtest(hits, n, alternative="greater").proportion_ci(0.95, method="exact").low
    high = stats.binomtest(hits, n, alternative="less").proportion_ci(0.95, method="exact").high
    assert a.lower_bound(hits, n) == pytest.approx(low, abs=1e-9)
    assert a.upper_bound(hits, n) == pytest.approx(high, abs=1e-9)


def test_a_wanted_precision_holds_on_other_rows_about_always():
    z, y = faces.simulated(40_000, seed=99, skill=2.5)
    p, hit = softmax(z), softmax(z).argmax(1) == y
    found = [a.threshold_for_precision(faces.fit_rows(800, seed=seed, skill=2.5), 0.8) for seed in range(40)]
    met = [t for t in found if t is not None]
    assert len(met) >= 36
    assert np.mean([(p.max(1) >= t).mean() for t in met]) > 0.3
    assert sum(hit[p.max(1) >= t].mean() >= 0.8 for t in met) >= 0.9 * len(met)
    assert a.threshold_for_precision(faces.fit_rows(800), 0.999999) is None


def test_class_thresholds_bound_false_positives_on_other_rows_about_always():
    z, y = faces.simulated(40_000, seed=99)
    p = softmax(z)
    held = 0
    for seed in range(40):
        found = a.class_thresholds(faces.fit_rows(1500, seed=seed), {"fear": 0.03})["fear"]
        named = (p.argmax(1) == 2) & (p.max(1) >= found)
        held += (named & (y != 2)).sum() / (y != 2).sum() <= 0.03
    assert 0 < found < 1
    assert held >= 36
    assert a.class_thresholds(faces.fit_rows(1500), {"fear": 0.9}) == {"fear": 0.0}
    assert a.class_thresholds(faces.fit_rows(40), {"fear": 0.01}) == {"fear": None}
    with pytest.raises(InputError, match="No class"):
        a.class_thresholds(faces.fit_rows(40), {"bored": 0.1})


def test_class_threshold_is_the_lowest_that_its_bound_allows():
    rows = faces.fit_rows(1500, seed=3)
    p = softmax(rows.logits)
    threshold = a.class_thresholds(rows, {"sad": 0.05})["sad"]
    others, named = rows.labels != 5, p.argmax(1) == 5

    def bound(t):
        return a.upper_bound(int((others & named & (p.max(1) >= t)).sum()), int(others.sum()))

    assert bound(threshold) <= 0.05
    below = p.max(1)[others & named & (p.max(1) < threshold)].max()
    assert bound(below) > 0.05


def test_raps_scores_against_a_naive_loop():
    p = softmax(np.random.default_rng(0).normal(0, 2, (30, 7)))
    found = c.raps_scores(p)
    for i in range(30):
        for k in range(7):
            rank = int((p[i] > p[i, k]).sum()) + 1
            truth = p[i][p[i] > p[i, k]].sum() + c.RAPS_LAMBDA * max(0, rank - c.RAPS_FREE)
            assert found[i, k] == pytest.approx(truth)


def test_the_quantile_is_the_definition():
    scores = np.random.default_rng(0).random(99)
    assert c.quantile(scores, 0.1) == sorted(scores)[90 - 1]
    assert c.quantile(scores[:8], 0.1) is None
    assert c.quantile(scores[:9], 0.1) == scores[:9].max()


def test_conformal_coverage_over_a_hundred_splits():
    """Of a wrong model (temperature 3): mean coverage within a point, at least 90 splits inside their interval."""
    z, y = faces.simulated(4000, seed=5, sharpness=3.0)
    p = softmax(z)
    coverage = {kind: [] for kind in c.KINDS}
    by_class, low, high = [], *c.coverage_interval(1000, 3000, 0.1)
    for seed in range(100):
        order = np.random.default_rng(seed).permutation(4000)
        inside, outside = order[:1000], order[1000:]
        fitted = c.fit_conformal(CalibrationRows.of(faces.predictions(z[inside], y[inside])), 0.1)
        for kind in c.KINDS:
            covered = fitted.sets(p[outside], kind)[np.arange(3000), y[outside]]
            coverage[kind].append(covered.mean())
            if kind == "class_conditional":
                by_class.append([covered[y[outside] == k].mean() for k in range(7)])
    for kind, values in coverage.items():
        assert np.mean(values) == pytest.approx(0.9, abs=0.01), kind
    for kind in ("split", "raps"):
        assert sum(low <= v <= high for v in coverage[kind]) >= 90
    assert np.mean(by_class, axis=0) == pytest.approx(np.full(7, 0.9), abs=0.015)


def test_coverage_interval_is_that_of_a_simulation():
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(3000):
        q = np.sort(rng.random(200))[int(np.ceil(201 * 0.9)) - 1]
        drawn.append((rng.random(500) <= q).mean())
    assert c.coverage_interval(200, 500, 0.1) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.006)


def decide(n=600, **changes):
    return fit_decisions(
        faces.fit_rows(n), **({"coverage": 0.9, "precision": None, "max_fpr": {"disgust": 0.1}, "alpha": 0.1} | changes)
    )


def test_decisions_say_what_they_lack():
    few = decide(20, precision=0.99)
    names = {text.split(":")[0] for text in few.warnings}
    assert names == {"few_rows", "fpr_out_of_reach", "precision_out_of_reach", "conformal_rows"}
    assert few.class_thresholds["disgust"] == NEVER
    assert few.label(np.eye(7)[1]) is None
    assert few.conformal.class_conditional["disgust"] is None
    assert not decide(2000).warnings


def test_labels_obey_both_thresholds():
    d = decide().model_copy(update={"abstain_below": 0.3, "class_thresholds": {"disgust": 0.8}})
    p = np.array(
        [
            [0.1, 0.7, 0.1, 0.1, 0, 0, 0],
            [0.05, 0.9, 0.05, 0, 0, 0, 0],
            [0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
            [0.25, 0.15, 0.12, 0.12, 0.12, 0.12, 0.12],
        ]
    )
    assert [d.label(row) for row in p] == [None, "disgust", "angry", None]
    assert d.answered_rows(p).tolist() == [False, True, True, False]


def test_judging_on_other_rows_against_counts_by_hand():
    d = decide(2000)
    z, y = faces.simulated(1500, seed=77)
    p = softmax(z)
    found = judge(p, y, d)
    answered = np.array([d.label(row) is not None for row in p])
    assert found["coverage"] == pytest.approx(answered.mean())
    assert found["accuracy_answered"] == pytest.approx((p.argmax(1) == y)[answered].mean())
    row = next(r for r in found["false_positives"] if r["class"] == "disgust")
    assert row["rate"] == pytest.approx(((p.argmax(1) == 1) & answered & (y != 1)).sum() / (y != 1).sum())
    assert row["holds"]
    assert row["ci95"][0] <= row["rate"] <= row["ci95"][1]
    kinds = {r["kind"]: r for r in found["conformal"]}
    assert set(kinds) == set(c.KINDS)
    for r in kinds.values():
        assert 0.86 < r["coverage"] < 0.94
        assert set(r["by_class"]) == set(LABELS)


def test_raps_sets_are_never_empty_and_the_surest_are_in_theirs():
    z, y = faces.simulated(2000, seed=4, skill=8.0)
    p = softmax(z)
    fitted = c.fit_conformal(CalibrationRows.of(faces.predictions(z, y)), 0.1)
    sets = fitted.sets(p, "raps")
    assert sets.any(1).all()
    assert sets[np.arange(2000), p.argmax(1)].all()


def test_a_perfect_model_reaches_what_its_rows_can_show():
    z = 30 * np.eye(7)[np.arange(1050) % 7] + np.random.default_rng(0).normal(0, 1, (1050, 7))
    for n, wanted in ((120, 0.95), (300, 0.95), (1050, 0.98)):
        rows = CalibrationRows.of(faces.predictions(z[:n], np.arange(n) % 7))
        assert a.threshold_for_precision(rows, wanted) == 0.0
    assert a.threshold_for_precision(CalibrationRows.of(faces.predictions(z[:50], np.arange(50) % 7)), 0.95) is None


def test_where_nothing_may_be_answered_nothing_is():
    """Confidences that round to 1 stay under a threshold that means never."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 7, 600)
    z = 30 * (rng.normal(0, 1, (600, 7)) + 1.5 * np.eye(7)[y])
    d = fit_decisions(CalibrationRows.of(faces.predictions(z, y)), coverage=0.9, precision=0.99, max_fpr={}, alpha=0.1)
    assert any(text.startswith("precision_out_of_reach") for text in d.warnings)
    assert not d.answered_rows(softmax(z)).any()
    assert not d.answered_rows(softmax(z).astype(np.float32)).any()
    assert d.answered == 0
    assert judge(softmax(z), y, d)["accuracy_answered"] is None


def test_a_wanted_precision_is_that_of_what_class_thresholds_let_answer():
    """An easy class that is never answered does not count towards the precision of the others."""
    rng = np.random.default_rng(1)

    def rows(n):
        y = rng.integers(0, 7, n)
        z = rng.normal(0, 1, (n, 7)) + (1.2 + 6.0 * (y == 1))[:, None] * np.eye(7)[y]
        return z, y

    z, y = rows(60_000)
    p, kept = softmax(z), 0
    for _ in range(12):
        fitted = fit_decisions(
            CalibrationRows.of(faces.predictions(*rows(1500))),
            coverage=1.0,
            precision=0.7,
            max_fpr={"disgust": 0.001},
            alpha=0.1,
        )
        answered = fitted.answered_rows(p)
        kept += not answered.any() or (p.argmax(1) == y)[answered].mean() >= 0.69
    assert kept >= 11


def test_too_few_rows_have_no_expected_coverage():
    assert c.coverage_interval(5, 100, 0.1) is None
    d = decide(7, alpha=0.05)
    z, y = faces.simulated(50, seed=3)
    assert all(row["expected"] is None for row in judge(softmax(z), y, d)["conformal"])
