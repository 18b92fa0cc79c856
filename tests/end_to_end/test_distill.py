"""The stage that teaches a student: what it records of its teacher, and its fast path."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from mien.core.artifacts.ensemble import read_ensemble, read_selection
from mien.core.artifacts.index import read_index
from mien.core.artifacts.predictions import predictions_path, read_predictions
from mien.core.config import DistillConfig, resolve
from mien.evaluate.metrics import log_softmax
from mien.stages import distill as stage

FLAGS = {"backbone": "cnn", "batch_size": 32, "epochs": 2, "kd_views": 2, "save_every_steps": 1000}


def distill(study, out, **changes):
    config, origin = resolve(DistillConfig, ("flag", FLAGS | changes))
    return stage.run(config, origin, study / "ensembles", study / "index", out)


def confidence_gap(logs, labels):
    p = np.exp(logs)
    return p.max(1).mean() - (p.argmax(1) == labels).mean()


@pytest.fixture
def teacher(small_study):
    """The selected ensemble's folder, and its log-probabilities and labels of train, by members' own predictions."""
    from mien.core.artifacts.run import read_run
    from mien.nn.inference import load_network
    from mien.nn.predict import predict_logits

    index = read_index(small_study / "index")
    folder = small_study / "ensembles" / read_selection(small_study / "ensembles" / "selected.json")["name"]
    ensemble, rows = read_ensemble(folder), index.rows("train")
    logs = []
    for member in ensemble.members:
        z = log_softmax(predict_logits(load_network(read_run(folder / member.run)), index.pixels, rows))
        logs.append(log_softmax(z @ np.array(member.matrix).T + np.array(member.bias)))
    weights = np.array(ensemble.weights)[:, None, None]
    joined = np.log((weights * np.exp(logs)).sum(0)) if ensemble.pool == "probability" else (weights * logs).sum(0)
    return folder, log_softmax(joined / ensemble.temperature), index.labels[rows]


def test_the_teachers_confidence_on_train_and_calib_is_recorded(small_study, teacher, tmp_path, capsys):
    folder, logs, labels = teacher
    run = distill(small_study, tmp_path / "s")
    found = run.config["teacher"]
    calib = read_predictions(predictions_path(folder, "calib"))
    assert found["train_gap"] == pytest.approx(confidence_gap(logs, labels), abs=5e-3)
    assert found["calib_gap"] == pytest.approx(confidence_gap(log_softmax(calib.logits), calib.labels), abs=1e-6)
    assert found["teaching_temperature"] == 1.0
    assert "confidence less its accuracy" in capsys.readouterr().err
    views = sorted(path.name for path in (folder / "views").rglob("*.npy"))
    assert views == ["000.npy", "001.npy"]


def test_a_teacher_that_is_too_sure_on_train_teaches_at_a_temperature_of_its_own(
    small_study, teacher, tmp_path, monkeypatch
):
    _, logs, labels = teacher
    monkeypatch.setattr(stage, "_TRAIN_EXCESS", -1.0)  # as if this teacher were too sure
    run = distill(small_study, tmp_path / "s", epochs=1, kd_views=0)

    def nll(t):
        return -log_softmax(logs / t)[np.arange(len(labels)), labels].mean()

    best = minimize_scalar(nll, bounds=(0.05, 20), method="bounded").x
    assert run.config["teacher"]["teaching_temperature"] == pytest.approx(best, rel=0.05)
    assert run.config["teacher"]["teaching_temperature"] != 1.0


def test_a_plain_twin_on_the_same_views_needs_none_of_the_teachers_answers(small_study, tmp_path, monkeypatch):
    from mien.nn.distillation.teacher_bank import TeacherBank

    def refuse(*_):
        pytest.fail("a plain twin has nothing to ask")

    monkeypatch.setattr(TeacherBank, "_compute", refuse)
    monkeypatch.setattr(TeacherBank, "log_probabilities", refuse)
    run = distill(small_study, tmp_path / "s", kd_weight=0.0, kd_views=2)
    assert run.environment["training"]["steps"] > 1


def test_a_plain_twin_on_fixed_views_is_another_run_than_one_on_fresh_ones():
    """Before, `kd_views` did nothing without a teacher's weight: a run of then must not pass for a twin."""
    identities = [
        resolve(DistillConfig, ("flag", {"kd_weight": weight, "kd_views": views}))[0].identity()
        for weight, views in ((0.0, 0), (0.0, 3), (0.5, 0), (0.5, 3))
    ]
    assert [i for i, one in enumerate(identities) if "fixed_views_without_teacher" in one] == [1]
