"""`calibration.json`: how logits become probabilities and answers, tied to the weights and predictions it fits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, GetPydanticSchema
from pydantic_core import core_schema

from mien.core.artifacts import base
from mien.core.artifacts.abstention import AbstentionPolicy
from mien.core.artifacts.metrics import Metrics
from mien.core.errors import ArtifactError, CalibrationError

KIND, VERSION = "calibration", 4
# As they stand in the file: figures are for reports, and an older file may lack some.
StoredMetrics = Annotated[Metrics, GetPydanticSchema(lambda _source, _handler: core_schema.any_schema())]


class Calibration(BaseModel):
    """How one model's logits become probabilities (an affine map of log-probabilities), and when it answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str = KIND
    format: int = VERSION
    fingerprint: str
    method: Literal["temperature", "vector", "dirichlet", "sweep"]
    matrix: tuple[tuple[float, ...], ...] = Field(description="(7, 7), on log-probabilities")
    bias: tuple[float, ...] = Field(description="(7,)")
    why: str = ""
    heldout: dict[str, dict[str, float]] = Field(default={}, description="held-out NLL of each map that was tried")
    prior: tuple[float, ...] | None = Field(default=None, description="class shares assumed; null: as fitted")
    assumed: tuple[float, ...] | None = Field(
        default=None, description="class shares that the map assumed before `prior`"
    )
    assumed_why: str = Field(default="", description="how these are known")
    temperature: float = Field(gt=0, description="the one that minimises NLL; what ensembles use")
    temperature_ci95: tuple[float, float]
    n: int = Field(gt=0, description="calib rows that the map was fitted on")
    weights_hash: str = Field(description="the weights that it belongs to")
    predictions_hash: str = Field(description="the calib predictions that it was fitted on")
    map_hash: str = Field(description="hash of the map as it was fitted, before `prior` shifted it")
    test_accesses: int = Field(ge=0, description="how often test was opened before this was fitted")
    decisions: AbstentionPolicy
    before: StoredMetrics = Field(description="metrics on the rows of calib that the map was not fitted on")
    after: StoredMetrics
    warnings: list[str] = []

    @property
    def hash(self) -> str:
        """Hash of the figures that change predictions and answers."""
        config = {"matrix": self.matrix, "bias": self.bias, "decisions": self.decisions.model_dump()}
        return base.fingerprint(KIND, VERSION, config, {"w": self.weights_hash})


class TemperatureSweep(TypedDict):
    """`temperature_sweep.json`; `curve` has a column a figure, a row a temperature."""

    rows: int
    bins: int
    fitted_temperature: float
    best_temperature: float
    at_edge: bool
    ece_floor: float
    curve: dict[str, list[float]]


def map_hash(matrix: list[list[float]], bias: list[float], weights_hash: str) -> str:
    """Hash of a fitted map: what a selection knows, whatever class shares are assumed later."""
    return base.fingerprint(KIND, VERSION, {"matrix": matrix, "bias": bias}, {"w": weights_hash})


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write crash-safely."""
    base.write_json(path, calibration.model_dump())


def read_calibration(path: Path, *, weights_hash: str) -> Calibration:
    """Read a calibration; one that was fitted on other weights is refused."""
    fix = "Fit it: `mien calibrate RUN`."
    calibration = base.read_model(path, Calibration, kind="calibration", fix=fix)
    if calibration.weights_hash != weights_hash:
        raise CalibrationError(
            f"{path} was fitted on weights {calibration.weights_hash[:12]}, these are {weights_hash[:12]}.",
            rule="A calibration belongs to the weights and predictions it was fitted on.",
            fix=fix,
        )
    return calibration


def stored_fingerprint(path: Path) -> str | None:
    """The fingerprint inside, None when there is no readable file."""
    try:
        return str(base.read_json(path, kind="calibration").get("fingerprint"))
    except ArtifactError:
        return None
