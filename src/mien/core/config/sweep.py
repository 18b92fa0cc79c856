"""A sweep: one TOML file that names variants of a training, to be compared under equal conditions."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from mien.core.config.base import Origins, StageConfig, read_toml
from mien.core.config.index import IndexConfig
from mien.core.config.recipes import resolve
from mien.core.config.study import Named, check_names, named
from mien.core.config.train import DistillConfig, TrainConfig
from mien.core.errors import MienError


class SweepConfig(StageConfig):
    """Variants × seeds on one index, judged on val; `baseline` is what the others are compared with."""

    name: str
    description: str = ""
    cost: str = ""
    baseline: str
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=2)
    teacher: str = Field(
        "",
        description="a folder of ensembles, or one of them: variants are students that it teaches, as of mien distill",
        exclude_if=lambda folder: not folder,  # sweeps from before there were students stay the same
    )
    index: IndexConfig
    base: dict[str, object] = Field(default_factory=dict)
    variants: tuple[Named, ...] = Field(min_length=2)

    @field_validator("variants", mode="before")
    @classmethod
    def _split_settings(cls, value: object) -> list[dict[str, object]]:
        return named(value, "variants")

    @model_validator(mode="after")
    def _fits_together(self) -> SweepConfig:
        names = [variant.name for variant in self.variants]
        check_names(names, "variants")
        if self.baseline not in names:
            raise ValueError(f"baseline {self.baseline!r} is none of the variants: {', '.join(names)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"a seed is named twice: {self.seeds}")
        if "seed" in self.base or any("seed" in variant.settings for variant in self.variants):
            raise ValueError("seed is not a setting here: `seeds` lists them")
        for variant in self.variants:
            try:
                self.training(variant, self.seeds[0])
            except MienError as error:
                raise ValueError(f"variant {variant.name}: {error}") from None
        return self

    def training(self, variant: Named, seed: int) -> tuple[TrainConfig, Origins]:
        """The settings of one run, and where each came from: built-in < recipe < base < variant."""
        config = DistillConfig if self.teacher else TrainConfig
        return resolve(config, ("sweep", self.base), ("variant", variant.settings), ("seed", {"seed": seed}))


def load_sweep(path: Path) -> SweepConfig:
    """Read a sweep file; every fault is listed at once, with the nearest key for unknown ones."""
    return SweepConfig.parse(read_toml(path), where=str(path))
