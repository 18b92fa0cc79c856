"""Settings of `mien index build`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mien.core.config.base import StageConfig


class IndexConfig(StageConfig):
    """Which sources become the index, and how they are split and packed."""

    source: tuple[str, ...] = Field((), description="NAME=WHERE, repeatable; NAME: fer2013, ferplus, folder, synthetic")
    size: int = Field(48, ge=16, le=512, description="side of the packed square crops, pixels")
    color: Literal["auto", "grey", "rgb"] = Field("auto", description="auto: grey when every picture is grey")
    calib_fraction: float = Field(0.1, gt=0, lt=0.5, description="share of train carved out for calibration")
    val_fraction: float = Field(0.12, gt=0, lt=0.5, description="share for val where a source has no official val")
    test_fraction: float = Field(0.18, gt=0, lt=0.5, description="share for test where a source has no official test")
    max_train: int | None = Field(
        None, ge=7, description="cap on train rows, spread over classes as evenly as they allow"
    )
    max_per_class: int | None = Field(None, ge=1, description="cap on train rows of each class")
    min_side: int = Field(16, ge=8, description="pictures with a shorter side are rejected")
    max_rejected: float = Field(0.05, ge=0, le=1, description="the build stops when a larger share is rejected")
    crop_scale: float = Field(1.0, gt=0.2, le=4, description="live crop side over the detector box's longer side")
    crop_shift_y: float = Field(0.0, ge=-1, le=1, description="live crop centre moved down by this share of the box")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of the splits, the caps and the synthetic faces")

    @model_validator(mode="after")
    def _leaves_train(self) -> IndexConfig:
        if self.val_fraction + self.test_fraction + self.calib_fraction >= 0.9:
            raise ValueError("val, test and calib fractions together leave no train rows")
        return self
