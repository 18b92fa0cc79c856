"""Opens test: a run or an ensemble, after a selection was written, to `evaluation.json`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mien.core.artifacts import base
from mien.core.artifacts import predictions as store
from mien.core.artifacts import test_accesses as accesses
from mien.core.artifacts.calibration import read_calibration
from mien.core.artifacts.ensemble import SELECTION, pooled_meta, read_ensemble, read_selection, runs_of
from mien.core.artifacts.evaluation import (
    KIND,
    VERSION,
    Elsewhere,
    EvaluationDocument,
    OfRun,
    Scores,
    Versus,
    read_evaluation,
    write_evaluation,
)
from mien.core.artifacts.index import Index, read_index, read_occurrences
from mien.core.artifacts.metrics import MetricsAsDistributed
from mien.core.artifacts.plan import about_to_make
from mien.core.artifacts.prediction_source import (
    PredictionSource,
    check_has_weights,
    judging_warnings,
    read_latency,
    read_prediction_source,
    selection_of,
)
from mien.core.artifacts.run import check_index
from mien.core.config.judge import EvaluateConfig
from mien.core.errors import ArtifactError, InputError, SplitError, UsageError
from mien.core.labels import INDEX
from mien.core.progress import meter, warn
from mien.evaluate.bootstrap import with_intervals
from mien.evaluate.calibration_error import Floats, reliability
from mien.evaluate.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from mien.evaluate.decisions import judge
from mien.evaluate.metrics import alarms, metrics, softmax
from mien.evaluate.paired import paired
from mien.evaluate.pooling import ensemble_logits
from mien.evaluate.scaling import scaling_of
from mien.evaluate.shift import by_group, degradation
from mien.evaluate.temperature import sweep


@dataclass(frozen=True)
class _Job:
    """The index (None where only imported predictions are judged) and the settings."""

    index: Index | None
    config: EvaluateConfig

    @property
    def folder(self) -> Path | None:
        return None if self.index is None else self.index.folder

    def fingerprint(self, weights: str, selection: str, more: dict[str, str]) -> str:
        content = "none" if self.index is None else self.index.content_hash
        inputs = {"index": content, "weights": weights, "selection": selection, **more}
        return base.fingerprint(KIND, VERSION, self.config.figure_settings(), inputs)


def run(
    target: Path, index_folder: Path | None, config: EvaluateConfig, *, selection: Path | None = None
) -> EvaluationDocument:
    """Score a run, one ensemble, or what a folder of ensembles selected, on test.

    `index_folder` may be None for predictions that were imported without an index.
    """
    _check_images(index_folder, config)
    job = _Job(None if index_folder is None else read_index(index_folder), config)
    if (target / SELECTION).is_file():
        target = target / read_selection(target / SELECTION)["name"]
    if (target / "ensemble.json").is_file():
        return _evaluate_ensemble(target, job)
    return _evaluate_run(target, job, selection)


def run_all(ensembles: Path, index_folder: Path | None, config: EvaluateConfig) -> EvaluationDocument:
    """Score every run and every candidate of a folder of ensembles; returns what the selected one got.

    Corrupted images, where requested, are used for the selected one and the best single model alone.
    """
    _check_images(index_folder, config)
    selection = read_selection(ensembles / SELECTION)
    plain = config.model_copy(update={"corruptions": False})
    corrupted = {selection["name"], selection["best_single"]}
    runs = runs_of(ensembles)
    with meter("test", len(runs) + len(selection["candidates"])) as progress:
        for folder in runs.values():
            run(folder, index_folder, plain, selection=ensembles / SELECTION)
            progress.advance()
        for name in selection["candidates"]:
            run(ensembles / name, index_folder, config if name in corrupted else plain)
            progress.advance()
    return read_evaluation(ensembles / selection["name"])


def _evaluate_run(target: Path, job: _Job, selection_path: Path | None) -> EvaluationDocument:
    source = read_prediction_source(target)
    _check_index(source, job.index)
    calibration = read_calibration(target / "calibration.json", weights_hash=source.weights_hash)
    selection, selection_path = selection_of(source, selection_path, calibration)
    fingerprint = job.fingerprint(source.weights_hash, selection["hash"], {"calibration": calibration.hash})
    if (done := _done(target, fingerprint)) is not None:
        return done
    about_to_make(target / "evaluation.json")
    test = _test_predictions(source, job)
    map_ = scaling_of(calibration)
    probabilities = softmax(map_.apply(test.logits))
    scores = _scores(source.name, test.logits, probabilities, calibration.temperature, test, job)
    elsewhere = _elsewhere([source], probabilities, test, job, lambda several: map_.apply(several[0]))
    warnings = judging_warnings(source, selection, calibration)
    for text in warnings:
        warn(f"{source.name}: {text}")
    abstain = judge(probabilities, test.labels, calibration.decisions)
    before = accesses.record(
        source.name,
        scores["test"],
        test.image_ids.tolist(),
        accesses.places_of([target], job.folder, selection_path),
        index=source.index_hash,
        weights_hash=source.weights_hash,
        calibration_hash=calibration.hash,
        selection_hash=selection["hash"],
    )
    write_evaluation(
        target,
        {
            "kind": KIND,
            "format": VERSION,
            "fingerprint": fingerprint,
            "selection_hash": selection["hash"],
            **scores,
            **elsewhere,
            **Versus(),
            "calibration": calibration.method,
            "calibration_hash": calibration.hash,
            "latency": read_latency(target),
            "warnings": [*warnings, *calibration.warnings, *calibration.decisions.warnings],
            "abstain": abstain,
            "test_accesses": {
                "before": before,
                "before_selection": selection["test_accesses"],
                "before_calibration": calibration.test_accesses,
            },
        },
    )
    return read_evaluation(target)


def _evaluate_ensemble(target: Path, job: _Job) -> EvaluationDocument:
    ensemble, selection = read_ensemble(target), read_selection(target.parent / SELECTION)
    candidate = selection["candidates"].get(ensemble.name)
    if candidate is None or candidate["hash"] != ensemble.hash:
        raise SplitError(
            f"{target} is not among the candidates of {target.parent / SELECTION}.",
            rule="Test is opened for what the selection knew.",
        )
    fingerprint = job.fingerprint(ensemble.hash, selection["hash"], {})
    if (done := _done(target, fingerprint)) is not None:
        return done
    about_to_make(target / "evaluation.json")
    logits, test = _pooled_test(target, job)
    probabilities = softmax(logits / ensemble.temperature)
    scores = _scores(ensemble.name, logits, probabilities, ensemble.temperature, test, job)
    best, versus = selection["best_single"], Versus()
    if best != ensemble.name:
        rival_logits, rival_test = _pooled_test(target.parent / best, job)
        store.check_same_rows([test, rival_test])
        rival_temperature = read_ensemble(target.parent / best).temperature
        difference = paired(
            probabilities,
            softmax(rival_logits / rival_temperature),
            test.labels,
            resamples=job.config.resamples,
            seed=job.config.seed,
            groups=test.groups,
        )
        versus["vs_best_single"] = {"rival": best, **difference}
    abstain = judge(probabilities, test.labels, ensemble.decisions)
    members = [read_prediction_source(target / m.run) for m in ensemble.members]
    elsewhere = _elsewhere(
        members, probabilities, test, job, lambda several: ensemble_logits(several, ensemble) / ensemble.temperature
    )
    folders = [m.folder for m in members]
    before = accesses.record(
        ensemble.name,
        scores["test"],
        test.image_ids.tolist(),
        accesses.places_of(folders, job.folder, target.parent / SELECTION),
        index=test.meta["index"],
        weights_hash=ensemble.weights_hash,
        calibration_hash=ensemble.hash,
        selection_hash=selection["hash"],
    )
    meta = pooled_meta(ensemble, test.meta["index"])
    pooled = store.Predictions("test", test.image_ids, test.labels, logits / ensemble.temperature, meta, test.groups)
    store.write_predictions(store.predictions_path(target, "test"), pooled, fingerprint=fingerprint)
    write_evaluation(
        target,
        {
            "kind": KIND,
            "format": VERSION,
            "fingerprint": fingerprint,
            "selection_hash": selection["hash"],
            **scores,
            **OfRun(),
            **versus,
            "abstain": abstain,
            "warnings": [*ensemble.warnings, *ensemble.decisions.warnings],
            **elsewhere,
            "test_accesses": {
                "before": before,
                "before_selection": selection["test_accesses"],
                "before_calibration": None,
            },
        },
    )
    return read_evaluation(target)


def _check_images(index_folder: Path | None, config: EvaluateConfig) -> None:
    if config.corruptions and index_folder is None:
        raise UsageError(
            "--corruptions needs images, and there is no index.",
            fix="Name it (--index DIR), or leave --corruptions out.",
        )


def _done(target: Path, fingerprint: str) -> EvaluationDocument | None:
    try:
        evaluation = read_evaluation(target)
    except ArtifactError:  # absent, or of another format
        return None
    return evaluation if evaluation["fingerprint"] == fingerprint else None


def _check_index(source: PredictionSource, index: Index | None) -> None:
    """Raise unless `index` is what these predictions need: their own, or none for those that have none."""
    if source.run is not None and index is not None:
        return check_index(source.run, index)
    if index is None and source.run is None:
        return None
    if index is None:
        raise UsageError(f"{source.folder} was trained on an index.", fix="Name it: --index DIR.")
    if source.index_hash != index.content_hash:
        raise InputError(
            f"{source.folder} was not imported with the index {index.folder}.",
            rule="Predictions are judged with the index that they were checked against, or without one.",
            fix="Import them with --index, or leave --index out here.",
        )
    return None


def _test_predictions(source: PredictionSource, job: _Job) -> store.Predictions:
    """The model's test predictions: computed once for a run of ours, imported for others."""
    path = store.predictions_path(source.folder, "test")
    if source.run is not None and job.index is not None:
        fingerprint = store.fingerprint_of(source.weights_hash, job.index.content_hash, "test")
        if store.stored_fingerprint(path) != fingerprint:
            from mien.nn.inference import predict_split  # noqa: PLC0415  (torch)

            predictions = predict_split(source.run, job.index, "test", job.config.batch_size)
            store.write_predictions(path, predictions, fingerprint=fingerprint)
    elif not path.is_file():
        raise ArtifactError(f"{source.folder} was imported without test rows.", fix="Import them with the others.")
    return store.read_predictions(path, allow_test=True)


def _pooled_test(folder: Path, job: _Job) -> tuple[Floats, store.Predictions]:
    """An ensemble's pooled test logits, before its final temperature."""
    ensemble = read_ensemble(folder)
    tests = []
    for member in ensemble.members:
        source = read_prediction_source(folder / member.run)
        if source.weights_hash != member.weights_hash:
            raise ArtifactError(
                f"{source.folder} was trained again after {ensemble.name} was made.", fix="Make the ensembles again."
            )
        _check_index(source, job.index)
        tests.append(_test_predictions(source, job))
    store.check_same_rows(tests)
    return ensemble_logits([t.logits for t in tests], ensemble), tests[0]


def _scores(
    name: str, logits: Floats, probabilities: Floats, temperature: float, test: store.Predictions, job: _Job
) -> Scores:
    before = softmax(logits)
    scored = with_intervals(
        probabilities, test.labels, resamples=job.config.resamples, seed=job.config.seed, groups=test.groups
    )
    for text in alarms(scored):
        warn(f"{name}: {text}")
    return {
        "name": name,
        "temperature": temperature,
        "test": scored,
        "test_uncalibrated": metrics(before, test.labels),
        "test_as_distributed": None if job.index is None else _as_distributed(probabilities, test, job.index),
        "reliability": {"before": reliability(before, test.labels), "after": reliability(probabilities, test.labels)},
        "sweep": sweep(logits, test.labels, np.geomspace(0.25, 4, 33)),
    }


def _elsewhere(
    members: list[PredictionSource],
    clean: Floats,
    test: store.Predictions,
    job: _Job,
    join: Callable[[list[Floats]], Floats],
) -> Elsewhere:
    """Figures by group and source, and under corruptions where asked; `join` makes members' logits calibrated ones."""
    index, config = job.index, job.config
    if index is None:
        return {"groups": {}, "corruptions": {}}
    rows = index.rows("test")
    sources = index.table["source"].take(rows).to_pylist()
    attributes = [{"source": source, **values} for source, values in zip(sources, index.attributes(rows), strict=True)]
    figures: Elsewhere = {
        "groups": by_group(clean, test.labels, attributes, seed=config.seed, groups=test.groups),
        "corruptions": {},
    }
    if not config.corruptions:
        return figures
    for member in members:
        check_has_weights(member.folder, "judge corrupted images with")
    from mien.nn.inference import load_network  # noqa: PLC0415  (torch)
    from mien.nn.predict import predict_logits  # noqa: PLC0415

    networks = [load_network(m.run) for m in members if m.run is not None]
    drawn = np.sort(np.random.default_rng(config.seed).permutation(len(rows))[: config.corruption_pictures])
    pixels, labels = np.array(index.pixels[rows[drawn]]), test.labels[drawn]
    with meter("corruptions", len(CORRUPTIONS) * len(STRENGTHS)) as progress:
        for name in CORRUPTIONS:
            by_strength = []
            for strength in STRENGTHS:
                changed = corrupt(pixels, name, strength, seed=config.seed)
                logits = [
                    predict_logits(n, changed, np.arange(len(drawn)), batch_size=config.batch_size) for n in networks
                ]
                by_strength.append(softmax(join(logits)))
                progress.advance()
            figures["corruptions"][name] = degradation(
                clean[drawn], by_strength, labels, seed=config.seed, groups=test.group_ids[drawn]
            )
    return figures


def _as_distributed(probabilities: Floats, test: store.Predictions, index: Index) -> MetricsAsDistributed | None:
    """The score on the official test rows as their source distributes them: repeated, own labels.

    Rows whose image the index dropped are left out and counted; None without official test rows.
    """
    rows = read_occurrences(index.folder).to_pylist()
    official = [r for r in rows if r["official_split"] == "test" and r["label"] is not None]
    if not official:
        return None
    where = {image_id: i for i, image_id in enumerate(test.image_ids.tolist())}
    kept = [r for r in official if r["image_id"] in where]
    picked = np.array([where[r["image_id"]] for r in kept])
    labels = np.array([INDEX[r["label"]] for r in kept], dtype=np.int64)
    return {**metrics(probabilities[picked], labels), "left_out": len(official) - len(kept)}
