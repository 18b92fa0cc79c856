"""The studies that `docs/results` holds without their weights: figures recomputed from the committed predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.special import log_softmax, softmax
from sklearn.metrics import accuracy_score, f1_score, log_loss

from mien.core.errors import MienError
from mien.core.labels import LABELS
from mien.evaluate.quantization import check_int8

ROOT = Path(__file__).parents[2] / "docs" / "results"
STUDIES = sorted(path.parent for path in ROOT.glob("*/study.json"))


def rows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, 7) and labels (n,) of a predictions file."""
    table = pq.read_table(path)
    logits = np.stack([table[f"logit_{name}"].to_numpy() for name in LABELS], axis=1)
    return logits.astype(np.float64), np.array([LABELS.index(name) for name in table["label"].to_pylist()])


def check(figures: dict, probabilities: np.ndarray, labels: np.ndarray) -> None:
    """Figures of a study against scikit-learn's, to the rounding of single precision."""
    predicted = probabilities.argmax(1)
    assert figures["n"] == len(labels)
    assert figures["accuracy"] == pytest.approx(accuracy_score(labels, predicted), abs=1e-3)
    macro = f1_score(labels, predicted, average="macro", labels=range(7), zero_division=0)
    assert figures["macro_f1"] == pytest.approx(macro, abs=2e-3)
    assert figures["nll"] == pytest.approx(log_loss(labels, probabilities, labels=range(7)), abs=1e-4)


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_the_selected_ensembles_test_figures_follow_from_its_predictions(study):
    document = json.loads((study / "study.json").read_text())
    name = document["selected"]["name"]
    (entry,) = (e for e in document["ensembles"] if e["name"] == name)
    logits, labels = rows(study / "ensembles" / name / "predictions" / "test.parquet")
    check(entry["test"], softmax(logits, axis=1), labels)


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_ensembles_val_figures_follow_from_their_members_predictions_and_calibrations(study):
    """The members' affine maps of log-probabilities, the pool and its temperature, written anew."""
    document = json.loads((study / "study.json").read_text())
    for entry in document["ensembles"]:
        ensemble = json.loads((study / "ensembles" / entry["name"] / "ensemble.json").read_text())
        pooled, labels = 0.0, None
        for member in ensemble["members"]:
            run = study / "teachers" / member["name"]
            logits, labels = rows(run / "predictions" / "val.parquet")
            calibration = json.loads((run / "calibration.json").read_text())
            mapped = log_softmax(logits, axis=1) @ np.array(calibration["matrix"]).T + np.array(calibration["bias"])
            part = log_softmax(mapped, axis=1)
            pooled = pooled + member["weight"] * (np.exp(part) if ensemble["pool"] == "probability" else part)
        logs = np.log(pooled) if ensemble["pool"] == "probability" else pooled
        check(entry["val"], softmax(logs / ensemble["temperature"], axis=1), labels)


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_no_weights_and_no_images_are_published(study):
    kinds = {path.suffix for path in study.rglob("*") if path.is_file()}
    assert kinds <= {".json", ".jsonl", ".csv", ".parquet", ".toml"}
    for path in study.rglob("*.parquet"):
        assert not any("binary" in str(field.type) for field in pq.read_schema(path))


@pytest.mark.parametrize(
    ("name", "runs", "teacher"),
    [
        ("distillation", "fer2013_students", "fer2013_students/teacher"),
        ("distillation_small", "ferplus_small", "ferplus_webcam/ensembles/v1+v2.probability"),
        ("distillation_small_fresh", "ferplus_small", "ferplus_webcam/ensembles/v1+v2.probability"),
    ],
)
def test_the_students_figures_follow_from_their_predictions(name, runs, teacher):
    """Accuracy, NLL and retention of each seed, plain and taught, by scikit-learn from what is committed."""
    document = json.loads((ROOT / f"{name}.json").read_text())
    teacher, labels = rows(ROOT / teacher / "predictions" / "test.parquet")
    right = accuracy_score(labels, teacher.argmax(1))
    assert document["teacher"]["accuracy"] == pytest.approx(right, abs=1e-9)
    shared = {"average": "macro", "labels": range(7), "zero_division": 0}
    best = f1_score(labels, teacher.argmax(1), **shared)
    assert document["teacher"]["macro_f1"] == pytest.approx(best, abs=1e-9)
    accuracies, macro = {}, {}
    for variant, figures in document["runs"].items():
        accuracies[variant], macro[variant] = [], []
        for k, seed in enumerate(document["seeds"]):
            run = ROOT / runs / variant / f"seed-{seed}"
            logits, of_run = rows(run / "predictions" / "test.parquet")
            assert (of_run == labels).all()
            fitted = json.loads((run / "calibration.json").read_text())
            p = softmax(log_softmax(logits, axis=1) @ np.array(fitted["matrix"]).T + np.array(fitted["bias"]), axis=1)
            accuracies[variant].append(accuracy_score(labels, p.argmax(1)))
            assert figures["accuracy"]["per_seed"][k] == pytest.approx(accuracies[variant][-1], abs=1e-9)
            macro[variant].append(f1_score(labels, p.argmax(1), **shared))
            assert figures["macro_f1"]["per_seed"][k] == pytest.approx(macro[variant][-1], abs=1e-9)
            assert figures["nll"]["per_seed"][k] == pytest.approx(log_loss(labels, p, labels=range(7)), abs=1e-6)
    plain, taught = (np.mean(values) for values in accuracies.values())
    assert document["difference"]["accuracy"]["mean"] == pytest.approx(taught - plain, abs=1e-9)
    assert document["retention"]["accuracy"]["mean"] == pytest.approx(taught / right, abs=1e-9)
    plain, taught = (np.mean(values) for values in macro.values())
    assert document["difference"]["macro_f1"]["mean"] == pytest.approx(taught - plain, abs=1e-9)
    assert document["retention"]["macro_f1"]["mean"] == pytest.approx(taught / best, abs=1e-9)


def test_the_model_sizes_are_those_of_the_studies_and_refused_by_the_gate():
    """Figures of test are the published studies' own; `refused` is what the gate of int8 says of the figures of val."""
    models = json.loads((ROOT / "model_sizes.json").read_text())["models"]
    study = json.loads((ROOT / "ferplus_webcam" / "study.json").read_text())
    of = {f"{t['name']}_96": t["test"] for t in study["teachers"]} | {"v1_80": study["student"]["test"]}
    compared = [name for name in models if name in of]
    assert len(compared) == 3
    for name in compared:
        for metric in ("n", "accuracy", "macro_f1", "nll", "ece"):
            assert models[name]["test"][metric] == pytest.approx(of[name][metric], rel=1e-9), (name, metric)
    for model in models.values():
        if model["refused"]:
            with pytest.raises(MienError, match="int8 is worse"):
                check_int8(model["val"])
        else:
            check_int8(model["val"])
    assert [name for name, model in models.items() if model["refused"]] == ["v1_80"]


def test_what_the_leak_is_worth_follows_from_the_kept_predictions():
    """Accuracies with and without copies, of the networks and of their pool, by scikit-learn from what is committed."""
    document, folder = json.loads((ROOT / "leak.json").read_text()), ROOT / "leak" / "logits"
    kept = np.load(folder / "rows.npz")
    names, copies, images = ("v1", "v1_112", "v2"), kept["copies"], kept["image_ids"].tolist()
    with_copies = {name: np.load(folder / f"{name}.npz")["log_probabilities"] for name in names}
    without = {}
    for name in names:
        run = ROOT / "fer2013" / "teachers" / name
        logits, _ = rows(run / "predictions" / "test.parquet")
        fitted = json.loads((run / "calibration.json").read_text())
        logs = log_softmax(
            log_softmax(logits, axis=1) @ np.array(fitted["matrix"]).T + np.array(fitted["bias"]), axis=1
        )
        ids = pq.read_table(run / "predictions" / "test.parquet")["image_id"].to_pylist()
        row = {image[:16]: i for i, image in enumerate(ids)}
        without[name] = np.array([logs[row[i]] if i in row else np.full(7, np.nan) for i in images])
    for side in (with_copies, without):
        side["pool"] = np.log(np.mean([np.exp(side[name]) for name in names], 0))
    assert set(document["networks"]) == {*names, "pool"}
    for name, sets in document["networks"].items():
        for kind, figures in sets.items():
            of = {"all": copies != "", "trained on": np.isin(copies, ["identical", "near"])}.get(kind, copies == kind)
            labels, said = kept["labels"], with_copies[name].argmax(1)
            assert figures["rows"] == of.sum() > 0
            whole = figures["all_rows_with_copies"]
            assert whole["accuracy"] == pytest.approx(accuracy_score(labels[of], said[of]), abs=1e-9)
            assert whole["macro_f1"] == pytest.approx(f1_score(labels[of], said[of], average="macro"), abs=1e-9)
            both = of & np.isfinite(without[name]).all(1)
            assert figures["rows_in_both"] == both.sum()
            ours, twins = (accuracy_score(labels[both], x[name][both].argmax(1)) for x in (with_copies, without))
            assert figures["difference"]["accuracy"]["value"] == pytest.approx(ours - twins, abs=1e-9)
            low, high = figures["difference"]["accuracy"]["ci95"]
            assert low < ours - twins < high
