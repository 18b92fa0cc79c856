"""A run's calib predictions to its temperature and abstention threshold."""

from __future__ import annotations

from pathlib import Path

from mien.core.artifacts import base
from mien.core.artifacts import calibration as store
from mien.core.artifacts.predictions import FitRows, predictions_path, read_predictions
from mien.core.artifacts.run import read_run
from mien.core.config.judge import CalibrateConfig
from mien.core.errors import CalibrationError
from mien.core.progress import warn
from mien.evaluate.calibration import RANGE, fit_temperature, threshold_for_coverage
from mien.evaluate.metrics import alarms, metrics, softmax


def run(run_folder: Path, config: CalibrateConfig) -> store.Calibration:
    """Fit `RUN/calibration.json` on calib, or find it there, fitted on the same predictions."""
    trained = read_run(run_folder)
    predictions = read_predictions(predictions_path(run_folder, "calib"))
    if predictions.meta["weights_hash"] != trained.weights_hash:
        raise CalibrationError(
            f"The calib predictions in {run_folder} were made with other weights.",
            rule="A calibration belongs to the weights and predictions it was fitted on.",
            fix="Predict again: `mien predict RUN --index DIR --split calib`.",
        )
    mark = base.fingerprint(
        store.KIND,
        store.VERSION,
        config.model_dump(mode="json"),
        {"weights": trained.weights_hash, "predictions": predictions.hash},
    )
    path = run_folder / "calibration.json"
    if store.stored_fingerprint(path) == mark:
        return store.read_calibration(path, weights_hash=trained.weights_hash)
    rows = FitRows.of(predictions)
    fitted = fit_temperature(rows, resamples=config.resamples, seed=config.seed)
    before = metrics(softmax(rows.logits), rows.labels)
    warnings = alarms(before)
    if fitted.ci95[0] <= 1.01 * RANGE[0] or fitted.ci95[1] >= 0.99 * RANGE[1]:
        warnings.append(f"the interval of T reaches the edge of its range {RANGE}: {len(rows)} rows do not settle it")
    for text in warnings:
        warn(f"{run_folder.name}: {text}")
    calibration = store.Calibration(
        fingerprint=mark, temperature=fitted.value, temperature_ci95=fitted.ci95, n=len(rows),
        weights_hash=trained.weights_hash, predictions_hash=predictions.hash,
        abstain_below=threshold_for_coverage(rows, fitted.value, config.coverage), coverage=config.coverage,
        before=before, after=metrics(softmax(rows.logits / fitted.value), rows.labels), warnings=warnings,
    )  # fmt: skip
    store.write_calibration(path, calibration)
    return calibration
