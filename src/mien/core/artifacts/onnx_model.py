"""An exported model that explains itself: classes, crop, threshold, versions and terms in its metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NotRequired, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mien.core.artifacts import base
from mien.core.artifacts.abstention import AbstentionPolicy
from mien.core.artifacts.metrics import Latency
from mien.core.artifacts.run import Environment
from mien.core.errors import ArtifactError
from mien.core.geometry import CropSpec
from mien.core.labels import LABELS

KEY = "mien"
VERSION = 3
FIX = "Export one: `mien export RUN --index DIR --out model.onnx`."


class PrecisionScores(TypedDict):
    """Figures of a model in one precision on val."""

    accuracy: float
    macro_f1: float
    minority_f1: float
    nll: float
    ece: float


class PrecisionLimits(TypedDict):
    """What int8 may cost on val."""

    macro_f1_loss: float
    ece_rise: float


class PrecisionComparison(TypedDict):
    """The written model (`int8`, of half precision too) beside the float one on the same val rows."""

    rows: int
    labels_changed: float
    float: PrecisionScores
    int8: PrecisionScores
    limits: PrecisionLimits
    max_probability_difference: NotRequired[float]


class GraphParity(TypedDict):
    """How close a graph is to torch, on val images."""

    pictures: int
    max_probability_difference: float
    label_agreement: float
    tolerance: float
    int8: bool


class ReducedPrecision(TypedDict):
    """Of a file in half precision or int8: how it compares with the float model on val."""

    fp16: NotRequired[bool]
    val: NotRequired[PrecisionComparison]


class ParityDocument(GraphParity, ReducedPrecision):
    """`parity.json` beside a model file."""

    latency: Latency
    fingerprint: str
    sha256: str
    bytes: int
    model: str
    environment: Environment


_PARITY = base.JsonArtifact[ParityDocument]("parity.json", "parity record")


class ModelCard(BaseModel):
    """What stands in the ONNX file's metadata under `mien`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: int = VERSION
    name: str
    labels: tuple[str, ...]
    crop: CropSpec
    calibration: str = Field(description="how it is calibrated; already inside the graph, here for the record")
    temperature: float = Field(gt=0, description="the model's temperature, for the record")
    decisions: AbstentionPolicy = Field(description="when it answers")
    parameters: int
    weights_hash: str = Field(description="of the weights in the file: the run's, or the quantised ones")
    backbone: str
    int8: bool = False
    quantized_from: str | None = Field(
        default=None, description="of int8 and half precision: the weights hash of the float model"
    )
    mien: str
    git: str | None
    sources: list[str]
    licenses: list[str]

    @field_validator("labels")
    @classmethod
    def _check_classes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value != LABELS:
            raise ValueError(f"classes {value} are not {LABELS}")
        return value


def parse_card(text: str | None, path: Path) -> ModelCard:
    """The card of a model file; a file without one is an error that says how to make one."""
    if text is None:
        raise ArtifactError(
            f"{path} carries no mien metadata.", rule="A model file says which classes and crops it is for.", fix=FIX
        )
    try:
        return ModelCard.model_validate(json.loads(text))
    except (ValidationError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path} carries metadata of another kind ({type(error).__name__}).", fix=FIX) from None


def write_model(path: Path, data: bytes) -> None:
    """Write a model file crash-safely."""
    with base.atomic(path) as temporary:
        temporary.write_bytes(data)


def write_parity(path: Path, parity: ParityDocument) -> None:
    """Write `parity.json` beside the model; it completes the export."""
    _PARITY.write(path.parent, parity)


def read_parity(path: Path) -> ParityDocument | None:
    """The parity record beside a model file, None when there is none."""
    return _PARITY.find(path.parent)
