"""All artefacts of a study to `study.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mien.core.artifacts import base
from mien.core.artifacts.calibration import read_calibration
from mien.core.artifacts.ensemble import SELECTION, read_ensemble, read_selection
from mien.core.artifacts.evaluation import read_evaluation
from mien.core.artifacts.index import read_audit, read_index
from mien.core.artifacts.onnx_model import read_parity
from mien.core.artifacts.predictions import predictions_path, read_predictions
from mien.core.artifacts.run import read_run
from mien.core.artifacts.study import SCHEMA, StudyFolder, read_request, read_timings, write_study
from mien.evaluate.bootstrap import with_intervals
from mien.evaluate.calibration import RANGE, at_edge
from mien.evaluate.metrics import metrics, softmax
from mien.evaluate.scaling import scaling_of
from mien.evaluate.selection import baselines


def run(root: Path) -> dict[str, Any]:
    """Write `study.json` of the study in `root`."""
    folder, request = StudyFolder(root), read_request(root)
    study = request["study"]
    selection = read_selection(folder.ensembles / SELECTION)
    index = read_index(folder.index)
    val, test = (index.labels[index.rows(split)] for split in ("val", "test"))
    document: dict[str, Any] = {
        "schema": SCHEMA, "name": request["name"], "git": base.git_revision(), "seed": study["seed"],
        "index": read_audit(folder.index) | {"crop": index.crop.model_dump(), "fingerprint": index.fingerprint},
        "baselines": {"test": baselines(val, test)},
        "teachers": [_model(folder.teacher(t["name"])) for t in study["teachers"]],
        "ensembles": [_ensemble(folder.ensembles / name, entry["kind"]) for name, entry in selection["candidates"].items()],
        "selected": {"name": selection["name"], "why": selection["why"], "hash": selection["hash"], "best_single": selection["best_single"],
                     "diversity": selection["diversity"], "rivals": selection["rivals"]},
        "student": None, "latency": [], "wall_s": read_timings(root),
    }  # fmt: skip
    if study["student"] is not None:
        chosen = next(e for e in document["ensembles"] if e["name"] == selection["name"])
        student = _model(folder.student)
        student["retention_macro_f1"] = student["test"]["macro_f1"] / chosen["test"]["macro_f1"]
        student["export"] = read_parity(folder.model)
        document["student"] = student
    document["latency"] = _latencies(document)
    write_study(root, document)
    return document


def _model(run_folder: Path) -> dict[str, Any]:
    trained = read_run(run_folder)
    calibration = read_calibration(run_folder / "calibration.json", weights_hash=trained.weights_hash)
    val = read_predictions(predictions_path(run_folder, "val"))
    evaluation = read_evaluation(run_folder)
    return {
        "name": trained.name, "backbone": trained.settings["backbone"], "params": trained.config["parameters"],
        "size_mb": round(trained.weights.stat().st_size / 1e6, 2), "best_epoch": trained.manifest["best"]["best_epoch"], "epochs": trained.settings["epochs"],
        "training": base.read_json(run_folder / "environment.json", kind="environment")["training"],
        "val": with_intervals(softmax(scaling_of(calibration).apply(val.logits)), val.labels),
        "test": evaluation["test"], "test_uncalibrated": evaluation["test_uncalibrated"], "test_as_distributed": evaluation["test_as_distributed"],
        "calibration": {
            "method": calibration.method, "why": calibration.why, "heldout": calibration.heldout, "T": calibration.temperature, "ci95": list(calibration.temperature_ci95), "range": list(RANGE), "at_edge": at_edge(calibration.temperature),
            "n": calibration.n, "before": calibration.before, "after": calibration.after, "warnings": [*calibration.warnings, *calibration.decisions.warnings],
        },
        "abstain": evaluation["abstain"], "latency": evaluation["latency"],
    }  # fmt: skip


def _ensemble(folder: Path, kind: str) -> dict[str, Any]:
    ensemble, evaluation = read_ensemble(folder), read_evaluation(folder)
    scores = {}
    for split in ("val", "calib"):
        predictions = read_predictions(predictions_path(folder, split))
        scores[split] = metrics(softmax(predictions.logits), predictions.labels)
    return {
        "name": ensemble.name, "kind": kind, "members": [m.name for m in ensemble.members], "pool": ensemble.pool, "weighting": ensemble.weighting,
        "heldout": ensemble.heldout, "weights": [m.weight for m in ensemble.members], "T": ensemble.temperature, "why": ensemble.why, **scores,
        "test": evaluation["test"], "test_as_distributed": evaluation["test_as_distributed"],
        "vs_best_single": evaluation.get("vs_best_single"), "abstain": evaluation["abstain"],
    }  # fmt: skip


def _latencies(document: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [{"name": m["name"], **m["latency"]} for m in document["teachers"]]
    student = document["student"]
    if student is not None:
        rows.append({"name": student["name"], **student["latency"]})
        if student["export"] is not None:
            rows.append({"name": student["name"], **student["export"]["latency"]})
    return rows
