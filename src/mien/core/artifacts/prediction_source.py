"""What can be calibrated, joined and judged: a run of ours, or predictions that were imported.

An imported folder has `config.json`, `predictions/SPLIT.parquet` and its manifest; the hash of the file that
it came from stands for its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from mien.core.artifacts import base
from mien.core.artifacts import run as runs
from mien.core.artifacts.calibration import Calibration
from mien.core.artifacts.ensemble import SELECTION, SelectionDocument, knows, read_selection
from mien.core.artifacts.metrics import Latency
from mien.core.artifacts.predictions import Predictions, fingerprint_of, predictions_path, write_predictions
from mien.core.artifacts.test_accesses import told
from mien.core.errors import ArtifactError, SplitError, UsageError

KIND, VERSION = "imported", 1
FIX = "Train one with `mien train`, or bring predictions with `mien predictions import FILE --out RUN`."
LATENCY = "latency.json"


class ImportDocument(TypedDict):
    """`config.json` of imported predictions; `rows` by split, `left_out` are columns that are no class of ours."""

    file: str
    source_hash: str
    file_sha256: str
    index: str
    backbone: str
    parameters: int | None
    numbers: str
    left_out: list[str]
    rows: dict[str, int]


_LATENCY = base.JsonArtifact[Latency](LATENCY, "latency")
read_latency, write_latency = _LATENCY.find, _LATENCY.write


@dataclass(frozen=True)
class PredictionSource:
    """A model by what its judges need. `run` is None for imported predictions, which have no weights."""

    folder: Path
    backbone: str
    weights_hash: str
    index_hash: str
    parameters: int | None
    settings: dict[str, object]
    run: runs.Run | None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def latency_ms(self) -> float | None:
        """Median milliseconds of one image, None where it was not measured."""
        latency = read_latency(self.folder)
        return None if latency is None else latency["p50_ms"]


def read_prediction_source(folder: Path) -> PredictionSource:
    """Open a finished run or imported predictions."""
    path = folder / base.MANIFEST
    if not path.is_file() or base.read_json(path, kind="manifest").get("kind") != KIND:
        run = runs.read_run(folder)
        index, settings = run.config["index"]["content"], run.settings
        return PredictionSource(folder, run.backbone, run.weights_hash, index, run.config["parameters"], settings, run)
    base.read_manifest(folder, kind=KIND, version=VERSION, fix=FIX)
    config: ImportDocument = base.read_json(folder / "config.json", kind="import", fix=FIX)
    return PredictionSource(
        folder, config["backbone"], config["source_hash"], config["index"], config["parameters"], {}, None
    )


def check_has_weights(folder: Path, what: str) -> None:
    """Raise for imported predictions where a network is needed."""
    path = folder / base.MANIFEST
    if path.is_file() and base.read_json(path, kind="manifest").get("kind") == KIND:
        raise UsageError(
            f"{folder} holds imported predictions.", rule=f"They have no weights to {what}.", fix="Name a trained run."
        )


def selection_of(
    source: PredictionSource, explicit: Path | None, calibration: Calibration
) -> tuple[SelectionDocument, Path]:
    """The selection that knew this run and its calibration, and its file: named, its teacher's, or in the next folder.

    A student's calibration is younger than the selection of its teacher and need not be known to it.
    """
    teacher = None if source.run is None else source.run.config.get("teacher")
    if explicit is None and teacher is not None:
        explicit = source.folder / teacher["selection"]
    if explicit is not None:
        selection = read_selection(explicit)
        teachers = {candidate["weights_hash"] for candidate in selection["candidates"].values()}
        member = source.weights_hash in selection["runs"].values()
        if member and not knows(selection, source.weights_hash, calibration):
            raise recalibrated(source.folder, str(explicit))
        if member or (teacher is not None and teacher["weights_hash"] in teachers):
            return selection, explicit
        raise SplitError(
            f"{explicit} was written without {source.folder}.", rule="Test is opened for what the selection knew."
        )
    run_folder, others = source.folder.resolve(), []
    for path in sorted(
        {p for folder in (run_folder.parent, run_folder.parent.parent) for p in folder.glob(f"*/{SELECTION}")}
    ):
        try:
            selection = read_selection(path)
        except ArtifactError:  # another folder's, which does not concern this run
            continue
        if source.weights_hash in selection["runs"].values():
            if knows(selection, source.weights_hash, calibration):
                return selection, path
            others.append(path)
    if others:
        raise recalibrated(source.folder, ", ".join(map(str, others)))
    raise SplitError(
        f"No selection knows {source.folder}.",
        rule="Test is opened only after a selection is written.",
        fix=(
            "Write one: `mien ensemble RUN [RUN …] --out ENS` (a single run selects itself), or name it with "
            "--selection."
        ),
    )


def judging_warnings(source: PredictionSource, selection: SelectionDocument, calibration: Calibration) -> list[str]:
    """What is to be said where test is opened: a calibration younger than an access to it, and a student whose teacher
    is not the candidate that the selection names."""
    warnings = []
    if calibration.test_accesses:
        warnings.append(f"test_accesses: {told(calibration.test_accesses, 'this calibration was fitted')}")
    teacher = None if source.run is None else source.run.config.get("teacher")
    if teacher is not None and teacher["weights_hash"] != selection["candidates"][selection["name"]]["weights_hash"]:
        warnings.append(f"teacher: taught by {teacher['name']}, not by {selection['name']}, which was selected on val")
    return warnings


def recalibrated(folder: Path, selection: str) -> SplitError:
    """The error for a calibration that is younger than the selection."""
    return SplitError(
        f"{folder} was calibrated again after the selection was written ({selection}).",
        rule=(
            "Test is opened for what the selection knew, and choosing a calibration after it was seen is choosing on "
            "test."
        ),
        fix="Make the ensembles again: `mien ensemble`.",
    )


def write_imported(folder: Path, config: ImportDocument, predictions: list[Predictions], fingerprint: str) -> None:
    """Write an imported folder; its manifest comes last."""
    base.claim(folder, kind="import", fingerprint=fingerprint)
    for p in predictions:
        split_fingerprint = fingerprint_of(p.meta["weights_hash"], p.meta["index"], p.split)
        write_predictions(predictions_path(folder, p.split), p, fingerprint=split_fingerprint)
    base.write_json(folder / "config.json", config)
    files = ["config.json", *(f"predictions/{p.split}.parquet" for p in predictions)]
    base.write_manifest(folder, kind=KIND, version=VERSION, fingerprint=fingerprint, files=files)
