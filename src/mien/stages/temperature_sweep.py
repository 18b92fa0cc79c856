"""A run's calibration error over a grid of temperatures: a table and a figure, with the fitted temperature."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from mien.core.artifacts import base
from mien.core.artifacts.calibration import Calibration, TemperatureSweep
from mien.core.artifacts.calibration_rows import CalibrationRows
from mien.core.artifacts.predictions import predictions_path, read_predictions
from mien.core.errors import UsageError
from mien.evaluate.calibration_error import Floats, ece_floor
from mien.evaluate.metrics import softmax
from mien.evaluate.temperature import sweep

NAME = "temperature_sweep"
MOST = 1000  # temperatures


def run(run_folder: Path, fitted: Calibration, *, low: float, high: float, step: float, bins: int) -> TemperatureSweep:
    """Write `temperature_sweep.json`, `.csv` and, where matplotlib is installed, `.png` into the run's folder.

    The rows are those of calib that no temperature was fitted on. Nothing is chosen by it: the calibration stays as it
    is. Raises `UsageError` for a range or bins that make no grid.
    """
    grid = temperatures(low, high, step)
    if bins < 2:
        raise UsageError(f"--bins {bins}.", rule="Calibration error is counted in at least two bins.")
    rows = CalibrationRows.of(read_predictions(predictions_path(run_folder, "calib")))
    held = [rows.part("weights"), rows.part("thresholds")]
    logits, labels = np.concatenate([r.logits for r in held]), np.concatenate([r.labels for r in held])
    curve = sweep(logits, labels, grid, bins=bins)
    best = int(np.argmin(curve["nll"]))
    document: TemperatureSweep = {
        "rows": len(labels),
        "bins": bins,
        "fitted_temperature": fitted.temperature,
        "best_temperature": curve["temperature"][best],
        "at_edge": best in (0, len(grid) - 1),
        "ece_floor": ece_floor(softmax(logits / grid[best]), bins),
        "curve": curve,
    }
    base.write_json(run_folder / f"{NAME}.json", document)
    base.write_text(run_folder / f"{NAME}.csv", _table(curve))
    image = _figure(document)
    if image is not None:
        base.write_bytes(run_folder / f"{NAME}.png", image)
    return document


def temperatures(low: float, high: float, step: float) -> Floats:
    """The grid from `low` to `high`, both included where `step` divides their distance."""
    if not (0 < low < high and 0 < step <= high - low):
        raise UsageError(
            f"--sweep {low:g} {high:g} --step {step:g}.", rule="0 < LOW < HIGH, and at least one step between them."
        )
    count = int((high - low) / step + 1e-9) + 1
    if count > MOST:
        raise UsageError(f"{count:,} temperatures.", rule=f"At most {MOST:,}.", fix="Take a larger --step.")
    return np.asarray(low + step * np.arange(count), dtype=np.float64)


def _table(curve: dict[str, list[float]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(curve)
    writer.writerows([f"{value:.6g}" for value in row] for row in zip(*curve.values(), strict=True))
    return out.getvalue()


def _figure(document: TemperatureSweep) -> bytes | None:
    try:
        from mien.report.figures import temperature_sweep  # noqa: PLC0415  (matplotlib is an extra)
    except ModuleNotFoundError:
        return None
    return temperature_sweep(document).png()
