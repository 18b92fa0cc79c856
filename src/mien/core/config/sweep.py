"""A sweep: one TOML file that names variants of a training, to be compared under equal conditions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from mien.core.config.base import StageConfig, read_toml
from mien.core.config.index import IndexConfig
from mien.core.config.recipes import resolve
from mien.core.config.study import NAME
from mien.core.config.train import TrainConfig
from mien.core.errors import MienError


class Variant(StageConfig):
    """One variant: its name and the settings in which it differs from `base`."""

    name: str
    settings: dict[str, Any]


class SweepConfig(StageConfig):
    """Variants × seeds on one index, judged on val; `baseline` is what the others are compared with."""

    name: str
    description: str = ""
    cost: str = ""
    baseline: str
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=2)
    index: IndexConfig
    base: dict[str, Any] = Field(default_factory=dict)
    variants: tuple[Variant, ...] = Field(min_length=2)

    @field_validator("variants", mode="before")
    @classmethod
    def _split_settings(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, dict) for item in value):
            raise ValueError("variants is a list of tables ([[variants]])")
        return [
            {"name": v.get("name", ""), "settings": v.get("settings", {k: x for k, x in v.items() if k != "name"})}
            for v in value
        ]

    @model_validator(mode="after")
    def _fits_together(self) -> SweepConfig:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError(f"two variants have one name: {names}")
        wrong = [name for name in names if not NAME.match(name)]
        if wrong:
            raise ValueError(f"variant name {wrong[0]!r}: lower-case letters, digits, _ and -")
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

    def training(self, variant: Variant, seed: int) -> tuple[TrainConfig, dict[str, dict[str, Any]]]:
        """The settings of one run, and where each came from: built-in < recipe < base < variant."""
        return resolve(TrainConfig, ("sweep", self.base), ("variant", variant.settings), ("seed", {"seed": seed}))


def load_sweep(path: Path) -> SweepConfig:
    """Read a sweep file; every fault is listed at once, with the nearest key for unknown ones."""
    return SweepConfig.parse(read_toml(path), where=str(path))
