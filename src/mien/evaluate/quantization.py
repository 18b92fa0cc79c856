"""A quantised model's own calibration, and whether it is as good as the float model it was made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mien.core.artifacts.abstention import AbstentionPolicy
from mien.core.artifacts.calibration import Calibration
from mien.core.artifacts.calibration_rows import CalibrationRows, require
from mien.core.artifacts.metrics import Metrics
from mien.core.artifacts.onnx_model import PrecisionComparison, PrecisionScores
from mien.core.config.judge import CalibrateConfig
from mien.core.errors import MienError
from mien.evaluate.calibration_error import Floats, Ints
from mien.evaluate.decisions import fit_decisions
from mien.evaluate.metrics import metrics
from mien.evaluate.scaling import Scaling, by_temperature, choose
from mien.evaluate.temperature import fit_temperature

F1_LOSS = 0.005  # of macro-F1 on val: what int8 may cost
ECE_RISE = 0.01  # on val: what it may add to the calibration error, each model with its own calibration


@dataclass(frozen=True)
class Recalibrated:
    """The map, its temperature and the thresholds of a quantised model."""

    temperature: float
    scaling: Scaling
    decisions: AbstentionPolicy


def recalibrate(rows: CalibrationRows, origin: Calibration) -> Recalibrated:
    """Fit on calib what `origin` was fitted for, on a quantised model's logits of the same `rows`.

    The temperature is always fitted; a richer map is used where the origin has one of its kind and it pays on these
    logits too. Class shares, coverage, precision, bounds and alpha are those that the origin was asked for. Raises
    `CalibrationError` where the temperature lies on the edge of its range.
    """
    require(rows, "recalibrate")
    fitted_on, last = rows.part("temperature"), rows.part("thresholds")
    temperature, defaults = fit_temperature(fitted_on, resamples=0).value, CalibrateConfig()
    scaling = by_temperature(temperature)
    if origin.method in ("vector", "dirichlet"):
        scaling = choose(
            fitted_on, temperature, methods=("temperature", origin.method), folds=defaults.folds, seed=defaults.seed
        ).scaling
    if origin.prior is not None:
        scaling = Scaling(scaling.method, scaling.matrix, scaling.bias + _prior_shift(origin))
    requested = origin.decisions.asked
    alpha = defaults.alpha if requested["alpha"] is None else requested["alpha"]
    decisions = fit_decisions(
        last.with_logits(scaling.apply(last.logits)),
        coverage=requested["coverage"],
        precision=requested["precision"],
        max_fpr=requested["max_fpr"],
        alpha=alpha,
    )
    return Recalibrated(temperature, scaling, decisions)


def _prior_shift(origin: Calibration) -> Floats:
    """What `--prior` adds to calibrated logits, (7,): the log of the requested class shares over the assumed ones."""
    return np.asarray(np.log(np.array(origin.prior)) - np.log(np.array(origin.assumed)))


def compare(float_probabilities: Floats, int8_probabilities: Floats, labels: Ints) -> PrecisionComparison:
    """Both models on the same val rows (n, 7): figures of each, and the share of rows whose label changed."""
    changed = float_probabilities.argmax(1) != int8_probabilities.argmax(1)
    return {
        "rows": len(labels),
        "labels_changed": float(changed.mean()),
        "float": _scores(metrics(float_probabilities, labels)),
        "int8": _scores(metrics(int8_probabilities, labels)),
        "limits": {"macro_f1_loss": F1_LOSS, "ece_rise": ECE_RISE},
    }


def _scores(values: Metrics) -> PrecisionScores:
    return {
        "accuracy": values["accuracy"],
        "macro_f1": values["macro_f1"],
        "minority_f1": values["minority_f1"],
        "nll": values["nll"],
        "ece": values["ece"],
    }


def check_int8(compared: PrecisionComparison) -> None:
    """Raise `MienError` where int8 costs more macro-F1 or calibration than `F1_LOSS` and `ECE_RISE` allow."""
    before, after = compared["float"], compared["int8"]
    lost, risen = before["macro_f1"] - after["macro_f1"], after["ece"] - before["ece"]
    if lost <= F1_LOSS and risen <= ECE_RISE:
        return
    raise MienError(
        f"int8 is worse than the float model on {compared['rows']:,} val rows: macro-F1 {before['macro_f1']:.4f} → "
        f"{after['macro_f1']:.4f}, "
        f"ECE {before['ece']:.4f} → {after['ece']:.4f}; {compared['labels_changed']:.1%} of the labels changed.",
        rule=f"It may lose {F1_LOSS} of macro-F1 and add {ECE_RISE} to the ECE; each model has its own calibration.",
        fix="Nothing was written. Export without --int8: the float model has the figures of the run.",
    )
