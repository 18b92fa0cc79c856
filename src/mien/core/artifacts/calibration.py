"""`calibration.json`: one temperature and one threshold, tied to the weights and predictions they fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mien.core.artifacts import base
from mien.core.errors import ArtifactError, CalibrationError

KIND, VERSION = "calibration", 1


class Calibration(BaseModel):
    """Temperature scaling (Guo et al. 2017) and the abstention threshold of one model or ensemble."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str = KIND
    format: int = VERSION
    fingerprint: str
    temperature: float = Field(gt=0)
    temperature_ci95: tuple[float, float]
    n: int = Field(gt=0, description="calib rows it was fitted on")
    weights_hash: str = Field(description="the weights (or, for an ensemble, all members' weights) it belongs to")
    predictions_hash: str = Field(description="the calib predictions it was fitted on")
    abstain_below: float = Field(ge=0, le=1, description="no label below this calibrated confidence")
    coverage: float = Field(gt=0, le=1, description="share of calib rows that the threshold lets answer")
    before: dict[str, Any]
    after: dict[str, Any]
    warnings: list[str] = []

    @property
    def hash(self) -> str:
        """Hash of the figures that change predictions."""
        return base.fingerprint(
            KIND, VERSION, {"T": self.temperature, "below": self.abstain_below}, {"w": self.weights_hash}
        )


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write crash-safely."""
    base.write_json(path, calibration.model_dump())


def read_calibration(path: Path, *, weights_hash: str) -> Calibration:
    """Read a calibration; one that was fitted on other weights is refused."""
    fix = "Fit it: `mien calibrate RUN`."
    data = base.read_json(path, kind="calibration", fix=fix)
    try:
        calibration = Calibration.model_validate(data)
    except ValidationError as error:
        raise ArtifactError(f"{path} is no calibration ({error.error_count()} faults).", fix=fix) from None
    if calibration.weights_hash != weights_hash:
        raise CalibrationError(
            f"{path} was fitted on weights {calibration.weights_hash[:12]}, these are {weights_hash[:12]}.",
            rule="A calibration belongs to the weights and predictions it was fitted on.", fix=fix,
        )  # fmt: skip
    return calibration


def stored_fingerprint(path: Path) -> str | None:
    """The fingerprint inside, None when there is no readable file."""
    try:
        return str(base.read_json(path, kind="calibration").get("fingerprint"))
    except ArtifactError:
        return None
