"""Predictions made elsewhere: imported, calibrated, joined, selected and judged; and what is refused at the door."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers import documents, faces
from mien.cli import run
from mien.core.artifacts.calibration import read_calibration
from mien.core.artifacts.calibration_rows import CalibrationRows
from mien.core.artifacts.index import read_index
from mien.core.artifacts.predictions import predictions_path, read_predictions
from mien.core.labels import LABELS
from mien.evaluate.metrics import metrics, softmax
from mien.evaluate.scaling import scaling_of
from mien.stages import calibrate
from mien.stages.study_summary import retention

SPLITS = np.array(["validation"] * 300 + ["calib"] * 700 + ["test"] * 400)
TRUTH, Y = faces.simulated(1400, seed=5, skill=2.0)
IDS = np.array([f"face_{i:04d}.png" for i in range(1400)])
FER_NUMBER = {"angry": 0, "disgust": 1, "fear": 2, "happy": 3, "sad": 4, "surprise": 5, "neutral": 6}


def model(seed, noise=1.0):
    return TRUTH + np.random.default_rng(seed).normal(0, noise, TRUTH.shape)


def write_csv(path, *, values=None, order=LABELS, prefix="p_", ids=IDS, labels=None, splits=SPLITS):
    """A table of probabilities with columns of its own names, in its own order of rows."""
    p = softmax(model(1)) if values is None else values
    names = np.array(LABELS)[Y] if labels is None else labels
    columns = [LABELS.index(name) for name in order]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "truth", "part", *(prefix + name for name in order)])
        for i in np.random.default_rng(9).permutation(len(p)):
            writer.writerow([ids[i], names[i], splits[i], *(repr(float(v)) for v in p[i, columns])])
    return path


def write_npz(path, z, **arrays):
    np.savez(
        path, **({"image_id": IDS, "label": [FER_NUMBER[LABELS[c]] for c in Y], "split": SPLITS, "logits": z} | arrays)
    )
    return path


FLAGS = ["--id-column", "file", "--label-column", "truth", "--split-column", "part", "--split-name", "validation=val"]
ARRAY = ["--label-numbers", "fer2013", "--split-name", "validation=val", "--classes", ",".join(LABELS)]


def bring(file, out, *flags):
    return run(["predictions", "import", str(file), "--out", str(out), *flags])


def test_imported_predictions_are_no_start_of_a_training(tmp_path, capsys):
    assert bring(write_csv(tmp_path / "f.csv"), tmp_path / "theirs", *FLAGS) == 0
    command = ["train", "--index", str(tmp_path / "index"), "--out", str(tmp_path / "r")]
    assert run([*command, "--init-from", str(tmp_path / "theirs")]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"--init-from {tmp_path / 'theirs'} is no training" in told
    assert "imported predictions have none" in told


@pytest.mark.slow
def test_two_files_go_all_the_way(tmp_path, capsys):
    """One of probabilities with other column names, one of logits in an array: joined, selected and judged on test."""
    first = write_csv(tmp_path / "first.csv", order=LABELS[::-1])
    second = write_npz(tmp_path / "second.npz", 3 * model(2)[:, ::-1])
    runs = [tmp_path / "a", tmp_path / "b"]
    assert bring(first, runs[0], *FLAGS, "--parameters", "1000") == 0
    array = [*ARRAY[:-1], ",".join(LABELS[::-1])]
    assert bring(second, runs[1], *array, "--kind", "logits", "--backbone", "vit_b") == 0
    assert bring(second, runs[1], *array, "--kind", "logits", "--backbone", "vit_b") == 0  # it is there already
    for one in runs:
        assert run(["calibrate", str(one), "--resamples", "40"]) == 0
    ens = tmp_path / "ens"
    assert run(["ensemble", *map(str, runs), "--out", str(ens), "--resamples", "200"]) == 0
    capsys.readouterr()
    assert run(["evaluate", str(ens), "--resamples", "200", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["test"]["n"] == 400
    mine, pooled = (
        read_predictions(predictions_path(f, "test"), allow_test=True) for f in (runs[0], ens / found["name"])
    )
    map_ = scaling_of(read_calibration(runs[0] / "calibration.json", weights_hash=mine.meta["weights_hash"]))
    score = [metrics(softmax(z), mine.labels)["macro_f1"] for z in (map_.apply(mine.logits), pooled.logits)]
    low, high = retention(runs[0], ens / found["name"])
    assert 0.5 < low < score[0] / score[1] < high < 1.2
    rows = list(csv.DictReader((ens / "ensemble_summary.csv").read_text().splitlines()))
    assert {row["kind"] for row in rows} == {"single", "hybrid"}
    assert all(row["parameters"] == ("1000" if row["ensemble"] == "a" else "") for row in rows)
    calibration = json.loads((runs[1] / "calibration.json").read_text())
    assert 2 < calibration["temperature"] < 6  # logits of a model three times too sure, and noisy
    chosen = json.loads((ens / "selected.json").read_text())
    assert {"equal", "nll", "grid", "greedy", "best_single", "stacking"} == set(chosen["rivals"]["logit"])
    assert any("not known of" in line for line in chosen["why"])
    # a report of nothing but these: all are judged first, then every table is filled
    capsys.readouterr()
    assert run(["evaluate", str(ens), "--all", "--corruptions"]) == 2  # said before test is opened for any of them
    assert "needs images" in capsys.readouterr().err
    assert not (runs[0] / "evaluation.json").exists()
    assert run(["report", str(ens)]) == 2
    assert "ENS --all" in capsys.readouterr().err
    assert run(["evaluate", str(ens), "--all", "--resamples", "200"]) == 0
    assert run(["report", str(ens)]) == 0
    page = documents.html_text(ens / "report" / "index.html")
    for words in (
        "Every combination",
        "Reliability before and after",
        "Risk and coverage",
        "Per cent of each label",
        "2 models and what can be made of them",
    ):
        assert words in page, words
    for empty in ("drawn by mien", "Wall time", "Training curves"):
        assert empty not in page, empty
    told = json.loads((ens / "study.json").read_text())
    assert [t["name"] for t in told["teachers"]] == ["a", "b"]
    share = np.bincount(Y[SPLITS == "test"], minlength=7).max() / 400
    assert share == pytest.approx(max(b["accuracy"] for b in told["baselines"]["test"].values()), abs=0.05)
    assert run(["evaluate", str(ens), "--all", "--on", str(tmp_path)]) == 2
    capsys.readouterr()
    # a member's test rows are what the file said
    direct = run(["evaluate", str(runs[0]), "--resamples", "200", "--json"])
    assert direct == 0
    alone = json.loads(capsys.readouterr().out)
    held = SPLITS == "test"
    assert alone["test"]["accuracy"] == pytest.approx((model(1)[held].argmax(1) == Y[held]).mean())


def test_with_an_index_of_ours(small_index, tmp_path, capsys):
    """Ids are the index's own; then imported predictions stand beside trained runs of that index."""
    index = read_index(small_index)
    rows = np.concatenate([index.rows(s) for s in ("val", "calib", "test")])
    z = 3 * np.eye(7)[index.labels[rows]] + np.random.default_rng(0).normal(0, 1, (len(rows), 7))
    table = {"image_id": index.image_ids[rows].tolist(), "split": index.splits[rows].tolist()}
    pq.write_table(pa.table(table | {f"logit_{n}": z[:, i] for i, n in enumerate(LABELS)}), tmp_path / "p.parquet")
    assert bring(tmp_path / "p.parquet", tmp_path / "run", "--index", str(small_index)) == 0
    short = pa.table({k: v[:-5] for k, v in table.items()} | {f"logit_{n}": z[:-5, i] for i, n in enumerate(LABELS)})
    pq.write_table(short, tmp_path / "short.parquet")
    assert bring(tmp_path / "short.parquet", tmp_path / "no", "--index", str(small_index)) == 2
    assert "lacks 5 of the" in capsys.readouterr().err
    wrong = table | {"label": np.roll(np.array(LABELS)[index.labels[rows]], 1).tolist()}
    pq.write_table(pa.table(wrong | {f"logit_{n}": z[:, i] for i, n in enumerate(LABELS)}), tmp_path / "w.parquet")
    assert bring(tmp_path / "w.parquet", tmp_path / "no", "--index", str(small_index)) == 2
    assert not (tmp_path / "no").exists()
    # what needs weights says that there are none
    for command in (["predict", "--split", "val"], ["export", "--out", str(tmp_path / "m.onnx")]):
        assert run([command[0], str(tmp_path / "run"), "--index", str(small_index), *command[1:]]) == 2
    assert "no weights" in capsys.readouterr().err


BASE = softmax(model(1))
UNSUMMED = BASE.copy()
UNSUMMED[17] *= 1.5
HOLED = BASE.copy()
HOLED[3, 2] = np.nan
TWICE = IDS.copy()
TWICE[5] = TWICE[6]
REFUSED = {
    "a wrong order of classes": (
        lambda p: write_csv(p / "f.csv", values=BASE[:, [3, 4, 5, 6, 0, 1, 2]]),
        FLAGS,
        "another order of classes",
    ),
    "wrong label numbers": (
        lambda p: write_npz(p / "f.npz", model(1)),
        ["--label-numbers", "mien", *ARRAY[2:], "--kind", "logits"],
        "another order of classes",
    ),
    "no sum of one": (lambda p: write_csv(p / "f.csv", values=UNSUMMED), FLAGS, "'face_0017.png'"),
    "NaN": (lambda p: write_csv(p / "f.csv", values=HOLED), FLAGS, "NaN"),
    "an id twice": (lambda p: write_csv(p / "f.csv", ids=TWICE), FLAGS, "more than once"),
    "no such id column": (lambda p: write_csv(p / "f.csv"), ["--label-column", "truth"], "--id-column COLUMN"),
    "an unknown split": (lambda p: write_csv(p / "f.csv"), FLAGS[:-2], "--split-name validation=val"),
    "a column that is none": (
        lambda p: write_csv(p / "f.csv"),
        [*FLAGS, "--column", "angry=p_angri"],
        "Did you mean 'p_angry'",
    ),
    "a class without column": (lambda p: write_csv(p / "f.csv", order=LABELS[:6]), FLAGS, "no column for surprise"),
    "a class of its own": (lambda p: write_csv(p / "f.csv", labels=np.full(1400, "bored")), FLAGS, "'bored'"),
    "no kind": (lambda p: write_csv(p / "f.csv", prefix=""), FLAGS, "--kind logits or --kind probabilities"),
    "an array without an order": (
        lambda p: write_npz(p / "f.npz", model(1)),
        ["--label-numbers", "fer2013"],
        "--classes",
    ),
    "an array of six": (lambda p: write_npz(p / "f.npz", model(1)[:, :6]), ARRAY, "shape (1400, 6)"),
    "numbers of nobody": (lambda p: write_npz(p / "f.npz", model(1)), ARRAY[2:], "--label-numbers"),
    "unscaled cosines": (
        lambda p: write_npz(p / "f.npz", np.tanh(0.1 * model(1))),
        [*ARRAY, "--kind", "logits"],
        "bare cosines",
    ),
    "pickles": (lambda p: write_npz(p / "f.npz", np.array([[{}]] * 3, dtype=object)), ARRAY, "cannot be read"),
    "torn": (lambda p: (p / "f.npz").write_bytes(b"PK\x03\x04torn") and p / "f.npz", ARRAY, "cannot be read"),
    "test renamed": (
        lambda p: write_csv(p / "f.csv"),
        [*FLAGS, "--split-name", "test=calib"],
        "test rows do not become others",
    ),
    "a column for two classes": (
        lambda p: write_csv(p / "f.csv"),
        [*FLAGS, "--column", "angry=p_sad"],
        "no column for sad",
    ),
    "a class named twice": (
        lambda p: write_csv(p / "f.csv"),
        [*FLAGS, "--column", "angry=p_sad", "--column", "mad=p_fear"],
        "a second time",
    ),
    "labels of another length": (lambda p: write_npz(p / "f.npz", model(1), label=np.zeros(3)), ARRAY, "shape (3,)"),
    "one-hot labels": (lambda p: write_npz(p / "f.npz", model(1), label=np.eye(7)[Y]), ARRAY, "shape (1400, 7)"),
    "no rows": (
        lambda p: (
            (p / "f.csv").write_text("file,truth,part," + ",".join(f"p_{n}" for n in LABELS) + "\n") and p / "f.csv"
        ),
        FLAGS,
        "has no rows",
    ),
    "a column twice": (
        lambda p: (p / "f.csv").write_text("file,file,truth\na,b,happy\n") and p / "f.csv",
        FLAGS,
        "two columns 'file'",
    ),
    "a test set renamed": (
        lambda p: write_csv(p / "f.csv"),
        [*FLAGS, "--split-name", "test_set=calib"],
        "test rows do not become others",
    ),
    "a test set with --split": (
        lambda p: write_csv(p / "f.csv", splits=np.where(SPLITS == "test", "Official-TestSet", SPLITS)),
        [*FLAGS[:4], "--split", "calib"],
        "has test rows by its column 'part'",
    ),
    "test under another name": (
        lambda p: write_csv(p / "f.csv"),
        [*FLAGS, "--split-name", "Test =calib"],
        "test rows do not become others",
    ),
    "test by a column that is not named": (
        lambda p: write_csv(p / "f.csv"),
        [*FLAGS[:4], "--split", "calib"],
        "has test rows by its column 'part'",
    ),
    "test by a column, another named": (
        lambda p: write_csv(p / "f.csv"),
        [*FLAGS[:4], "--split", "calib", "--split-column", "no"],
        "has test rows by its column 'part'",
    ),
    "complex numbers": (lambda p: write_npz(p / "f.npz", model(1) + 1j), [*ARRAY, "--kind", "logits"], "Real numbers"),
    "texts for numbers": (
        lambda p: write_npz(p / "f.npz", np.full((1400, 7), "abc")),
        [*ARRAY, "--kind", "logits"],
        "Real numbers",
    ),
    "one class named": (
        lambda p: write_npz(p / "f.npz", model(1), classes=np.array("angry")),
        [*ARRAY[:4], "--kind", "logits"],
        "in any order",
    ),
    "no file": (lambda p: p / "f.csv", FLAGS, "No file"),
    "another format": (lambda p: (p / "f.xlsx").write_bytes(b"x") and p / "f.xlsx", FLAGS, ".csv, .parquet or .npz"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_at_the_door(name, tmp_path, capsys):
    make, flags, said = REFUSED[name]
    assert bring(make(tmp_path), tmp_path / "run", *flags) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_other_rows_and_test_rows_are_refused_later(tmp_path, capsys):
    a, b, c = (tmp_path / n for n in "abc")
    bring(write_csv(tmp_path / "a.csv"), a, *FLAGS)
    others = np.array([f"x{i}" for i in range(1400)])
    bring(write_csv(tmp_path / "b.csv", ids=others), b, *FLAGS)
    for one in (a, b):
        assert run(["calibrate", str(one), "--resamples", "40"]) == 0
    assert run(["ensemble", str(a), str(b), "--out", str(tmp_path / "ens")]) == 2
    assert "different images" in capsys.readouterr().err
    # test stays closed without a selection, and test rows named calib are refused
    assert run(["evaluate", str(a)]) == 2
    assert "selection" in capsys.readouterr().err
    shutil.copytree(a, c)
    shutil.copy(c / "predictions" / "test.parquet", c / "predictions" / "calib.parquet")
    assert run(["calibrate", str(c)]) == 2
    assert "another size than the manifest says" in capsys.readouterr().err


def test_models_of_other_test_rows_join_nothing(tmp_path, capsys):
    """The same val and calib, but other images in test, or none: a comparison on test would compare images."""
    other = np.where(SPLITS == "test", np.array([f"t{i}" for i in range(1400)]), IDS)
    a, b, c, d = (tmp_path / n for n in ("a", "b", "c", "a+c.logit"))
    assert bring(write_csv(tmp_path / "a.csv"), a, *FLAGS) == 0
    assert bring(write_csv(tmp_path / "b.csv", ids=other), b, *FLAGS) == 0
    assert bring(write_npz(tmp_path / "c.npz", model(2)), c, *ARRAY, "--kind", "logits") == 0
    assert bring(write_npz(tmp_path / "d.npz", model(3)), d, *ARRAY, "--kind", "logits") == 0
    for one in (a, b, c, d):
        assert run(["calibrate", str(one), "--resamples", "40"]) == 0
    capsys.readouterr()
    assert run(["ensemble", str(a), str(b), "--out", str(tmp_path / "ens")]) == 2
    assert "not made for the same images" in capsys.readouterr().err
    assert run(["ensemble", str(a), str(c), str(d), "--out", str(tmp_path / "ens")]) == 2
    assert "'a+c.logit'" in capsys.readouterr().err


def test_models_that_answer_nothing_and_a_test_without_a_class(tmp_path, capsys):
    held = SPLITS == "test"
    labels = np.array(LABELS)[np.where(held & (Y == 1), 0, Y)]  # no disgust in test
    a, ens = tmp_path / "a", tmp_path / "ens"
    assert bring(write_csv(tmp_path / "a.csv", labels=labels), a, *FLAGS) == 0
    assert run(["calibrate", str(a), "--precision", "0.999", "--resamples", "40"]) == 0
    assert run(["ensemble", str(a), "--out", str(ens), "--precision", "0.999", "--resamples", "200"]) == 0
    capsys.readouterr()
    assert run(["evaluate", str(ens), "--all", "--resamples", "200"]) == 0
    assert "answers nothing" in capsys.readouterr().out
    assert run(["report", str(ens)]) == 0
    page = documents.html_text(ens / "report" / "index.html")
    assert "never reached" in page
    assert "precision_out_of_reach" in page
    for name in ("abstention", "false-positives"):
        assert "2.000" not in (ens / "report" / "tables" / f"{name}.csv").read_text()
    found = json.loads((ens / "a" / "evaluation.json").read_text())
    split = next(r for r in found["abstain"]["conformal"] if r["kind"] == "split")
    table = list(csv.DictReader((ens / "report" / "tables" / "conformal-classes.csv").read_text().splitlines()))
    row = next(r for r in table if r["kind"] == "split")
    assert row["disgust"] == "not in test"
    assert all(row[n] == f"{split['by_class'][n]:.2f}" for n in LABELS if n != "disgust")


def test_few_rows_and_a_missing_class_are_named(tmp_path, capsys):
    few = np.where(np.arange(1400) < 60, "calib", "val")
    labels = np.array(LABELS)[np.where((Y == 1) & (np.arange(1400) < 60), 0, Y)]
    assert bring(write_csv(tmp_path / "f.csv", splits=few, labels=labels), tmp_path / "r", *FLAGS[:-2]) == 0
    assert run(["calibrate", str(tmp_path / "r"), "--resamples", "40"]) == 0
    said = capsys.readouterr().err
    assert "few_rows: the part temperature of calib has" in said
    assert "class_missing: the part temperature of calib has no" in said
    assert run(["evaluate", str(tmp_path / "r")]) == 2


def test_ids_stay_texts_and_nulls_are_refused(tmp_path, capsys):
    ids = np.array([f"{i:05d}" for i in range(1400)])
    assert bring(write_csv(tmp_path / "f.csv", ids=ids), tmp_path / "r", *FLAGS) == 0
    assert set(pq.read_table(tmp_path / "r" / "predictions" / "val.parquet")["image_id"].to_pylist()) <= set(
        ids.tolist()
    )
    p = softmax(model(1))
    names = [None if i % 3 == 0 else LABELS[c] for i, c in enumerate(Y)]
    table = {
        "image_id": IDS.tolist(),
        "split": np.where(SPLITS == "validation", "val", SPLITS).tolist(),
        "label": names,
    }
    pq.write_table(
        pa.table(table | {f"prob_{n}": p[:, i] for i, n in enumerate(LABELS)} | {"prob_contempt": p[:, 0]}),
        tmp_path / "n.parquet",
    )
    assert bring(tmp_path / "n.parquet", tmp_path / "n") == 2
    assert "rows without 'label'" in capsys.readouterr().err
    table["label"] = np.array(LABELS)[Y].tolist()
    pq.write_table(
        pa.table(table | {f"prob_{n}": p[:, i] for i, n in enumerate(LABELS)} | {"prob_contempt": p[:, 0]}),
        tmp_path / "c.parquet",
    )
    assert bring(tmp_path / "c.parquet", tmp_path / "c") == 0
    assert "prob_contempt" in capsys.readouterr().err


@pytest.mark.slow
def test_members_are_joined_as_they_are_calibrated_and_selections_hold(tmp_path, capsys):
    """A model's own map mends its class-wise error before it is joined; a new calibration needs a new selection."""
    biased = 1.5 * model(1, 0.3) + np.array([0, -2.5, 0, 2.5, 0, 0, 0])
    runs = [tmp_path / "biased", tmp_path / "plain"]
    array = [*ARRAY, "--kind", "logits"]
    assert bring(write_npz(tmp_path / "b.npz", biased), runs[0], *array) == 0
    assert bring(write_npz(tmp_path / "p.npz", model(2, 2.5)), runs[1], *array) == 0
    for one in runs:
        assert run(["calibrate", str(one), "--resamples", "40"]) == 0
    assert json.loads((runs[0] / "calibration.json").read_text())["method"] == "vector"
    ens = tmp_path / "ens"
    assert run(["ensemble", *map(str, runs), "--out", str(ens), "--resamples", "200"]) == 0
    assert json.loads((ens / "selected.json").read_text())["best_single"] == "biased"
    capsys.readouterr()
    found = []
    for target in (runs[0], ens / "biased"):
        assert run(["evaluate", str(target), "--resamples", "200", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["test"])
    assert found[0]["accuracy"] == found[1]["accuracy"]
    assert found[0]["nll"] == pytest.approx(found[1]["nll"], abs=0.02)
    assert run(["calibrate", str(runs[0]), "--again", "--method", "temperature", "--resamples", "40"]) == 0
    assert run(["evaluate", str(runs[0])]) == 2
    assert "calibrated again" in capsys.readouterr().err
    shutil.copytree(runs[0], tmp_path / "renamed")  # another name does not open test
    assert run(["evaluate", str(tmp_path / "renamed")]) == 2
    assert "calibrated again" in capsys.readouterr().err
    again = tmp_path / "then"  # stands behind the older selection, which does not know the new calibration
    assert run(["ensemble", *map(str, runs), "--out", str(again), "--again", "--resamples", "200"]) == 0
    assert run(["evaluate", str(runs[0]), "--resamples", "200"]) == 0
    shift = ["--prior", "uniform", "--again", "--resamples", "40"]
    assert run(["calibrate", str(runs[0]), "--method", "temperature", *shift]) == 0
    assert run(["evaluate", str(runs[0]), "--resamples", "200"]) == 0  # what was selected, for other class shares
    assert run(["calibrate", str(runs[0]), "--method", "dirichlet", *shift]) == 0
    assert run(["evaluate", str(runs[0])]) == 2
    capsys.readouterr()
    assert run(["ensemble", *map(str, runs), "--out", str(tmp_path / "other")]) == 2
    assert "without --prior" in capsys.readouterr().err
    assert json.loads((ens / "biased" / "evaluation.json").read_text())["test_accesses"]["before"] == 1


def test_a_prior_divides_by_what_the_model_declares(tmp_path, monkeypatch):
    """A model of uniform shares, calibrated by a temperature on others: uniform ones need no correction, calib's do."""
    out = tmp_path / "run"
    assert bring(write_csv(tmp_path / "f.csv", values=softmax(2 * model(1))), out, *FLAGS) == 0
    found = read_predictions(predictions_path(out, "calib"))
    declaring = dataclasses.replace(found, meta={**found.meta, "predicts_prior": [1 / 7] * 7})
    monkeypatch.setattr(calibrate, "read_predictions", lambda _: declaring)
    asked = ["--method", "temperature", "--resamples", "40"]
    assert run(["calibrate", str(out), *asked, "--prior", "uniform"]) == 0
    told = json.loads((out / "calibration.json").read_text())
    assert "declares" in told["assumed_why"]
    assert told["assumed"] == pytest.approx([1 / 7] * 7)
    assert told["bias"] == pytest.approx([0] * 7, abs=1e-9)
    shares = [0.1, 0.1, 0.1, 0.4, 0.1, 0.1, 0.1]
    assert run(["calibrate", str(out), *asked, "--prior", ",".join(map(str, shares))]) == 0
    bias = json.loads((out / "calibration.json").read_text())["bias"]
    assert bias == pytest.approx((np.log(shares) + np.log(7)).tolist())


def test_too_few_rows_for_three_parts(tmp_path, capsys):
    few = np.where(np.arange(1400) < 7, "calib", "val")
    labels = np.array(LABELS)[np.where(np.arange(1400) < 7, np.arange(1400) % 7, Y)]
    assert bring(write_csv(tmp_path / "f.csv", splits=few, labels=labels), tmp_path / "r", *FLAGS[:-2]) == 0
    assert run(["calibrate", str(tmp_path / "r")]) == 2
    assert "has no rows: 7 in all" in capsys.readouterr().err


def test_a_calibration_that_costs_macro_f1_is_not_taken_unasked(tmp_path, capsys):
    """Logits of a model that was taught every class equally often, on rows where three classes are rare."""
    rng = np.random.default_rng(0)
    y = rng.choice(7, 4000, p=[0.2, 0.05, 0.05, 0.25, 0.25, 0.05, 0.15])
    z = 0.7 * (rng.normal(0, 1, (4000, 7)) + 0.7 * np.eye(7)[y])  # a weak model's posterior, were all classes as common
    ids = np.array([f"f{i}" for i in range(4000)])
    splits = np.where(np.arange(4000) < 3000, "calib", "val")
    np.savez(tmp_path / "b.npz", image_id=ids, label=y, split=splits, logits=z, classes=np.array(LABELS))
    assert bring(tmp_path / "b.npz", tmp_path / "b", "--label-numbers", "mien", "--head", "linear") == 0
    assert run(["calibrate", str(tmp_path / "b"), "--resamples", "40"]) == 0
    assert "macro-F1 falls" not in capsys.readouterr().err
    found = json.loads((tmp_path / "b" / "calibration.json").read_text())
    assert found["method"] == "temperature"  # better probabilities whose labels cost macro-F1 are not taken unasked
    assert "of macro-F1 there (--method vector takes it)" in found["why"]
    assert found["heldout"]["vector"]["nll"] < found["heldout"]["temperature"]["nll"] - 0.05
    assert run(["calibrate", str(tmp_path / "b"), "--method", "vector", "--resamples", "40"]) == 0
    assert "macro-F1 falls from" in capsys.readouterr().err
    found = json.loads((tmp_path / "b" / "calibration.json").read_text())
    assert found["after"]["nll"] < found["before"]["nll"] - 0.05


def test_a_sweep_of_temperatures_is_drawn_and_changes_nothing(tmp_path, capsys):
    """ECE and Brier score at each temperature equal naive loops over rows; the calibration is that without a sweep."""
    assert bring(write_npz(tmp_path / "m.npz", model(1) * 1.5), tmp_path / "m", *ARRAY) == 0
    assert run(["calibrate", str(tmp_path / "m")]) == 0
    before = (tmp_path / "m" / "calibration.json").read_bytes()
    capsys.readouterr()
    command = ["calibrate", str(tmp_path / "m"), "--sweep", "0.8", "1.4", "--step", "0.2", "--bins", "7", "--json"]
    assert run(command) == 0
    found = json.loads(capsys.readouterr().out)["temperature_sweep"]
    assert (tmp_path / "m" / "calibration.json").read_bytes() == before
    assert found == json.loads((tmp_path / "m" / "temperature_sweep.json").read_text())
    curve = found["curve"]
    assert curve["temperature"] == pytest.approx([0.8, 1.0, 1.2, 1.4])
    whole = CalibrationRows.of(read_predictions(predictions_path(tmp_path / "m", "calib")))
    rows = [
        (z, y)
        for part in ("weights", "thresholds")
        for z, y in zip(whole.part(part).logits, whole.part(part).labels, strict=True)
    ]
    assert found["rows"] == len(rows) < 700
    for t, ece, brier in zip(curve["temperature"], curve["ece"], curve["brier"], strict=True):
        gaps, squares = [0.0] * 7, 0.0
        for z, y in rows:
            p = [math.exp(v / t) for v in z]
            p = [v / sum(p) for v in p]
            top = max(p)
            gaps[math.ceil(top * 7) - 1] += top - (p.index(top) == y)
            squares += sum((v - (k == y)) ** 2 for k, v in enumerate(p))
        assert ece == pytest.approx(sum(map(abs, gaps)) / len(rows), abs=1e-9)
        assert brier == pytest.approx(squares / len(rows), abs=1e-9)
    assert found["best_temperature"] == pytest.approx(1.4)
    assert found["at_edge"]  # T is near 1.5 times that of the logits before
    with (tmp_path / "m" / "temperature_sweep.csv").open() as file:
        assert [float(row["ece"]) for row in csv.DictReader(file)] == pytest.approx(curve["ece"], rel=1e-5)
    assert cv2.imread(str(tmp_path / "m" / "temperature_sweep.png")) is not None
    for wrong in (
        ["--sweep", "1.2", "0.8"],
        ["--sweep", "0.8", "1.2", "--step", "0"],
        ["--sweep", "0.8", "1.2", "--bins", "1"],
    ):
        assert run(["calibrate", str(tmp_path / "m"), *wrong]) == 2
    assert run(["calibrate", str(tmp_path / "m"), "--sweep", "0.1", "9", "--step", "0.0001"]) == 2
    assert "at most 1,000" in capsys.readouterr().err.lower()
