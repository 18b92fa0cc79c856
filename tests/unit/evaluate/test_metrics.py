"""Metrics against scikit-learn, torchmetrics and naive loops, over random and degenerate cases."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.core.errors import InputError
from mien.core.labels import LABELS
from mien.evaluate import calibration_error as e
from mien.evaluate import metrics as m

K = len(LABELS)


def case(n: int, seed: int, *, classes: int = K, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return m.softmax(rng.normal(0, 2, (n, K)) / temperature), rng.integers(0, classes, n)


CASES = {
    "random": case(500, 0),
    "class absent": case(300, 1, classes=4),
    "one row": case(1, 2),
    "constant": (np.tile(np.eye(K)[2], (50, 1)), np.full(50, 2)),
    "perfect": (np.eye(K)[np.arange(70) % K], np.arange(70) % K),
    "always wrong": (np.eye(K)[np.arange(70) % K], (np.arange(70) + 1) % K),
    "ties": (np.full((40, K), 1 / K), np.arange(40) % K),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def data(request):
    return request.param


def naive_ece(confidence, hit, bins):
    """The definition, bin by bin: (lo, hi], zero belongs to the first."""
    total = 0.0
    edges = np.linspace(0, 1, bins + 1)
    for b in range(bins):
        inside = [
            i for i in range(len(hit)) if (edges[b] < confidence[i] <= edges[b + 1]) or (b == 0 and confidence[i] == 0)
        ]
        if inside:
            gap = np.mean([confidence[i] for i in inside]) - np.mean([hit[i] for i in inside])
            total += abs(gap) * len(inside) / len(hit)
    return total


def test_against_sklearn(data):
    p, y = data
    found = m.metrics(p, y)
    predicted = p.argmax(1)
    f1 = sk.f1_score(y, predicted, labels=range(K), average=None, zero_division=0)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, predicted), abs=1e-12)
    assert found["macro_f1"] == pytest.approx(f1.mean(), abs=1e-12)
    assert list(found["per_class_f1"].values()) == pytest.approx(f1.tolist(), abs=1e-12)
    assert found["minority_f1"] == pytest.approx(np.mean([f1[1], f1[2], f1[5]]), abs=1e-12)
    assert found["confusion"] == sk.confusion_matrix(y, predicted, labels=range(K)).tolist()
    assert found["nll"] == pytest.approx(sk.log_loss(y, np.clip(p, 1e-12, 1), labels=range(K)), rel=1e-9, abs=1e-9)
    assert found["brier"] == pytest.approx(float(((p - np.eye(K)[y]) ** 2).sum(1).mean()), abs=1e-12)


def test_ece_against_a_naive_loop(data):
    p, y = data
    hit = (p.argmax(1) == y).astype(float)
    assert e.ece(p, y) == pytest.approx(naive_ece(p.max(1), hit, 15), abs=1e-9)
    naive = np.mean([naive_ece(p[:, c], (y == c).astype(float), 15) for c in range(K)])
    assert e.ece_classwise(p, y) == pytest.approx(naive, abs=1e-9)


def test_ece_against_torchmetrics():
    import torch

    from mien.nn.torchvision_cure import import_timm

    import_timm()  # torchmetrics imports torchvision
    from torchmetrics.functional.classification import multiclass_calibration_error

    p, y = CASES["random"]
    truth = float(multiclass_calibration_error(torch.tensor(p), torch.tensor(y), num_classes=K, n_bins=15, norm="l1"))
    assert e.ece(p, y) == pytest.approx(truth, abs=1e-5)


def test_floor_of_a_calibrated_model_is_its_expected_ece():
    rng = np.random.default_rng(0)
    p = m.softmax(rng.normal(0, 1.5, (2000, K)))
    drawn = [e.ece(p, (p.cumsum(1) > rng.random((2000, 1))).argmax(1)) for _ in range(40)]
    assert e.ece_floor(p) == pytest.approx(np.mean(drawn), rel=0.15)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(0, 10_000))
def test_permuting_rows_changes_nothing(n, seed):
    p, y = case(n, seed)
    order = np.random.default_rng(seed + 1).permutation(n)
    first, second = m.metrics(p, y), m.metrics(p[order], y[order])
    for key in ("accuracy", "macro_f1", "ece", "ece_classwise", "brier", "nll"):
        assert first[key] == pytest.approx(second[key], abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(0, 10_000))
def test_permuting_classes_permutes_f1(n, seed):
    p, y = case(n, seed)
    order = np.random.default_rng(seed + 1).permutation(K)
    moved = np.empty(K, dtype=int)
    moved[order] = np.arange(K)
    a, b = m.metrics(p, y), m.metrics(p[:, order], moved[y])
    f1_a, f1_b = list(a["per_class_f1"].values()), list(b["per_class_f1"].values())
    assert f1_b == pytest.approx([f1_a[c] for c in order], abs=1e-12)
    assert a["macro_f1"] == pytest.approx(b["macro_f1"], abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 20), st.integers(0, 1000))
def test_temperature_keeps_the_argmax(t, seed):
    z = np.random.default_rng(seed).normal(0, 3, (30, K))
    assert (m.softmax(z / t).argmax(1) == z.argmax(1)).all()


@pytest.mark.parametrize(
    "p, y",
    [
        (np.full((2, K), 0.2), np.array([0, 1])),
        (np.full((2, K), np.nan), np.array([0, 1])),
        (np.full((2, K), 1 / K), np.array([0, 7])),
        (np.full((2, K), 1 / K), np.array([0])),
        (np.empty((0, K)), np.empty(0, dtype=int)),
    ],
)
def test_bad_input_is_refused(p, y):
    with pytest.raises(InputError):
        m.metrics(p, y)


def test_the_reports_gap_raises_an_alarm():
    p = m.softmax(np.random.default_rng(0).uniform(-1, 1, (500, K)))  # bare cosines
    y = p.argmax(1)
    assert m.alarms(m.metrics(p, y))
    assert not m.alarms(m.metrics(np.eye(K)[y], y))


def test_reliability_counts_every_row():
    p, y = CASES["random"]
    bins = e.reliability(p, y)
    gaps = sum(n * abs(c - a) for n, c, a in zip(bins["count"], bins["confidence"], bins["accuracy"], strict=True))
    assert sum(bins["count"]) == len(y)
    assert gaps / len(y) == pytest.approx(e.ece(p, y), abs=1e-12)
