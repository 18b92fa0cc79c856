"""All artefacts of a study, or of a folder of ensembles alone, to `study.json`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mien.core.artifacts import base
from mien.core.artifacts import test_accesses as accesses
from mien.core.artifacts.calibration import read_calibration
from mien.core.artifacts.ensemble import SELECTION, SelectionDocument, read_ensemble, read_selection, runs_of
from mien.core.artifacts.evaluation import read_evaluation, read_transfers
from mien.core.artifacts.index import read_audit, read_index
from mien.core.artifacts.onnx_model import read_parity
from mien.core.artifacts.prediction_source import PredictionSource, read_prediction_source
from mien.core.artifacts.predictions import Predictions, check_same_rows, predictions_path, read_predictions
from mien.core.artifacts.study import (
    SCHEMA,
    EnsembleSummary,
    ModelSummary,
    NamedLatency,
    StudyDocument,
    StudyFolder,
    TrainingSummary,
    Variant,
    read_request,
    read_timings,
    write_study,
)
from mien.core.config.earlier import EarlierReport
from mien.core.config.train import NEUTRAL
from mien.core.errors import ArtifactError
from mien.data.sources.synthetic import Synthetic
from mien.evaluate.bootstrap import interval, ratio, with_intervals
from mien.evaluate.calibration_error import Floats
from mien.evaluate.expected import compare_expected, describe_expected
from mien.evaluate.metrics import mean_entropy, metrics, minority_recall, softmax
from mien.evaluate.paired import paired
from mien.evaluate.published import check_published
from mien.evaluate.scaling import scaling_of
from mien.evaluate.selection import baselines
from mien.evaluate.temperature import RANGE, at_edge


def run(root: Path) -> StudyDocument:
    """Write `study.json` of the study in `root`."""
    folder, request = StudyFolder(root), read_request(root)
    study, index = request["study"], read_index(folder.index)
    document = _summary(folder.ensembles)
    document["name"], document["seed"], document["wall_s"] = request["name"], study["seed"], read_timings(root)
    document["index"] = {
        **read_audit(folder.index),
        "crop": index.crop.document(),
        "fingerprint": index.fingerprint,
    }
    if study["student"] is not None:
        chosen = next(e for e in document["ensembles"] if e["name"] == document["selected"]["name"])
        student = _model(folder.student)
        document["student"] = {
            **student,
            "retention_macro_f1": student["test"]["macro_f1"] / chosen["test"]["macro_f1"],
            "retention_ci95": retention(folder.student, folder.ensembles / chosen["name"]),
            "export": read_parity(folder.model),
        }
    document["latency"] = _latencies(document)
    document["expected"] = compare_expected(document, study["expected"])
    if (earlier := study.get("earlier")) is not None:
        report = EarlierReport.model_validate(earlier)
        document["earlier"] = {"title": report.title, "checks": check_published(report)}
    write_study(root, document)
    return document


def expected_lines(document: StudyDocument) -> list[tuple[bool, str]]:
    """Whether each expected figure of a `study.json` is inside its range, in words."""
    rows = document["expected"]
    return [(row["inside"], line) for row, line in zip(rows, describe_expected(rows), strict=True)]


def retention(student: Path, ensemble: Path) -> list[float]:
    """95 % interval of the student's macro-F1 over its teacher's on test: paired, both on the same resampled images."""
    student_probabilities, student_test = _calibrated_test(read_prediction_source(student))
    teachers = read_predictions(predictions_path(ensemble, "test"), allow_test=True)
    check_same_rows([student_test, teachers])
    pair = [student_probabilities, softmax(teachers.logits)]
    return interval(ratio(pair, student_test.labels, "macro_f1", groups=student_test.groups))


def summarize_ensembles(ensembles: Path) -> StudyDocument:
    """Write `study.json` of a folder of ensembles that no study made, without index and student."""
    selection = read_selection(ensembles / SELECTION)
    closed = {name: None for name, folder in runs_of(ensembles).items() if not _is_evaluated(folder, selection)}
    closed |= {name: None for name in selection["candidates"] if not _is_evaluated(ensembles / name, selection)}
    if closed:
        raise ArtifactError(
            (
                f"{len(closed)} models in {ensembles} were not judged on test as they are now: "
                f"{', '.join(list(closed)[:5])}{' …' if len(closed) > 5 else ''}."
            ),
            rule="A report has no empty cells, and none that belong to another selection or calibration.",
            fix="Judge them all: `mien evaluate ENS --all`, with --index DIR where they have one.",
        )
    document = _summary(ensembles)
    document["latency"] = _latencies(document)
    write_study(ensembles, document)
    return document


def _is_evaluated(folder: Path, selection: SelectionDocument) -> bool:
    """Whether a model was judged after this selection, and a run with the calibration that it has."""
    try:
        evaluation = read_evaluation(folder)
    except ArtifactError:
        return False
    path = folder / "calibration.json"
    same = (
        not path.is_file()
        or read_calibration(path, weights_hash=read_prediction_source(folder).weights_hash).hash
        == evaluation["calibration_hash"]
    )
    return same and evaluation["selection_hash"] == selection["hash"]


def _summary(ensembles: Path) -> StudyDocument:
    """A folder's runs, candidates and selection; what only a study has is empty."""
    selection, runs = read_selection(ensembles / SELECTION), runs_of(ensembles)
    opened = [read_prediction_source(folder) for folder in runs.values()]
    ours = [j.run for j in opened if j.run is not None]
    first = next(iter(runs.values()))
    val = read_predictions(predictions_path(first, "val")).labels
    origins = [accesses.origin_of(j.folder, read_predictions(predictions_path(j.folder, "val")).meta) for j in opened]
    counts = np.sum(read_evaluation(first)["test"]["confusion"], axis=1)  # of test's labels
    return {
        "schema": SCHEMA,
        "name": ensembles.resolve().name,
        "git": base.git_revision(),
        "seed": None,
        "index": None,
        "baselines": {"test": baselines(val, np.repeat(np.arange(len(counts)), counts))},
        "drawn": len(ours) == len(runs) and all(run.config["index"]["licenses"] == [Synthetic.license] for run in ours),
        "terms": sorted({text for run in ours for text in run.terms}),
        "imported": [j.name for j in opened if j.run is None],
        "teachers": [_model(folder) for folder in runs.values()],
        "variants": _variants(opened),
        "ensembles": [_ensemble(ensembles / name, entry["kind"]) for name, entry in selection["candidates"].items()],
        "selected": {
            "name": selection["name"],
            "why": selection["why"],
            "hash": selection["hash"],
            "best_single": selection["best_single"],
            "diversity": selection["diversity"],
            "rivals": selection["rivals"],
        },
        "test_accesses": {
            "before_selection": selection["test_accesses"],
            "in_all": len(accesses.read_accesses(origins, ensembles.resolve().parent)),
        },
        "student": None,
        "latency": [],
        "wall_s": {},
    }


def _variants(runs: list[PredictionSource]) -> list[Variant]:
    """Trainings of one backbone against its first: differing settings, and paired differences on test."""
    first: dict[str, PredictionSource] = {}
    rows: list[Variant] = []
    for run in runs:
        origin = first.setdefault(run.backbone, run)
        if origin is run or not run.settings or not origin.settings:
            continue
        pair = [_calibrated_test(source) for source in (run, origin)]
        check_same_rows([test for _, test in pair])
        (probabilities, test), (first_probabilities, _) = pair
        keys = [k for k, v in run.settings.items() if k not in NEUTRAL and v != origin.settings.get(k)]
        rows.append(
            {
                "backbone": run.backbone,
                "first": origin.name,
                "name": run.name,
                "differs": {k: [run.settings[k], origin.settings.get(k)] for k in keys},
                **paired(probabilities, first_probabilities, test.labels, groups=test.groups),
            }
        )
    return rows


def _calibrated_test(source: PredictionSource) -> tuple[Floats, Predictions]:
    """Probabilities (n, k) of a judged run on test, and the rows."""
    calibration = read_calibration(source.folder / "calibration.json", weights_hash=source.weights_hash)
    test = read_predictions(predictions_path(source.folder, "test"), allow_test=True)
    return softmax(scaling_of(calibration).apply(test.logits)), test


def _model(run_folder: Path) -> ModelSummary:
    """A run of ours, or imported predictions, which have no training and no weights."""
    source = read_prediction_source(run_folder)
    training: TrainingSummary = {"size_mb": None, "best_epoch": None, "epochs": None, "training": None}
    if (run := source.run) is not None:
        training = {
            "size_mb": round(run.weights.stat().st_size / 1e6, 2),
            "best_epoch": run.manifest["best"]["best_epoch"],
            "epochs": run.settings["epochs"],
            "training": run.environment["training"],
        }
    calibration = read_calibration(run_folder / "calibration.json", weights_hash=source.weights_hash)
    val = read_predictions(predictions_path(run_folder, "val"))
    evaluation = read_evaluation(run_folder)
    return {
        "name": source.name,
        "backbone": source.backbone,
        "params": source.parameters,
        **training,
        "val": with_intervals(softmax(scaling_of(calibration).apply(val.logits)), val.labels, groups=val.groups),
        "test": evaluation["test"],
        "test_uncalibrated": evaluation["test_uncalibrated"],
        "test_as_distributed": evaluation["test_as_distributed"],
        "calibration": {
            "method": calibration.method,
            "why": calibration.why,
            "heldout": calibration.heldout,
            "T": calibration.temperature,
            "ci95": list(calibration.temperature_ci95),
            "range": list(RANGE),
            "at_edge": at_edge(calibration.temperature),
            "n": calibration.n,
            "test_accesses": calibration.test_accesses,
            "before": calibration.before,
            "after": calibration.after,
        },
        "warnings": evaluation["warnings"],
        "abstain": evaluation["abstain"],
        "latency": evaluation["latency"],
        "groups": evaluation["groups"],
        "corruptions": evaluation["corruptions"],
        "transfer": [
            {
                "on": transfer["on"],
                "on_sources": transfer["on_sources"],
                "left_out": transfer["left_out"],
                "test": transfer["test"],
            }
            for transfer in read_transfers(run_folder)
        ],
    }


def _ensemble(folder: Path, kind: str) -> EnsembleSummary:
    ensemble, evaluation = read_ensemble(folder), read_evaluation(folder)
    scores, entropy = {}, {}
    for split in ("val", "calib"):
        predictions = read_predictions(predictions_path(folder, split))
        probabilities = softmax(predictions.logits)
        scores[split], entropy[split] = metrics(probabilities, predictions.labels), mean_entropy(probabilities)
    return {
        "name": ensemble.name,
        "kind": kind,
        "members": [m.name for m in ensemble.members],
        "pool": ensemble.pool,
        "weighting": ensemble.weighting,
        "heldout": ensemble.heldout,
        "weights": [m.weight for m in ensemble.members],
        "T": ensemble.temperature,
        "why": ensemble.why,
        "val": scores["val"],
        "calib": scores["calib"],
        "mean_entropy": entropy["val"],
        "minority_recall": minority_recall(np.asarray(evaluation["test"]["confusion"])),
        "test": evaluation["test"],
        "test_as_distributed": evaluation["test_as_distributed"],
        "vs_best_single": evaluation.get("vs_best_single"),
        "abstain": evaluation["abstain"],
        "warnings": evaluation["warnings"],
        "groups": evaluation["groups"],
        "corruptions": evaluation["corruptions"],
    }


def _latencies(document: StudyDocument) -> list[NamedLatency]:
    rows: list[NamedLatency] = [
        {"name": m["name"], **m["latency"]} for m in document["teachers"] if m["latency"] is not None
    ]
    student = document["student"]
    if student is not None:
        if student["latency"] is not None:
            rows.append({"name": student["name"], **student["latency"]})
        if student["export"] is not None:
            rows.append({"name": student["name"], **student["export"]["latency"]})
    return rows
