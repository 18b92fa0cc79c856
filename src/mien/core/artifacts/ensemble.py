"""Ensembles: `ENS/<name>/ensemble.json` with predictions, `ensemble_summary.csv`, `selected.json`."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from mien.core.artifacts import base
from mien.core.artifacts.abstention import AbstentionPolicy, Asked
from mien.core.artifacts.calibration import Calibration
from mien.core.artifacts.metrics import MetricsWithIntervals
from mien.core.artifacts.predictions import PredictionsMeta
from mien.core.errors import ArtifactError, SplitError

KIND, VERSION = "ensemble", 4
SELECTION = "selected.json"
SUMMARY = "ensemble_summary.csv"
FIX = "Make it: `mien ensemble RUN RUN --out ENS`."


class KnownCandidate(TypedDict):
    """What a selection keeps of a combination."""

    weights_hash: str
    hash: str
    kind: str
    val: MetricsWithIntervals


class KnownCalibration(TypedDict):
    """What a selection keeps of a run's calibration."""

    weights_hash: str
    hash: str
    map_hash: str
    asked: Asked


class Diversity(TypedDict):
    """How the errors of two models differ, defined in `mien.evaluate.pooling`."""

    first: str
    second: str
    disagreement: float
    double_fault: float
    q: float


class Selection(TypedDict):
    """`selected.json` without its own hash: `name` is the candidate that val chose."""

    kind: str
    format: int
    name: str
    why: list[str]
    split: str
    test_accesses: int
    index: str
    best_single: str
    candidates: dict[str, KnownCandidate]
    warnings: list[str]
    runs: dict[str, str]
    calibrations: list[KnownCalibration]
    diversity: list[Diversity]
    rivals: dict[str, dict[str, float]]


class SelectionDocument(Selection):
    """`selected.json`."""

    hash: str


class Member(BaseModel):
    """One model in an ensemble."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    run: str = Field(description="the run's folder, relative to the ensemble's")
    weights_hash: str
    weight: float = Field(ge=0, le=1)
    method: str = Field(description="how the member is calibrated before it is joined")
    temperature: float = Field(gt=0)
    matrix: tuple[tuple[float, ...], ...] = Field(description="(7, 7), on log-probabilities")
    bias: tuple[float, ...]


class Ensemble(BaseModel):
    """How members' logits become the ensemble's probabilities: pool, weights, one final temperature."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str = KIND
    format: int = VERSION
    name: str
    pool: Literal["probability", "logit"]
    weighting: Literal["single", "equal", "nll", "grid", "greedy", "fixed"]
    members: tuple[Member, ...]
    temperature: float = Field(gt=0)
    temperature_ci95: tuple[float, float]
    decisions: AbstentionPolicy
    heldout: dict[str, tuple[float, float]] = Field(
        default={}, description="gain in held-out NLL over equal weights: mean, se"
    )
    why: str = ""
    warnings: list[str] = []

    @property
    def weights_hash(self) -> str:
        """One hash for all members' weights and how they are joined."""
        parts = {f"{i}:{m.name}": m.weights_hash for i, m in enumerate(self.members)}
        config = {
            "pool": self.pool,
            "weights": [m.weight for m in self.members],
            "maps": [[m.matrix, m.bias] for m in self.members],
        }
        return base.fingerprint(KIND, VERSION, config, parts)

    @property
    def hash(self) -> str:
        """Hash of all that changes what it says: `weights_hash`, its temperature and its decisions."""
        config = {"T": self.temperature, "decisions": self.decisions.model_dump()}
        return base.fingerprint(KIND, VERSION, config, {"weights": self.weights_hash})

    @property
    def weights(self) -> NDArray[np.float64]:
        """Members' weights, shape (m,), summing to 1."""
        return np.array([m.weight for m in self.members])


def read_ensemble(folder: Path) -> Ensemble:
    """Read `ensemble.json` of a folder; anything else is an `ArtifactError`."""
    return base.read_model(folder / "ensemble.json", Ensemble, kind="ensemble", fix=FIX)


def write_ensemble(folder: Path, ensemble: Ensemble) -> None:
    """Write `ensemble.json` crash-safely."""
    base.write_json(folder / "ensemble.json", ensemble.model_dump())


def pooled_meta(ensemble: Ensemble, index: str) -> PredictionsMeta:
    """What an ensemble's predictions say of themselves."""
    return {
        "name": ensemble.name,
        "weights_hash": ensemble.weights_hash,
        "index": index,
        "scale_in_logits": True,
        "head": "pool",
        "pooled": True,
    }


def write_summary(folder: Path, rows: list[dict[str, object]]) -> None:
    """Write `ensemble_summary.csv`: one row a combination."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    base.write_text(folder / SUMMARY, text.getvalue())


def finish_ensembles(folder: Path, fingerprint: str) -> None:
    """Write the manifest of a folder of ensembles, which completes it: the selection and the summary are there."""
    base.write_manifest(folder, kind="ensembles", version=VERSION, fingerprint=fingerprint, files=[SELECTION, SUMMARY])


def runs_of(folder: Path) -> dict[str, Path]:
    """The runs that a folder of ensembles was made of, by name, in their order."""
    names = read_selection(folder / SELECTION)["candidates"]
    return {m.name: folder / name / m.run for name in names for m in read_ensemble(folder / name).members}


def knows(selection: SelectionDocument, weights_hash: str, calibration: Calibration) -> bool:
    """Whether a selection was written with this calibration of these weights, but for a later shift of the prior."""
    current = known_as(weights_hash, calibration)
    entries = selection["calibrations"]
    return current in (
        entries if calibration.prior is None else [{**entry, "hash": current["hash"]} for entry in entries]
    )


def known_as(weights_hash: str, calibration: Calibration) -> KnownCalibration:
    """What a selection keeps of a calibration."""
    return {
        "weights_hash": weights_hash,
        "hash": calibration.hash,
        "map_hash": calibration.map_hash,
        "asked": calibration.decisions.asked,
    }


def selection_hash(selection: Selection) -> str:
    """Hash of a selection without its own `hash` entry."""
    rest = {key: value for key, value in selection.items() if key != "hash"}
    return base.fingerprint("selection", VERSION, rest, {})


def write_selection(folder: Path, selection: Selection) -> None:
    """Write `selected.json` with its own hash."""
    base.write_json(folder / SELECTION, {**selection, "hash": selection_hash(selection)})


def read_selection(path: Path) -> SelectionDocument:
    """Read a selection and verify its hash; without one, test stays closed."""
    if not path.is_file():
        raise SplitError(
            f"No selection at {path}.",
            rule="Test is opened only after a selection is written.",
            fix="Write one: `mien ensemble RUN [RUN …] --out ENS` (a single run selects itself).",
        )
    selection: SelectionDocument = base.read_json(path, kind="selection", fix=FIX)
    if selection.get("format") != VERSION:
        raise ArtifactError(
            f"{path} has format {selection.get('format')} of a selection.",
            rule=f"This version reads format {VERSION}.",
            fix="Make the ensembles again.",
        )
    if selection.get("hash") != selection_hash(selection):
        raise ArtifactError(f"{path} was altered after it was written.", fix=FIX)
    return selection
