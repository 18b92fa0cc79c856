"""`evaluation.json`: test metrics with intervals, beside the hash of the selection made before."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from mien.core.artifacts import base
from mien.core.artifacts.metrics import (
    Abstention,
    AttributeScores,
    CorruptionScores,
    Latency,
    Metrics,
    MetricsAsDistributed,
    MetricsWithIntervals,
    PairedDifference,
    Reliability,
)

KIND, VERSION = "evaluation", 3
FIX = "Make it: `mien evaluate RUN --index DIR`."


class AccessesBefore(TypedDict):
    """How often test was opened before this evaluation, the selection and the calibration (null: an ensemble)."""

    before: int
    before_selection: int
    before_calibration: int | None


class ComparedWithBestSingle(PairedDifference):
    """An ensemble less the best single model."""

    rival: str


class Scores(TypedDict):
    """What an evaluation says of one model's probabilities; `sweep` has figures at a column of temperatures."""

    name: str
    temperature: float
    test: MetricsWithIntervals
    test_uncalibrated: Metrics
    test_as_distributed: MetricsAsDistributed | None
    reliability: Reliability
    sweep: dict[str, list[float]]


class Elsewhere(TypedDict):
    """Figures by attribute of the images, and by corruption, a row a strength."""

    groups: dict[str, AttributeScores]
    corruptions: dict[str, list[CorruptionScores]]


class Versus(TypedDict, total=False):
    """Of an ensemble, unless it is the best single model itself."""

    vs_best_single: ComparedWithBestSingle


class OfRun(TypedDict, total=False):
    """Of a run alone: the method and hash of its calibration, and what one image takes."""

    calibration: str
    calibration_hash: str
    latency: Latency | None


class EvaluationDocument(Scores, Versus, OfRun, Elsewhere):
    """`evaluation.json` of a run or an ensemble."""

    kind: str
    format: int
    fingerprint: str
    selection_hash: str
    abstain: Abstention
    warnings: list[str]
    test_accesses: AccessesBefore


class LeftOut(TypedDict):
    """Test images that a model may have seen: the same, and their copies."""

    same: int
    near: int


class TransferDocument(TypedDict):
    """A model's figures on another index's test; `on` is that index's content hash."""

    kind: str
    format: int
    name: str
    selection_hash: str
    calibration_hash: str
    trained_on: list[str]
    on: str
    on_sources: list[str]
    test: MetricsWithIntervals
    warnings: list[str]
    fingerprint: str
    left_out: LeftOut
    test_accesses: AccessesBefore


EVALUATION = base.JsonArtifact[EvaluationDocument]("evaluation.json", KIND, FIX, VERSION)
read_evaluation, write_evaluation = EVALUATION.read, EVALUATION.write


def _transfer(index: str) -> base.JsonArtifact[TransferDocument]:
    """A run's figures on the test of the index with this content hash."""
    return base.JsonArtifact(
        f"transfer/{index[:16]}.json", "transfer", "Make it: `mien evaluate RUN --index DIR --on OTHER`."
    )


def transfer_path(run: Path, index: str) -> Path:
    """Where a run keeps its figures on another index's test (by that index's content hash)."""
    return run / _transfer(index).file


def write_transfer(run: Path, transfer: TransferDocument) -> None:
    """Write a run's figures on another index's test, crash-safely."""
    _transfer(transfer["on"]).write(run, transfer)


def read_transfers(run: Path) -> list[TransferDocument]:
    """All that a run was judged on besides its own index's test, as it is calibrated and selected now."""
    evaluation = read_evaluation(run)
    transfers: list[TransferDocument] = [
        base.read_json(path, kind="transfer") for path in sorted((run / "transfer").glob("*.json"))
    ]
    # A transfer of another format may lack keys.
    return [
        transfer
        for transfer in transfers
        if transfer.get("format") == evaluation["format"]
        and transfer.get("selection_hash") == evaluation["selection_hash"]
        and transfer.get("calibration_hash") == evaluation["calibration_hash"]
    ]


def read_transfer(run: Path, index: str) -> TransferDocument:
    """Read a run's figures on another index's test (by that index's content hash)."""
    return _transfer(index).read(run)
