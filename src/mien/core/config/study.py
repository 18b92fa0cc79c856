"""A study: one TOML file that names everything from images to report."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, field_validator

from mien.core.config.base import StageConfig, read_toml
from mien.core.config.earlier import EarlierReport
from mien.core.config.index import IndexConfig
from mien.core.config.judge import CalibrateConfig, EnsembleConfig, EvaluateConfig, ExportConfig
from mien.core.config.recipes import resolve
from mien.core.config.train import DistillConfig, TrainConfig
from mien.core.errors import ConfigError, nearest

EXPECTABLE = (
    *(
        f"{of}.{name}"
        for of in ("selected", "student")
        for name in ("accuracy", "macro_f1", "minority_f1", "ece", "nll")
    ),
    "student.retention_macro_f1",
)
"""What a study may expect: figures on test of the selected model and of the student."""
_SOURCES = re.compile(r"^source\s*=\s*\[[^\]]*\]", re.MULTILINE)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")


class Named(StageConfig):
    """A training by its name (a study's teacher, a sweep's variant), and the settings that are changed for it."""

    name: str
    settings: dict[str, object]


def named(value: object, what: str) -> list[dict[str, object]]:
    """Tables [[`what`]] as names and settings; a table without a name has its backbone's."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"{what} is a list of tables ([[{what}]])")
    return [
        {"name": t.get("name", t.get("backbone", "")), "settings": {k: v for k, v in t.items() if k != "name"}}
        for t in value
    ]


def check_names(names: list[str], what: str) -> None:
    """Raise for two of one name, and for names that no folder should have."""
    if len(set(names)) < len(names):
        raise ValueError(f"two {what} have one name: {names}")
    for name in names:
        if not _NAME.match(name):
            raise ValueError(f"{what}: name {name!r}: lower-case letters, digits, _ and -")


class StudyConfig(StageConfig):
    """The whole way, from images to a report."""

    name: str
    description: str = ""
    cost: str = ""
    expected: dict[str, tuple[float, float]] = Field(
        {}, description="ranges of figures on test, over seeds and processors, e.g. 'student.accuracy' = [0.8, 0.9]"
    )
    seed: int = Field(0, ge=0, le=2**63 - 1)
    index: IndexConfig
    teachers: tuple[Named, ...] = Field(min_length=1)
    calibrate: CalibrateConfig = CalibrateConfig()
    ensemble: EnsembleConfig = EnsembleConfig()
    student: dict[str, object] | None = None
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()
    earlier: EarlierReport | None = Field(
        None,
        exclude_if=lambda report: report is None,  # studies from before there was one stay the same
        description="figures of an earlier report, which this one sets beside its own",
    )

    @field_validator("teachers", mode="before")
    @classmethod
    def _split_settings(cls, value: object) -> list[dict[str, object]]:
        return named(value, "teachers")

    @field_validator("teachers")
    @classmethod
    def _check_teachers(cls, value: tuple[Named, ...]) -> tuple[Named, ...]:
        names = [teacher.name for teacher in value]
        check_names(names, "teachers")
        if "student" in names:
            raise ValueError("no teacher is called 'student': that is the student's folder")
        for teacher in value:
            _check_settings(TrainConfig, teacher.settings, f"teacher {teacher.name}")
            start = teacher.settings.get("init_from")
            if start in names and names.index(start) >= names.index(teacher.name):
                raise ValueError(f"teacher {teacher.name} starts from {start!r}, which must come before it")
        return value

    @field_validator("expected")
    @classmethod
    def _check_expected(cls, value: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for name, (low, high) in value.items():
            if name not in EXPECTABLE:
                raise ValueError(f"no figure {name!r}.{nearest(name, EXPECTABLE)} Figures: {', '.join(EXPECTABLE)}")
            if low > high:
                raise ValueError(f"{name}: the range [{low}, {high}] is empty; the lower end comes first")
        return value

    @field_validator("student")
    @classmethod
    def _check_student(cls, value: dict[str, object] | None) -> dict[str, object] | None:
        if value is not None:
            _check_settings(DistillConfig, value, "student")
        return value


def _check_settings(model: type[TrainConfig], settings: dict[str, object], where: str) -> None:
    """With the recipe under them, since one setting may need another that the recipe gives."""
    try:
        resolve(model, (where, settings))
    except ConfigError as error:
        raise ValueError(str(error)) from None


def load_study(path: Path) -> StudyConfig:
    """Read a study file; every fault is listed at once, with the nearest key for unknown ones."""
    return StudyConfig.parse(read_toml(path), where=str(path))


def study_with(path: Path, sources: Sequence[str]) -> tuple[StudyConfig, str]:
    """A study file and its text, with other sources where some are given: the text then says them too.

    Raises `ConfigError` for a file whose sources cannot be exchanged.
    """
    study, text = load_study(path), path.read_text(encoding="utf-8")
    if not sources:
        return study, text
    made = _SOURCES.sub(lambda _: f"source = {json.dumps(list(sources))}", text, count=1)
    if tomllib.loads(made)["index"].get("source") != list(sources):
        raise ConfigError(
            f"{path}: its sources cannot be exchanged.",
            rule="A study names them as `source = [...]` below [index].",
            fix="Copy the file and name the sources there.",
        )
    return StudyConfig.parse(tomllib.loads(made), where=str(path)), made


def shipped_studies() -> Path:
    """The folder of the studies that come with mien."""
    inside = Path(__file__).parents[2] / "studies"
    return inside if inside.is_dir() else Path(__file__).parents[4] / "studies"


def seeded(config: dict[str, object], seed: int) -> dict[str, object]:
    """Settings with the study's seed unless they name their own."""
    return {"seed": seed, **config}
