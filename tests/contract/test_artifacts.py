"""Each artefact: written, read back, and refused when it is not what it says."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers import faces
from mien.core.artifacts import base
from mien.core.artifacts.calibration import read_calibration
from mien.core.artifacts.calibration_rows import CalibrationRows
from mien.core.artifacts.ensemble import read_ensemble, read_selection
from mien.core.artifacts.evaluation import read_evaluation
from mien.core.artifacts.index import read_index
from mien.core.artifacts.predictions import (
    check_same_rows,
    fingerprint_of,
    predictions_path,
    read_predictions,
    write_predictions,
)
from mien.core.artifacts.run import read_run
from mien.core.artifacts.study import read_study
from mien.core.config.judge import CalibrateConfig
from mien.core.errors import ArtifactError, CalibrationError, InputError, SplitError, UsageError

WRITER = """
import sys, pathlib
from mien.core.artifacts import base
path = pathlib.Path(sys.argv[1]); n = 0
print("ready", flush=True)
while True:
    n += 1
    base.write_text(path, (chr(97 + n % 26)) * 4_000_000)
"""


@pytest.mark.slow
def test_a_kill_never_leaves_a_torn_file(tmp_path):
    path = tmp_path / "f.txt"
    rng, whole = np.random.default_rng(0), 0
    for _ in range(8):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(float(rng.uniform(0.05, 0.25)))
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL  # it never ends by itself: each kill hit a writer
        if path.exists():
            whole += 1
            text = path.read_text()
            assert len(text) == 4_000_000
            assert text == text[0] * len(text)
    assert whole  # a file was there to be torn
    assert list(tmp_path.glob(".f.txt.*.tmp"))  # and a kill came in the middle of a write


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "f.json"
    base.write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        base.write_json(path, {"a": float("nan")})

    def fail_half_way():
        with base.atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]


def test_fingerprints_depend_on_all_that_matters_and_not_on_order():
    one = base.fingerprint("run", 1, {"a": 1, "b": 2}, {"x": "y"})
    assert one == base.fingerprint("run", 1, {"b": 2, "a": 1}, {"x": "y"})
    assert (
        len(
            {
                one,
                base.fingerprint("run", 2, {"a": 1, "b": 2}, {"x": "y"}),
                base.fingerprint("run", 1, {"a": 1, "b": 3}, {"x": "y"}),
                base.fingerprint("run", 1, {"a": 1, "b": 2}, {"x": "z"}),
            }
        )
        == 4
    )


def test_claiming_refuses_what_is_not_ours(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        base.claim(tmp_path, kind="run", fingerprint="a")
    assert not base.claim(tmp_path / "new", kind="run", fingerprint="a")
    assert base.claim(tmp_path / "new", kind="run", fingerprint="a")
    with pytest.raises(UsageError):
        base.claim(tmp_path / "new", kind="run", fingerprint="b")
    with pytest.raises(UsageError, match="is a file"):
        base.claim(tmp_path / "mine.txt", kind="run", fingerprint="a")


def test_an_altered_index_is_refused(small_index, tmp_path):
    copy = tmp_path / "i"
    shutil.copytree(small_index, copy)
    assert len(read_index(copy).table) == 560
    data = bytearray((copy / "index.parquet").read_bytes())
    data[100] ^= 1
    (copy / "index.parquet").write_bytes(data)
    with pytest.raises(ArtifactError, match="altered"):
        read_index(copy)
    (copy / "pixels" / "00000.npy").write_bytes(b"short")
    with pytest.raises(ArtifactError, match="another size"):
        read_index(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="no complete index"):
        read_index(copy)
    with pytest.raises(ArtifactError, match="No folder"):
        read_index(tmp_path / "nowhere")


def test_asking_an_index_for_a_split_it_lacks(small_index):
    with pytest.raises(SplitError, match="No split"):
        read_index(small_index).rows("testing")


def test_predictions_keep_groups_and_older_files_have_none(tmp_path):
    """Format 2 had no group_id: each row is a group of its own, and `mien predict` writes another fingerprint."""
    logits, labels = faces.simulated(40)
    plain = faces.predictions(logits, labels)
    grouped = dataclasses.replace(plain, groups=np.array([f"g{i // 2}" for i in range(40)]))
    path = tmp_path / "calib.parquet"
    marks = [fingerprint_of("0" * 64, "1" * 64, "calib", version) for version in (2, 3)]
    assert marks[1] == fingerprint_of("0" * 64, "1" * 64, "calib") != marks[0]
    write_predictions(path, plain, fingerprint=marks[0])
    old = read_predictions(path)
    assert old.groups is None
    assert (old.group_ids == old.image_ids).all()
    write_predictions(path, grouped, fingerprint=marks[1])
    found = read_predictions(path)
    assert (found.groups == grouped.groups).all()
    assert (CalibrationRows.of(found).groups == grouped.groups).all()
    assert found.hash != old.hash
    with pytest.raises(InputError, match="different near-duplicate groups"):
        check_same_rows([old, found])
    table = pq.read_table(path)
    other = table.set_column(table.column_names.index("group_id"), "group_id", pa.array(["x"] * 40))
    pq.write_table(other, path)
    with pytest.raises(ArtifactError, match="altered"):
        read_predictions(path)


def test_predictions_round_trip_and_refusals(tmp_path):
    logits, labels = faces.simulated(30)
    path = predictions_path(tmp_path, "calib")
    write_predictions(path, faces.predictions(logits, labels), fingerprint=fingerprint_of("0" * 64, "1" * 64, "calib"))
    back = read_predictions(path)
    assert (back.logits == logits).all()
    assert (back.labels == labels).all()
    assert back.hash == faces.predictions(logits, labels).hash
    shutil.copy(path, predictions_path(tmp_path, "val"))
    with pytest.raises(SplitError, match="says 'calib'"):
        read_predictions(predictions_path(tmp_path, "val"))
    bad = logits.copy()
    bad[3, 2] = np.nan
    with pytest.raises(InputError, match="NaN"):
        faces.predictions(bad, labels)
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(ArtifactError, match="no predictions file"):
        read_predictions(path)


def test_planted_test_rows_are_refused_everywhere(small_study, tmp_path):
    """Test predictions under the name calib, with and without their split column rewritten."""
    from mien.core.config.judge import CalibrateConfig, EnsembleConfig
    from mien.stages import calibrate, ensemble

    run = tmp_path / "arc"
    shutil.copytree(small_study / "teachers" / "arc", run)
    test, calib = predictions_path(run, "test"), predictions_path(run, "calib")
    with pytest.raises(SplitError, match="test rows"):
        read_predictions(test)
    assert read_predictions(test, allow_test=True).split == "test"
    shutil.copy(test, calib)
    with pytest.raises(SplitError, match="test rows"):
        calibrate.run(run, CalibrateConfig())
    with pytest.raises(SplitError, match="test rows"):
        ensemble.run([run], tmp_path / "e", EnsembleConfig())
    assert not (tmp_path / "e").exists()
    table = pq.read_table(test)
    renamed = table.set_column(1, "split", [["calib"] * len(table)]).replace_schema_metadata(table.schema.metadata)
    pq.write_table(renamed, calib)
    with pytest.raises((SplitError, ArtifactError)):
        calibrate.run(run, CalibrateConfig())


def test_test_rows_renamed_throughout_are_refused(small_study, tmp_path):
    """The split column and the metadata both say calib; the rows' hash and the fingerprint do not."""
    path = predictions_path(small_study / "teachers" / "arc", "test")
    table = pq.read_table(path)
    meta = json.loads(table.schema.metadata[b"mien.predictions"]) | {"split": "calib"}
    renamed = table.set_column(1, "split", [["calib"] * len(table)])
    target = tmp_path / "calib.parquet"
    pq.write_table(renamed.replace_schema_metadata({b"mien.predictions": json.dumps(meta).encode()}), target)
    with pytest.raises(ArtifactError, match="altered"):
        read_predictions(target)
    found = read_predictions(path, allow_test=True)
    meta["rows_hash"] = replace(faces.predictions(found.logits, found.labels), groups=found.groups).hash
    ids = pq.read_table(target).set_column(0, "image_id", [[f"{i:064x}" for i in range(len(table))]])
    pq.write_table(ids.replace_schema_metadata({b"mien.predictions": json.dumps(meta).encode()}), target)
    with pytest.raises(ArtifactError, match="something else than calib"):
        read_predictions(target)


def test_another_index_is_refused_by_every_stage(small_study, tmp_path):
    """In an index with other splits a run's train images may be test images."""
    from mien.core.config import DistillConfig, resolve
    from mien.core.config.judge import EvaluateConfig, ExportConfig, PredictConfig
    from mien.stages import distill, evaluate, export, predict

    other = faces.index(tmp_path / "i", count=1050, size=32, seed=9)
    run, ens = small_study / "teachers" / "arc", small_study / "ensembles"
    config, origin = resolve(DistillConfig, ("flag", {"backbone": "cnn"}))
    calls = [
        lambda: predict.run(run, other, "val", PredictConfig()),
        lambda: evaluate.run(run, other, EvaluateConfig(), selection=ens / "selected.json"),
        lambda: evaluate.run(ens, other, EvaluateConfig()),
        lambda: export.run(run, other, tmp_path / "m.onnx", ExportConfig()),
        lambda: distill.run(config, origin, ens, other, tmp_path / "s"),
    ]
    for call in calls:
        with pytest.raises(InputError, match="trained on another index"):
            call()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["i"]


KILLED_SAVE = """
import resource, signal, sys, torch
from pathlib import Path
from mien.core.artifacts import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # ended by the system in the middle of the write
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
checkpoint.save_state(Path(sys.argv[1]), {"weights": torch.zeros(100_000)}, {"step": 4}, seconds=1)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_save_killed_in_its_middle_leaves_nothing_behind(tmp_path):
    base.claim(tmp_path, kind="run", fingerprint="a")
    done = subprocess.run([sys.executable, "-c", KILLED_SAVE, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGXFSZ
    assert len(list((tmp_path / "last").iterdir())) == 1
    assert base.claim(tmp_path, kind="run", fingerprint="a")
    assert not list((tmp_path / "last").iterdir())


def test_what_a_killed_write_left_does_not_block_the_folder(tmp_path):
    (tmp_path / ".started.json.123.tmp").touch()
    assert not base.claim(tmp_path, kind="run", fingerprint="a")
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / ".state-4.safetensors.77.tmp").touch()
    (tmp_path / "last" / ".mine.tmp").touch()
    assert base.claim(tmp_path, kind="run", fingerprint="a")
    assert [p.name for p in (tmp_path / "last").iterdir()] == [".mine.tmp"]
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["started.json"]


def test_predict_refuses_test(small_study):
    from mien.core.config.judge import PredictConfig
    from mien.stages import predict

    with pytest.raises(SplitError, match="evaluate` alone opens test"):
        predict.run(small_study / "teachers" / "arc", small_study / "index", "test", PredictConfig())


def test_a_calibration_of_other_weights_is_refused(small_study, tmp_path):
    from mien.core.config.judge import CalibrateConfig, EvaluateConfig, ExportConfig
    from mien.stages import calibrate, evaluate, export

    arc, plain = (read_run(small_study / "teachers" / name) for name in ("arc", "plain"))
    with pytest.raises(CalibrationError, match="fitted on weights"):
        read_calibration(plain.folder / "calibration.json", weights_hash=arc.weights_hash)
    run = tmp_path / "arc"
    shutil.copytree(arc.folder, run)
    shutil.copy(plain.folder / "calibration.json", run / "calibration.json")
    with pytest.raises(CalibrationError):
        evaluate.run(
            run, small_study / "index", EvaluateConfig(), selection=small_study / "ensembles" / "selected.json"
        )
    with pytest.raises(CalibrationError):
        export.run(run, small_study / "index", tmp_path / "m.onnx", ExportConfig())
    shutil.copy(predictions_path(plain.folder, "calib"), predictions_path(run, "calib"))
    with pytest.raises(CalibrationError, match="other weights"):
        calibrate.run(run, CalibrateConfig())


def test_test_stays_closed_without_a_selection(small_study, tmp_path):
    from mien.core.config.judge import EvaluateConfig
    from mien.stages import evaluate

    run = tmp_path / "alone" / "arc"
    shutil.copytree(small_study / "teachers" / "arc", run)
    for name in ("evaluation.json", "predictions/test.parquet"):
        (run / name).unlink()
    with pytest.raises(SplitError, match="No selection knows"):
        evaluate.run(run, small_study / "index", EvaluateConfig())
    assert not (run / "predictions" / "test.parquet").exists()
    selection = tmp_path / "selected.json"
    shutil.copy(small_study / "ensembles" / "selected.json", selection)
    done = evaluate.run(run, small_study / "index", EvaluateConfig(resamples=100), selection=selection)
    assert done["selection_hash"] == read_selection(selection)["hash"]
    old = json.loads((run / "evaluation.json").read_text()) | {"format": 1}
    (run / "evaluation.json").write_text(json.dumps(old))
    with pytest.raises(ArtifactError, match="has format 1"):
        read_evaluation(run)
    again = evaluate.run(run, small_study / "index", EvaluateConfig(resamples=100), selection=selection)
    assert again["test"] == done["test"]
    assert (
        again["test_accesses"] == done["test_accesses"]
    )  # the same model, calibration and selection: nothing new is seen
    chosen = json.loads(selection.read_text())
    edited = chosen | {"name": "arc" if chosen["name"] == "plain" else "plain"}
    selection.write_text(json.dumps(edited))
    with pytest.raises(ArtifactError, match="altered"):
        evaluate.run(run, small_study / "index", EvaluateConfig(resamples=101), selection=selection)


def test_an_altered_run_is_refused(small_study, tmp_path):
    run = tmp_path / "r"
    shutil.copytree(small_study / "teachers" / "arc", run)
    data = bytearray((run / "best.safetensors").read_bytes())
    data[-5] ^= 1
    (run / "best.safetensors").write_bytes(data)
    with pytest.raises(ArtifactError, match="altered"):
        read_run(run)
    with pytest.raises(ArtifactError, match="not a run"):
        read_run(small_study / "index")


def test_ensembles_describe_what_they_do(small_study):
    ensemble = read_ensemble(small_study / "ensembles" / "arc+plain.logit")
    assert sum(m.weight for m in ensemble.members) == pytest.approx(1)
    assert [m.weights_hash for m in ensemble.members] == [
        read_run(small_study / "teachers" / n).weights_hash for n in ("arc", "plain")
    ]
    summary = (small_study / "ensembles" / "ensemble_summary.csv").read_text().splitlines()
    assert len(summary) == 1 + 4
    assert {"ensemble", "weights", "macro_f1", "delta_macro_f1", "minority_f1", "ece", "comment", "T"} <= set(
        summary[0].split(",")
    )


def test_study_json_has_every_key(small_study):
    study = read_study(small_study)
    assert {
        "schema",
        "git",
        "seed",
        "index",
        "teachers",
        "ensembles",
        "selected",
        "student",
        "latency",
        "wall_s",
    } <= set(study)
    metrics = {
        "n",
        "accuracy",
        "macro_f1",
        "macro_f1_present",
        "minority_f1",
        "per_class_f1",
        "ece",
        "ece_floor",
        "ece_debiased",
        "smooth_ece",
        "per_class_ece",
        "ece_classwise",
        "brier",
        "nll",
        "mean_confidence",
        "signed_gap",
        "confusion",
        "ci95",
    }
    for teacher in study["teachers"]:
        assert {"name", "backbone", "params", "size_mb", "val", "test", "test_as_distributed", "calibration"} <= set(
            teacher
        )
        assert {"T", "at_edge", "before", "after"} <= set(teacher["calibration"])
        assert set(teacher["test"]) == set(teacher["val"]) == metrics
    for ensemble in study["ensembles"]:
        assert {"name", "members", "weights", "T", "val", "calib", "test", "vs_best_single"} <= set(ensemble)
    assert {"name", "why", "hash"} <= set(study["selected"])
    low, high = study["student"]["retention_ci95"]
    assert 0 < low < study["student"]["retention_macro_f1"] < high
    for row in study["latency"]:
        assert row["p50_ms"] <= row["p95_ms"]
    assert set(study["wall_s"]) >= {"index", "train arc", "ensemble", "distill", "evaluate", "export"}
    assert study["selected"]["hash"] == read_selection(small_study / "ensembles" / "selected.json")["hash"]
    assert read_evaluation(small_study / "student")["selection_hash"] == study["selected"]["hash"]


def test_a_map_with_parameters_for_each_class_needs_each_class(tmp_path):
    """An index may lack classes; calibrate says so where it matters, and nowhere else."""
    from mien.stages.calibrate import _check_classes

    logits, labels = faces.simulated(200)
    whole = faces.predictions(logits, labels)
    lacking = faces.predictions(logits[labels != 1], labels[labels != 1])
    for method in ("vector", "dirichlet"):
        _check_classes(tmp_path, whole, CalibrateConfig(method=method))
        with pytest.raises(CalibrationError, match=rf"show no disgust.*--method {method}"):
            _check_classes(tmp_path, lacking, CalibrateConfig(method=method))
    _check_classes(tmp_path, lacking, CalibrateConfig())
