"""A study's folder: where each stage's artefact lies, what was asked for, timings, `study.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from mien.core.artifacts import base
from mien.core.artifacts.audit import Audit
from mien.core.artifacts.ensemble import Diversity
from mien.core.artifacts.evaluation import ComparedWithBestSingle, Elsewhere, LeftOut
from mien.core.artifacts.metrics import (
    Abstention,
    Latency,
    Metrics,
    MetricsAsDistributed,
    MetricsWithIntervals,
    PairedDifference,
)
from mien.core.artifacts.onnx_model import ParityDocument
from mien.core.artifacts.run import TrainingResult
from mien.core.errors import UsageError
from mien.core.geometry import Crop

SCHEMA = 3
REQUEST = "request.json"
FIX = "Run the study: `mien study STUDY.toml --out DIR`."
Kind = Literal["study", "sweep", "matrix"]
KINDS: tuple[Kind, ...] = ("study", "sweep", "matrix")


class RequestedStudy(TypedDict):
    """A `StudyConfig` as JSON; sections of settings are dictionaries."""

    name: str
    description: str
    cost: str
    expected: dict[str, list[float]]
    seed: int
    index: dict[str, object]
    teachers: list[dict[str, object]]
    calibrate: dict[str, object]
    ensemble: dict[str, object]
    student: dict[str, object] | None
    evaluate: dict[str, object]
    export: dict[str, object]
    earlier: NotRequired[dict[str, object]]


class Request(TypedDict):
    """`request.json`: what was asked for, under the kind's name."""

    name: str
    study: NotRequired[RequestedStudy]
    sweep: NotRequired[dict[str, object]]
    matrix: NotRequired[dict[str, object]]


class IndexSummary(Audit):
    """What a study says of its index."""

    crop: Crop
    fingerprint: str


class BaselineScores(TypedDict):
    """Figures of a rival that looks at no image."""

    accuracy: float
    macro_f1: float
    minority_f1: float


class CalibrationSummary(TypedDict):
    """How a model was calibrated: each map's `heldout` NLL and gain over a temperature; T was searched in `range`."""

    method: str
    why: str
    heldout: dict[str, dict[str, float]]
    T: float
    ci95: list[float]
    range: list[float]
    at_edge: bool
    n: int
    test_accesses: int
    before: Metrics
    after: Metrics


class TransferSummary(TypedDict):
    """A model on another index's test."""

    on: str
    on_sources: list[str]
    left_out: LeftOut
    test: MetricsWithIntervals


class TrainingSummary(TypedDict):
    """How a run was trained; all null for imported predictions, which have no training and no weights."""

    size_mb: float | None
    best_epoch: int | None
    epochs: object
    training: TrainingResult | None


class ModelSummary(TrainingSummary, Elsewhere):
    """A run, or imported predictions."""

    name: str
    backbone: str
    params: int | None
    val: MetricsWithIntervals
    test: MetricsWithIntervals
    test_uncalibrated: Metrics
    test_as_distributed: MetricsAsDistributed | None
    calibration: CalibrationSummary
    warnings: list[str]
    abstain: Abstention
    latency: Latency | None
    transfer: list[TransferSummary]


class StudentSummary(ModelSummary):
    """A student: its macro-F1 over its teacher's, with a paired interval, and its export."""

    retention_macro_f1: float
    retention_ci95: list[float]
    export: ParityDocument | None


class EnsembleSummary(Elsewhere):
    """A candidate of the selection."""

    name: str
    kind: str
    members: list[str]
    pool: str
    weighting: str
    heldout: dict[str, tuple[float, float]]
    weights: list[float]
    T: float
    why: str
    val: Metrics
    calib: Metrics
    mean_entropy: float
    minority_recall: float
    test: MetricsWithIntervals
    test_as_distributed: MetricsAsDistributed | None
    vs_best_single: ComparedWithBestSingle | None
    abstain: Abstention
    warnings: list[str]


class Variant(PairedDifference):
    """A training of a backbone against the first one of it; `differs` has both values of each setting that differs."""

    backbone: str
    first: str
    name: str
    differs: dict[str, list[object]]


class SelectedSummary(TypedDict):
    """What was selected on val, and why."""

    name: str
    why: list[str]
    hash: str
    best_single: str
    diversity: list[Diversity]
    rivals: dict[str, dict[str, float]]


class AccessesSummary(TypedDict):
    """How often test was opened before the selection, and until now."""

    before_selection: int
    in_all: int


class NamedLatency(Latency):
    """What one image takes a model."""

    name: str


class ExpectedFigure(TypedDict):
    """A figure beside the range that the study's file expects."""

    figure: str
    value: float
    low: float
    high: float
    inside: bool


class PublishedCheck(TypedDict):
    """A figure that an earlier report states, and what the others of its figures allow."""

    what: str
    where: str
    stated: float
    low: float
    high: float
    verdict: str
    why: str


class EarlierSummary(TypedDict):
    """An earlier report's figures, checked against each other."""

    title: str
    checks: list[PublishedCheck]


class StudyDocument(TypedDict):
    """`study.json`; `seed` and `index` are null where a folder of ensembles was judged without a study."""

    schema: int
    name: str
    git: str | None
    seed: int | None
    index: IndexSummary | None
    baselines: dict[str, dict[str, BaselineScores]]
    drawn: bool
    terms: list[str]
    imported: list[str]
    teachers: list[ModelSummary]
    variants: list[Variant]
    ensembles: list[EnsembleSummary]
    selected: SelectedSummary
    test_accesses: AccessesSummary
    student: StudentSummary | None
    latency: list[NamedLatency]
    wall_s: dict[str, float]
    expected: NotRequired[list[ExpectedFigure]]
    earlier: NotRequired[EarlierSummary]


_STUDY = base.JsonArtifact[StudyDocument]("study.json", "study summary", FIX, SCHEMA, "schema")
_REQUEST = base.JsonArtifact[Request](REQUEST, "study", "Run one: `mien study STUDY.toml --out DIR`.")
_TIMINGS = base.JsonArtifact[dict[str, float]]("timings.json", "timings")
read_study, read_request, write_timings = _STUDY.read, _REQUEST.read, _TIMINGS.write


@dataclass(frozen=True)
class StudyFolder:
    """Paths inside a study's folder."""

    root: Path

    @property
    def index(self) -> Path:
        """The index."""
        return self.root / "index"

    def teacher(self, name: str) -> Path:
        """A teacher's run."""
        return self.root / "teachers" / name

    @property
    def ensembles(self) -> Path:
        """The ensembles and the selection."""
        return self.root / "ensembles"

    @property
    def student(self) -> Path:
        """The student's run."""
        return self.root / "student"

    @property
    def model(self) -> Path:
        """The exported student."""
        return self.root / "export" / "student.onnx"

    @property
    def summary(self) -> Path:
        """`study.json`."""
        return self.root / "study.json"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.root / "report" / "index.html"


def earlier_request(root: Path, name: str, kind: Kind) -> Request | None:
    """What was asked for in `root` before, None where nothing was; a folder that holds anything else is refused."""
    before = base.JsonArtifact[Request](REQUEST, f"{kind} request").find(root)
    if before is None and root.exists() and (not root.is_dir() or base.occupied(root)):
        raise UsageError(
            f"{root} is not empty and holds no {kind}.",
            rule=f"A {kind} has a folder of its own.",
            fix="Name another --out.",
        )
    if before is not None and (before.get("name") != name or kind not in before):
        raise UsageError(
            f"{root} holds the {next((k for k in KINDS if k in before), 'study')} {before.get('name')!r}, not the "
            f"{kind} {name!r}.",
            rule=f"A {kind} has a folder of its own.",
            fix="Name another --out.",
        )
    return before


def open_study(
    root: Path,
    name: str,
    request: dict[str, object],
    text: str | None = None,
    *,
    kind: Kind = "study",
) -> bool:
    """Take `root` for a study, sweep or matrix; True when the same one was there with other settings.

    A folder that holds anything else is refused. `text` is its file, kept as `KIND.toml`.
    """
    before = earlier_request(root, name, kind)
    base.write_json(root / REQUEST, {"name": name, kind: request})
    if text is not None:
        base.write_text(root / f"{kind}.toml", text)
    return before is not None and before[kind] != request


def close_study(root: Path) -> None:
    """Leave nothing of a study, sweep or matrix that failed before it made anything."""
    if {path.name for path in root.iterdir()} <= {REQUEST, *(f"{kind}.toml" for kind in KINDS)}:
        for path in root.iterdir():
            path.unlink()
        root.rmdir()


def read_timings(root: Path) -> dict[str, float]:
    """Seconds that each stage took when it ran."""
    return _TIMINGS.find(root) or {}


def write_study(root: Path, document: StudyDocument) -> None:
    """Write `study.json` unless it already says the same."""
    path = StudyFolder(root).summary
    if not path.is_file() or base.read_json(path, kind="study summary") != document:
        _STUDY.write(root, document)
