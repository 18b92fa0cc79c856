"""Settings of `mien index build`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from mien.core.config.base import StageConfig
from mien.core.config.live import DetectConfig
from mien.core.labels import ALIASES, parse_label


class IndexConfig(DetectConfig):
    """Which sources become the index, and how they are joined, split, cropped and packed."""

    source: tuple[str, ...] = Field((), description="NAME=WHERE, repeatable; `mien index sources` lists the names")
    size: int = Field(48, ge=16, le=512, description="side of the packed square crops, pixels")
    color: Literal["auto", "grey", "rgb"] = Field("auto", description="auto: grey when every image is grey")

    priority: tuple[str, ...] = Field(
        (),
        description=(
            "sources in the order in which they decide labels; by default a relabelling source first, then as named"
        ),
    )
    fallback: tuple[str, ...] = Field(
        (), description="sources whose label is taken where the deciding source gives none"
    )
    near_duplicates: Literal["off", "plain", "crops"] = Field(
        "crops", description="plain: whole images and their flips; crops: small crops of each other too"
    )
    near_radius: int = Field(6, ge=0, le=10, description="Hamming radius of the candidates, bits of 64")
    near_threshold: float = Field(
        0.6, gt=0, lt=1, description="registered high-pass correlation from which a candidate is the same image"
    )
    leaks: Literal["auto", "move", "drop"] = Field(
        "auto",
        description=(
            "an image whose group reaches a stricter split goes there, or is dropped; auto: dropped where a source of "
            "its group has an official val or test, which then stays as published"
        ),
    )

    calib_fraction: float = Field(0.1, ge=0, le=1, description="share of train carved out for calibration")
    val_fraction: float = Field(0.12, ge=0, le=1, description="share for val where a source has no official val")
    test_fraction: float = Field(
        0.18, ge=0, le=1, description="share for test where a source has no official test; 1: all that is left is test"
    )

    keep: tuple[str, ...] = Field(
        (),
        description=(
            "[SOURCE:]FIELD, a comparison and a value that rows must meet, e.g. ferplus:agreement>=0.6; FIELD: side, "
            "width, height, label or an attribute"
        ),
    )
    drop_labels: tuple[str, ...] = Field(
        (),
        description=(
            "labels of csv, folder and hf sources that are none of the seven classes: their rows are dropped and "
            "counted by name, e.g. contempt"
        ),
    )
    relabel: Path | None = Field(None, description="CSV with image_id or path, and label (a class, or drop)")
    max_train: int | None = Field(
        None, ge=7, description="cap on train rows, spread over classes as evenly as they allow"
    )
    max_per_class: int | None = Field(None, ge=1, description="cap on train rows of each class")
    max_per_source: tuple[str, ...] = Field((), description="SOURCE=COUNT: cap on that source's train rows")

    align: Literal["none", "face", "eyes"] = Field(
        "none", description="uncropped sources: cut out the largest face; eyes: also turn it until the eyes are level"
    )
    unaligned: Literal["keep", "drop"] = Field("keep", description="images in which no face is found")
    crop_scale: float = Field(
        1.0, gt=0.2, le=4, description="crop side over the face box's longer side, live and with --align"
    )
    crop_shift_y: float = Field(0.0, ge=-1, le=1, description="crop centre moved down by this share of the face box")

    min_side: int = Field(16, ge=8, description="images with a shorter side are rejected")
    max_pixels: int = Field(25_000_000, ge=4096, le=200_000_000, description="larger images are rejected, undecoded")
    max_rejected: float = Field(0.05, ge=0, le=1, description="the build stops when a larger share is rejected")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of the splits, the caps and the synthetic faces")

    @field_validator("drop_labels")
    @classmethod
    def _no_classes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name.strip().lower() in ALIASES:
                raise ValueError(
                    f"{name!r} is one of the seven classes; --keep 'label!={parse_label(name)}' leaves a class out"
                )
        return tuple(sorted({name.strip().lower() for name in value}))

    @model_validator(mode="after")
    def _fits(self) -> IndexConfig:
        if self.test_fraction < 1 < self.val_fraction + self.test_fraction:
            raise ValueError("val and test fractions together exceed 1")
        if self.align != "none" and self.detector == "none":
            raise ValueError("--align needs a detector; --detector none finds no face")
        return self


class WorkConfig(StageConfig):
    """How the work is spread. Nothing here changes a byte of the result."""

    engine: Literal["local", "ray"] = Field("local", description="ray: hash and decode on a Ray cluster (extra: ray)")
    workers: int | None = Field(None, ge=1, description="local processes; by default one a core")
    pixels: str | None = Field(
        None, description="URI of a folder for the packed pixels (s3://…, gs://…, file:///…) instead of the index's own"
    )
    shard_mib: int = Field(1024, ge=1, description="size of one file of packed pixels, MiB")
