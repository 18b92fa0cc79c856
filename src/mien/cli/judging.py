"""The commands that judge: predict, predictions import, calibrate, ensemble, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App

from mien.cli.common import Flat, Json, Out, show
from mien.core.config import CalibrateConfig, EnsembleConfig, EvaluateConfig, ImportConfig, PredictConfig
from mien.core.errors import UsageError

if TYPE_CHECKING:  # a command imports what it needs when it runs
    from mien.core.artifacts.evaluation import AccessesBefore

predictions_app = App(name="predictions", help="Predictions made elsewhere.")


@predictions_app.command(name="import")
def import_(
    file: Path,
    *,
    out: Out,
    index: Path | None = None,
    config: Annotated[ImportConfig | None, Flat] = None,
    json: Json = False,
) -> None:
    """Bring predictions made elsewhere: they then calibrate, join and are judged like a run.

    Parameters
    ----------
    file
        .csv, .parquet or .npz with ids, labels, splits and seven logits or probabilities a row
    out
        the folder to make
    index
        the index whose images these are; ids are its image_id or path
    """
    from mien.stages import import_predictions as stage

    done = stage.run(file, out, config or ImportConfig(), index_folder=index)
    rows = ", ".join(f"{count:,} {split}" for split, count in done["rows"].items())
    show(done, json=json, text=f"{out}: {rows} rows of {done['numbers']} from {file.name}")


def predict(
    run: Path, *, index: Path, split: str, config: Annotated[PredictConfig | None, Flat] = None, json: Json = False
) -> None:
    """Write a run's logits on val or calib.

    Parameters
    ----------
    run
        the run's folder
    index
        the index it was trained on
    split
        val or calib; test is opened by `mien evaluate` alone
    """
    from mien.stages import predict as stage

    path = stage.run(run, index, split, config or PredictConfig())
    show({"predictions": str(path)}, json=json, text=str(path))


def calibrate(
    run: Path,
    *,
    again: bool = False,
    sweep: tuple[float, float] | None = None,
    step: float = 0.02,
    bins: int = 15,
    config: Annotated[CalibrateConfig | None, Flat] = None,
    json: Json = False,
) -> None:
    """Fit how a run's logits become probabilities, and when it answers, on its calib predictions.

    Parameters
    ----------
    run
        the run's folder
    again
        fit another calibration although test was opened; it states how often
    sweep
        LOW HIGH: also write ECE and NLL over these temperatures, as a table and a figure; the fit does not depend on it
    step
        between the temperatures of --sweep
    bins
        in which --sweep counts the ECE
    """
    from mien.stages import calibrate as stage

    calibration = stage.run(run, config or CalibrateConfig(), again=again)
    document = calibration.model_dump()
    (low, high), before, after = calibration.temperature_ci95, calibration.before, calibration.after
    text = (
        f"{calibration.method} scaling; T = {calibration.temperature:.4f} [{low:.4f}, {high:.4f}] "
        f"on {calibration.n:,} images; on {after['n']:,} others "
        f"ECE {before['ece']:.4f} -> {after['ece']:.4f} (floor {after['ece_floor']:.4f}), "
        f"NLL {before['nll']:.4f} -> {after['nll']:.4f}, "
        f"mean confidence - accuracy {before['signed_gap']:+.4f} -> {after['signed_gap']:+.4f}"
    )
    if sweep is not None:
        from mien.stages import temperature_sweep

        curve = temperature_sweep.run(run, calibration, low=sweep[0], high=sweep[1], step=step, bins=bins)
        document["temperature_sweep"] = curve
        text += f"\n{run / temperature_sweep.NAME}.csv: least NLL at T = {curve['best_temperature']:.4g}"
        text += ", an edge of the sweep: the least lies there or beyond" if curve["at_edge"] else ""
    show(document, json=json, text=text)


def ensemble(
    *runs: Path,
    out: Out,
    again: bool = False,
    config: Annotated[EnsembleConfig | None, Flat] = None,
    json: Json = False,
) -> None:
    """Make every combination of runs, and write which one is selected on val, and why.

    Parameters
    ----------
    runs
        calibrated runs with val and calib predictions
    out
        the folder of ensembles
    again
        write another selection although test was opened; it states how often
    """
    from mien.core.artifacts.test_accesses import told
    from mien.stages import ensemble as stage

    if not runs:
        raise UsageError("No run was named.", fix="mien ensemble RUN [RUN …] --out ENS")
    chosen = stage.run(list(runs), out, config or EnsembleConfig(), again=again)
    opened = told(chosen["test_accesses"], "this selection was written")
    lines = [f"selected: {chosen['name']}", *(f"  {line}" for line in chosen["why"]), opened]
    show(chosen, json=json, text="\n".join(lines))


def evaluate(
    target: Path,
    *,
    index: Path | None = None,
    selection: Path | None = None,
    on: Path | None = None,
    all: bool = False,
    config: Annotated[EvaluateConfig | None, Flat] = None,
    json: Json = False,
) -> None:
    """Open test, once a selection is written, for a run, an ensemble, or what was selected.

    Parameters
    ----------
    target
        a run, an ensemble, or a folder of ensembles; with --on a model file (.onnx) too
    index
        the index whose test split is opened; left out for predictions that were imported without one. With --on the
        one that the model learned from
    selection
        the selected.json that knows this run; found by itself in a folder beside it
    on
        another index, on whose test a run, an ensemble or a model file (.onnx) is judged, without what it has seen
    all
        every run and candidate of a folder of ensembles, not the selected one alone; `mien report` shows them
    """
    from mien.core.artifacts.ensemble import SELECTION
    from mien.stages import evaluate as stage

    config = config or EvaluateConfig()
    if all and (on is not None or selection is not None):
        raise UsageError("--all goes with neither --on nor --selection.", rule="It takes a folder of ensembles.")
    if on is not None:
        _evaluate_on(target, index, on, config, selection, json=json)
        return
    if all and not (target / SELECTION).is_file():
        raise UsageError(
            f"{target} has no selection.",
            rule="--all takes a folder of ensembles.",
            fix="Name the --out of `mien ensemble`.",
        )
    done = stage.run_all(target, index, config) if all else stage.run(target, index, config, selection=selection)
    test, ends = done["test"], done["test"]["ci95"]
    lines = [f"{done['name']} on {test['n']:,} test images (calibrated, 95 % intervals)"]
    for key in ("accuracy", "macro_f1", "minority_f1", "ece", "brier", "nll", "signed_gap"):
        floor = f"  floor {test['ece_floor']:.4f}" if key == "ece" else ""
        lines.append(f"  {key:12} {test[key]:8.4f}  [{ends[key][0]:.4f}, {ends[key][1]:.4f}]{floor}")
    answers = done["abstain"]
    right = answers["accuracy_answered"]
    answered = "nothing" if right is None else f"{answers['coverage']:.1%}, of these right {right:.1%}"
    lines += [f"  answers {answered}; AURC {answers['aurc']:.4f}", _access_text(done["test_accesses"])]
    show(done, json=json, text="\n".join(lines))


def _access_text(opened: AccessesBefore) -> str:
    """How often test was opened before this evaluation, its selection and its calibration."""
    from mien.core.artifacts.test_accesses import told

    parts = [told(opened["before_selection"], "this selection was written"), told(opened["before"], "this evaluation")]
    if opened["before_calibration"]:
        parts.insert(1, told(opened["before_calibration"], "this calibration was fitted"))
    return "  " + " ".join(parts)


def _evaluate_on(
    run: Path, index: Path | None, on: Path, config: EvaluateConfig, selection: Path | None, *, json: bool
) -> None:
    from mien.stages import evaluate_on as stage

    done = stage.run(run, index, on, config, selection=selection)
    test, left_out = done["test"], done["left_out"]
    text = (
        f"{done['name']} on {test['n']:,} test images of {on} (left out: {left_out['same']:,} that it may have seen, "
        f"{left_out['near']:,} that look like such)\n"
        f"  accuracy {test['accuracy']:.4f}, macro-F1 {test['macro_f1']:.4f} [{test['ci95']['macro_f1'][0]:.4f}, "
        f"{test['ci95']['macro_f1'][1]:.4f}], ECE {test['ece']:.4f}\n"
        f"{_access_text(done['test_accesses'])}"
    )
    show(done, json=json, text=text)
