"""A run's calib predictions to its calibration: the map to probabilities, and when to answer."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

import numpy as np

from mien.core.artifacts import base
from mien.core.artifacts import calibration as store
from mien.core.artifacts import test_accesses as accesses
from mien.core.artifacts.calibration_rows import CalibrationRows
from mien.core.artifacts.plan import about_to_make
from mien.core.artifacts.prediction_source import PredictionSource, read_prediction_source
from mien.core.artifacts.predictions import Predictions, predictions_path, read_predictions
from mien.core.config.judge import CalibrateConfig, parse_prior
from mien.core.errors import CalibrationError
from mien.core.labels import LABELS
from mien.core.progress import warn
from mien.evaluate.decisions import fit_decisions
from mien.evaluate.metrics import alarms, metrics, softmax
from mien.evaluate.priors import assumed_by
from mien.evaluate.scaling import METHODS, Choice, by_temperature, choose, fit_dirichlet, fit_vector
from mien.evaluate.temperature import RANGE, Temperature, fit_by_sweep, fit_temperature

MACRO_F1_LOSS = 0.005  # a calibration that costs more macro-F1 gets a warning


def run(run_folder: Path, config: CalibrateConfig, *, again: bool = False) -> store.Calibration:
    """Fit `RUN/calibration.json` on calib, or find it there, fitted on the same predictions.

    Raises `SplitError` for a new one after test was opened, unless `again`: it then states how often that was.
    """
    source = read_prediction_source(run_folder)
    if source.run is None and not predictions_path(run_folder, "calib").is_file():
        raise CalibrationError(f"{run_folder} was imported without calib rows.", fix="Import them with the others.")
    predictions = read_predictions(predictions_path(run_folder, "calib"))
    if predictions.meta["weights_hash"] != source.weights_hash:
        raise CalibrationError(
            f"The calib predictions in {run_folder} were made with other weights.",
            rule="A calibration belongs to the weights and predictions it was fitted on.",
            fix="Predict again: `mien predict RUN --index DIR --split calib`.",
        )
    fingerprint = base.fingerprint(
        store.KIND,
        store.VERSION,
        config.model_dump(mode="json"),
        {"weights": source.weights_hash, "predictions": predictions.hash},
    )
    path = run_folder / "calibration.json"
    if store.stored_fingerprint(path) == fingerprint:
        return store.read_calibration(path, weights_hash=source.weights_hash)
    about_to_make(path)
    _check_classes(run_folder, predictions, config)
    opened = accesses.read_accesses([accesses.origin_of(run_folder, predictions.meta)])
    calibration = _fit(source, predictions, config, fingerprint, len(opened))
    # Checked last, so that a calibration that cannot be right fails with its own error.
    accesses.check_unopened(opened, "this calibration was fitted", again=again)
    for text in [*calibration.warnings, *calibration.decisions.warnings]:
        warn(f"{source.name}: {text}")
    store.write_calibration(path, calibration)
    return calibration


def _check_classes(run_folder: Path, predictions: Predictions, config: CalibrateConfig) -> None:
    """Raise where a map with parameters for each class is asked for, and calib lacks a class."""
    present = set(predictions.labels.tolist())
    absent = [name for number, name in enumerate(LABELS) if number not in present]
    if absent and config.method in ("vector", "dirichlet"):
        raise CalibrationError(
            f"The calib rows of {run_folder} show no {', '.join(absent)}.",
            rule=f"--method {config.method} fits parameters for each class.",
            fix="Use --method temperature, or an index whose calib split has every class.",
        )


def _fit(
    source: PredictionSource, predictions: Predictions, config: CalibrateConfig, fingerprint: str, accesses_before: int
) -> store.Calibration:
    whole = CalibrationRows.of(predictions)
    rows, last = whole.part("temperature"), whole.part("thresholds")
    temperature = (
        fit_by_sweep(rows)
        if config.method == "sweep"
        else fit_temperature(rows, resamples=config.resamples, seed=config.seed)
    )
    choice = _choose(rows, temperature, config)
    heldout_rows = [whole.part("weights"), last]
    logits, labels = np.concatenate([r.logits for r in heldout_rows]), np.concatenate([r.labels for r in heldout_rows])
    before, after = metrics(softmax(logits), labels), metrics(softmax(choice.scaling.apply(logits)), labels)
    prior, assumed = parse_prior(config.prior), None
    scaling = choice.scaling
    if prior is not None:
        assumed = assumed_by(scaling, rows, np.array(prior), predictions.meta.get("predicts_prior"))
        scaling = scaling.with_prior(assumed.shares, np.array(prior))
    decisions = fit_decisions(
        last.with_logits(scaling.apply(last.logits)),
        coverage=config.coverage,
        precision=config.precision,
        max_fpr=config.fpr_bounds,
        alpha=config.alpha,
    )
    warnings = [*alarms(before), *rows.shortcomings()]
    if after["macro_f1"] < before["macro_f1"] - MACRO_F1_LOSS:
        warnings.append(
            f"labels: {scaling.method} scaling gives rows other labels than the logits did, "
            f"and macro-F1 falls from {before['macro_f1']:.3f} to {after['macro_f1']:.3f}: "
            "probabilities are right for calib's class shares, under which rare classes are named less often; "
            "--method temperature keeps the labels"
        )
    if prior is not None:
        warnings.append("prior: before, after, thresholds and sets are of calib's rows, whose class shares are others")
    low, high = temperature.ci95
    if low <= 1.01 * RANGE[0] or high >= 0.99 * RANGE[1]:
        warnings.append(f"the interval of T reaches the edge of its range {RANGE}: {len(rows)} rows do not settle it")
    fitted = store.map_hash(choice.scaling.matrix.tolist(), choice.scaling.bias.tolist(), source.weights_hash)
    return store.Calibration(
        fingerprint=fingerprint,
        map_hash=fitted,
        method=scaling.method,
        matrix=scaling.matrix.tolist(),
        bias=tuple(scaling.bias.tolist()),
        why=choice.why,
        heldout=choice.heldout,
        prior=prior,
        assumed=None if assumed is None else tuple(assumed.shares.tolist()),
        assumed_why="" if assumed is None else assumed.why,
        temperature=temperature.value,
        temperature_ci95=temperature.ci95,
        n=len(rows),
        weights_hash=source.weights_hash,
        predictions_hash=predictions.hash,
        test_accesses=accesses_before,
        decisions=decisions,
        before=before,
        after=after,
        warnings=warnings,
    )


def _choose(rows: CalibrationRows, temperature: Temperature, config: CalibrateConfig) -> Choice:
    match config.method:
        case "auto":
            return choose(rows, temperature.value, methods=METHODS, folds=config.folds, seed=config.seed)
        case "vector":
            scaling = fit_vector(rows)
        case "dirichlet":
            scaling = fit_dirichlet(rows)
        case "temperature" | "sweep":
            scaling = by_temperature(temperature.value, config.method)
        case other:
            assert_never(other)
    return Choice(scaling, {}, f"{config.method}, as was asked")
