"""A matrix: one TOML file that names sources, of which each is learned from and each is judged on."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from mien.core.config.base import Origins, StageConfig, read_toml
from mien.core.config.index import IndexConfig
from mien.core.config.judge import CalibrateConfig, EvaluateConfig
from mien.core.config.recipes import resolve
from mien.core.config.study import Named, check_names, named
from mien.core.config.train import TrainConfig
from mien.core.errors import MienError, nearest

LABELS_KEY = "labels"
TRAIN_KEY = "train"


class MatrixConfig(StageConfig):
    """Train sources × test sources: one training, repeated with each seed on each source, judged on all sources' test.

    A source with `labels` has the images alone that all sources of its index label, under the labels of the one that it
    names: two such sources with the same other settings have the same images in every split. A source's table `train`
    holds settings of its own trainings, e.g. `soft_votes` where it alone has votes.
    """

    name: str
    description: str = ""
    cost: str = ""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    index: dict[str, object] = Field(default_factory=dict, description="settings of every source's index")
    sources: tuple[Named, ...] = Field(min_length=2)
    train: dict[str, object] = Field(default_factory=dict)
    calibrate: CalibrateConfig = CalibrateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @field_validator("sources", mode="before")
    @classmethod
    def _split_settings(cls, value: object) -> list[dict[str, object]]:
        return named(value, "sources")

    @model_validator(mode="after")
    def _fits_together(self) -> MatrixConfig:
        check_names([source.name for source in self.sources], "sources")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"a seed is named twice: {self.seeds}")
        if "seed" in self.train:
            raise ValueError("train: seed is not a setting here: `seeds` lists them")
        if self.calibrate.prior != "calib":
            raise ValueError("calibrate: runs with other class shares than calib's cannot be selected")
        if self.evaluate.corruptions:
            raise ValueError("evaluate: corruptions belong to a study")
        crops = set()
        for source in self.sources:
            _check_keys(source)
            try:
                index = self.index_of(source)
            except MienError as error:
                raise ValueError(str(error)) from None
            self._check_labels(source, index)
            if not index.source:
                raise ValueError(f'source {source.name}: which images? source = ["NAME=WHERE"]')
            if index.color == "auto":
                raise ValueError('index: color = "grey" or "rgb", since all sources must look alike')
            crops.add((index.size, index.color, index.align, index.crop_scale, index.crop_shift_y))
            try:
                self.training(source, self.seeds[0])
            except MienError as error:
                where = f"source {source.name}: train" if TRAIN_KEY in source.settings else "train"
                raise ValueError(f"{where}: {error}") from None
        if len(crops) > 1:
            raise ValueError(
                f"sources have several sizes, colours, alignments or crops: {sorted(crops)}; all must look alike"
            )
        return self

    def index_of(self, source: Named) -> IndexConfig:
        """The settings of one source's index: those of all, then its own."""
        settings = {key: value for key, value in source.settings.items() if key not in (LABELS_KEY, TRAIN_KEY)}
        return IndexConfig.parse({**self.index, **settings}, where=f"source {source.name}")

    def labels_of(self, source: Named) -> str | None:
        """The source whose labels the images take that all sources of the index label; None: the index as it is."""
        name = source.settings.get(LABELS_KEY)
        return None if name is None else str(name)

    def _check_labels(self, source: Named, index: IndexConfig) -> None:
        """Raise unless `labels` names one of at least two sources of the index."""
        names = [text.partition("=")[0].rpartition("@")[2] for text in index.source]
        labels = self.labels_of(source)
        if labels is not None and (labels not in names or len(names) < 2):
            raise ValueError(
                f"source {source.name}: labels = {labels!r} names one of at least two sources of its index, which are "
                f"{', '.join(names) or 'none'}"
            )

    def training(self, source: Named, seed: int) -> tuple[TrainConfig, Origins]:
        """The settings of one run, and where each came from."""
        return resolve(
            TrainConfig, ("matrix", self.train), ("source", self._own_training(source)), ("seed", {"seed": seed})
        )

    def _own_training(self, source: Named) -> dict[str, object]:
        """The settings that one source's trainings have for themselves."""
        own = source.settings.get(TRAIN_KEY, {})
        if not isinstance(own, dict):
            raise ValueError(
                f"source {source.name}: train is a table of settings, e.g. train = {{ soft_votes = true }}"
            )
        if "seed" in own:
            raise ValueError(f"source {source.name}: train: seed is not a setting here: `seeds` lists them")
        return own


def _check_keys(source: Named) -> None:
    """Raise for a key that is neither a setting of an index nor one of a matrix's source."""
    known = [LABELS_KEY, TRAIN_KEY, *IndexConfig.model_fields]
    for key in source.settings:
        if key not in known:
            raise ValueError(f"source {source.name}: unknown key {key!r}.{nearest(key, known)}")


def load_matrix(path: Path) -> MatrixConfig:
    """Read a matrix file; faults are named with the nearest key for unknown ones."""
    return MatrixConfig.parse(read_toml(path), where=str(path))
