"""Test is opened once, or everybody is told: calibrating, selecting and reporting after an access to it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from helpers import documents, faces
from mien.cli import run
from mien.core.labels import LABELS

SPLITS = np.array(["val"] * 200 + ["calib"] * 400 + ["test"] * 200)
TRUTH, Y = faces.simulated(len(SPLITS), seed=5, skill=2.0)
IDS = np.array([f"face_{i:04d}.png" for i in range(len(SPLITS))])
QUICK = ["--resamples", "100"]


@pytest.fixture
def models(tmp_path):
    """Two imported models of the same rows, calibrated."""
    return [imported(tmp_path, "a", seed=1), imported(tmp_path, "b", seed=2)]


def imported(folder, name, *, seed, ids=IDS):
    z = TRUTH + np.random.default_rng(seed).normal(0, 1, TRUTH.shape)
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.npz"
    np.savez(file, image_id=ids, label=np.array(LABELS)[Y], split=SPLITS, logits=z, classes=np.array(LABELS))
    assert run(["predictions", "import", str(file), "--out", str(folder / name)]) == 0
    assert run(["calibrate", str(folder / name), "--method", "temperature", *QUICK]) == 0
    return folder / name


def select(models, out, *flags):
    return run(["ensemble", *map(str, models), "--out", str(out), "--max-members", "1", *QUICK, *flags])


@pytest.mark.slow
def test_selecting_and_calibrating_after_an_access_ask_for_again(models, tmp_path, capsys):
    ens, other = tmp_path / "ens", tmp_path / "other"
    assert select(models, ens) == 0
    assert "No access to test is on record from before this selection" in capsys.readouterr().out
    assert run(["evaluate", str(ens), "--all", *QUICK]) == 0
    assert select(models, ens) == 0  # there it is: nothing is chosen
    assert run(["calibrate", str(models[0]), "--method", "temperature", *QUICK]) == 0  # there it is
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    capsys.readouterr()
    assert select(models, other) == 2
    assert "opened 4 times before this selection" in " ".join(capsys.readouterr().err.split())
    assert select(models[:1], other) == 2
    assert run(["calibrate", str(models[0]), "--method", "vector", *QUICK]) == 2
    assert "before this calibration was fitted" in " ".join(capsys.readouterr().err.split())
    assert run(["calibrate", str(models[0]), "--prior", "uniform", *QUICK]) == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before
    shutil.rmtree(ens)  # a remade folder remembers
    assert select(models, ens) == 2
    assert run(["calibrate", str(models[0]), "--method", "vector", "--again", *QUICK]) == 0
    assert json.loads((models[0] / "calibration.json").read_text())["test_accesses"] == 4
    assert select(models, other, "--again") == 0
    assert json.loads((other / "selected.json").read_text())["test_accesses"] == 4
    capsys.readouterr()
    assert run(["evaluate", str(other), "--all", *QUICK]) == 0
    said = capsys.readouterr()
    assert "a: test_accesses: Test was opened 4 times before this calibration was fitted." in said.err
    assert "opened 4 times before this selection was written." in said.out
    assert run(["report", str(other)]) == 0
    page = documents.html_text(other / "report" / "index.html")
    assert "Test was opened 4 times before this selection was written: its figures are optimistic. By now" in page
    assert "By now it was opened 8 times" in page
    assert "before test was opened" not in page
    assert "Test was opened 4 times before this calibration was fitted." in page
    found = json.loads((models[0] / "evaluation.json").read_text())["test_accesses"]
    assert found == {"before": 4, "before_selection": 4, "before_calibration": 4}


def test_another_import_of_the_same_test_is_recognised_by_its_images(models, tmp_path, capsys):
    assert select(models, tmp_path / "ens") == 0
    assert run(["evaluate", str(tmp_path / "ens"), *QUICK]) == 0
    late, z = tmp_path / "late.npz", TRUTH + 0.5
    moved = np.where(np.arange(len(SPLITS)) < 100, "calib", SPLITS)  # other rows of val and calib, the same test
    np.savez(late, image_id=IDS, label=np.array(LABELS)[Y], split=moved, logits=z, classes=np.array(LABELS))
    assert run(["predictions", "import", str(late), "--out", str(tmp_path / "late")]) == 0
    capsys.readouterr()
    assert run(["calibrate", str(tmp_path / "late"), *QUICK]) == 2
    assert "opened once before this calibration" in " ".join(capsys.readouterr().err.split())
    elsewhere = imported(tmp_path, "strange", seed=3, ids=np.array([f"x{i}" for i in range(len(SPLITS))]))
    assert select([elsewhere], tmp_path / "strangers") == 0  # other images: that test is closed still
    shutil.copytree(models[0], tmp_path / "far" / "away" / "run")
    shutil.copytree(models[1], tmp_path / "far" / "off" / "run")
    judged = json.loads((tmp_path / "ens" / "selected.json").read_text())["name"]
    copies = {"a": tmp_path / "far" / "away" / "run", "b": tmp_path / "far" / "off" / "run"}
    assert run(["calibrate", str(copies.pop(judged)), "--method", "vector", *QUICK]) == 2  # it took its record along
    assert (
        run(["calibrate", str(copies.popitem()[1]), "--method", "vector", *QUICK]) == 0
    )  # never judged, none in sight


def test_how_many_images_go_at_once_opens_nothing_again(models, tmp_path, capsys):
    assert select(models, tmp_path / "ens") == 0
    assert run(["evaluate", str(models[0]), *QUICK]) == 0
    before = (models[0] / "evaluation.json").stat().st_mtime_ns
    assert run(["evaluate", str(models[0]), "--batch-size", "7", *QUICK]) == 0
    assert (models[0] / "evaluation.json").stat().st_mtime_ns == before


def test_a_student_that_another_candidate_taught_is_told(small_study, tmp_path, capsys):
    """And a student, a judgement elsewhere and its index remade: every door asks or tells."""
    out = tmp_path / "out"
    shutil.copytree(small_study, out)
    student, index, ens = out / "student", out / "index", out / "ensembles"
    capsys.readouterr()
    assert run(["calibrate", str(student), "--method", "vector", "--resamples", "40"]) == 2
    assert "opened 7 times before this calibration" in " ".join(capsys.readouterr().err.split())
    shutil.rmtree(student / "test_accesses")
    shutil.rmtree(out / "test_accesses")
    other = faces.index(tmp_path / "elsewhere" / "other", count=420, size=32, seed=5)
    assert run(["evaluate", str(student), "--index", str(index), "--on", str(other), "--json", *QUICK]) == 0
    there = json.loads(capsys.readouterr().out)
    assert there["test_accesses"] == {"before": 0, "before_selection": 0, "before_calibration": 0}
    assert list((other.parent / "test_accesses").glob("*.json"))
    (kept,) = (student / "transfer").glob("*.json")
    written = kept.stat().st_mtime_ns
    assert run(["evaluate", str(student), "--index", str(index), "--on", str(other), "--batch-size", "7", *QUICK]) == 0
    assert kept.stat().st_mtime_ns == written
    shutil.rmtree(out / "test_accesses")
    assert run(["calibrate", str(student), "--method", "vector", "--resamples", "40"]) == 2
    assert "opened once before this calibration" in " ".join(capsys.readouterr().err.split())
    chosen = json.loads((ens / "selected.json").read_text())
    rest = next(name for name in chosen["candidates"] if name != chosen["name"])
    config = json.loads((student / "config.json").read_text())
    config["teacher"] |= {"name": rest, "weights_hash": chosen["candidates"][rest]["weights_hash"]}
    (student / "config.json").write_text(json.dumps(config))
    (student / "evaluation.json").unlink()
    _resized(student)
    assert run(["evaluate", str(student), "--index", str(index), *QUICK]) == 0
    assert f"teacher: taught by {rest}, not by {chosen['name']}" in " ".join(capsys.readouterr().err.split())
    found = json.loads((student / "evaluation.json").read_text())
    assert any(text.startswith("teacher: ") for text in found["warnings"])


def _resized(run_folder):
    """Let the manifest know an edited config.json."""
    path = run_folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["config.json"]["bytes"] = (run_folder / "config.json").stat().st_size
    path.write_text(json.dumps(manifest))
