"""Settings of predict, calibrate, ensemble, evaluate and export."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mien.core.config.base import StageConfig


class PredictConfig(StageConfig):
    """How logits are computed."""

    batch_size: int = Field(256, ge=1, description="pictures a step")


class CalibrateConfig(StageConfig):
    """How the temperature and the abstention threshold are found."""

    coverage: float = Field(0.9, gt=0, le=1, description="share of calib pictures that the threshold lets answer")
    resamples: int = Field(200, ge=20, description="bootstrap resamples for the temperature's interval")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of the bootstrap")


class EnsembleConfig(StageConfig):
    """Which combinations are tried and how one is selected."""

    max_members: int = Field(3, ge=1, le=8, description="largest combination")
    pools: tuple[Literal["probability", "logit"], ...] = Field(
        ("probability", "logit"), min_length=1, description="how members are averaged"
    )
    folds: int = Field(
        5, ge=2, description="cross-validation folds on calib in which fitted weights must beat equal ones"
    )
    coverage: float = Field(0.9, gt=0, le=1, description="share of calib pictures that the threshold lets answer")
    resamples: int = Field(1000, ge=100, description="bootstrap resamples for intervals")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of folds and bootstrap")


class EvaluateConfig(StageConfig):
    """How test is scored."""

    batch_size: int = Field(256, ge=1, description="pictures a step")
    resamples: int = Field(1000, ge=100, description="bootstrap resamples for intervals")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of the bootstrap")


class ExportConfig(StageConfig):
    """How the ONNX file is made and checked."""

    int8: bool = Field(False, description="static int8 quantisation, calibrated on train pictures")
    check: int = Field(256, ge=8, description="val pictures on which parity with torch must hold")
    tolerance: float = Field(1e-3, gt=0, description="largest probability difference of the float model")
