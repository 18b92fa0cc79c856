"""Settings of `mien bench`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from mien.core.config.base import StageConfig
from mien.core.config.train_groups import ALIASES

Engine = Literal["torch", "onnxruntime"]
ENGINES: tuple[Engine, ...] = ("torch", "onnxruntime")
JOIN = "+"
# The teachers, the ensemble and the student whose size and latency the report gives (section 9.9).
REPORTED = (
    "resnet18",
    "efficientnet_b3",
    "convnext_tiny",
    "resnet18+efficientnet_b3",
    "vit_tiny",
    "vit_small",
    "mobilenetv3_large",
)


class LatencyConfig(StageConfig):
    """What untrained networks take for one image."""

    backbone: tuple[str, ...] = Field(
        REPORTED,
        min_length=1,
        description=f"timm names or any of: {', '.join(ALIASES)}; A+B: an ensemble whose members run one after another",
    )
    img_size: int = Field(224, ge=32, le=512, description="input side, pixels")
    runs: int = Field(200, ge=1, description="timed images a network, engine and number of threads")
    warmup: int = Field(50, ge=0, description="images before these that are not counted")
    device: str = Field("auto", description="cpu, cuda, cuda:1, mps …; auto: an accelerator where there is one")
    amp: Literal["no", "bf16", "fp16"] = Field("no", description="mixed precision, torch alone")
    engine: tuple[Engine, ...] | None = Field(
        None, min_length=1, description="default: torch, and onnxruntime on processors without --amp"
    )

    @property
    def models(self) -> dict[str, tuple[str, ...]]:
        """{name as given: the backbones that run for it}, each name once."""
        return {name: tuple(name.split(JOIN)) for name in self.backbone}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in self.backbone:
            if not all(name.split(JOIN)):
                raise ValueError(f"backbone {name!r} names an empty member: write A{JOIN}B")
        if self.amp != "no" and "onnxruntime" in (self.engine or ()):
            raise ValueError(
                f"onnxruntime runs exported fp32 graphs: amp {self.amp} is for torch; leave one of them out"
            )
        return self
