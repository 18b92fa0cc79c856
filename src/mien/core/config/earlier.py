"""Figures of an earlier report, which a study's report sets beside its own and checks against each other."""

from __future__ import annotations

from typing import TypedDict

from pydantic import Field, field_validator

from mien.core.config.base import StageConfig
from mien.core.labels import LABELS


class StatedScore(TypedDict):
    """An `EarlierScore` in a document."""

    model: str
    where: str
    accuracy: float | None
    macro_f1: float | None
    minority_f1: float | None
    ece: float | None
    temperature: float | None
    swept: list[float] | None
    per_class_f1: dict[str, float]
    joined: bool


class StatedShare(TypedDict):
    """An `EarlierShare` in a document."""

    what: str
    part: int
    whole: int
    per_cent: float
    digits: int


class StatedReport(TypedDict):
    """An `EarlierReport` in a document."""

    title: str
    scores: list[StatedScore]
    shares: list[StatedShare]
    best_single: dict[str, str]


class EarlierScore(StageConfig):
    """What the report says of one model in one place."""

    model: str
    where: str = Field(description="the section or table of the report")
    accuracy: float | None = Field(None, ge=0, le=1)
    macro_f1: float | None = Field(None, ge=0, le=1)
    minority_f1: float | None = Field(None, ge=0, le=1)
    ece: float | None = Field(None, ge=0, le=1)
    temperature: float | None = Field(None, gt=0)
    swept: tuple[float, float] | None = Field(None, description="the range in which the temperature was searched")
    per_class_f1: dict[str, float] = Field({}, description="F1 of every class, by its name")
    joined: bool = Field(False, description="an ensemble, which is no rival for the best single model")

    @field_validator("per_class_f1")
    @classmethod
    def _all_classes(cls, value: dict[str, float]) -> dict[str, float]:
        if value and set(value) != set(LABELS):
            raise ValueError(f"F1 of each of {', '.join(LABELS)}, or of none")
        return value


class EarlierShare(StageConfig):
    """A share in per cent that the report prints, and the counts that it is of."""

    what: str
    part: int = Field(ge=0)
    whole: int = Field(gt=0)
    per_cent: float
    digits: int = Field(2, ge=0, le=6)


class EarlierReport(StageConfig):
    """A report that was written before; `best_single` are the models that it calls so, each with where it does."""

    title: str
    scores: tuple[EarlierScore, ...] = Field(min_length=1)
    shares: tuple[EarlierShare, ...] = ()
    best_single: dict[str, str] = Field({}, description="MODEL = WHERE it is called the best single model")

    @field_validator("best_single")
    @classmethod
    def _has_words(cls, value: dict[str, str]) -> dict[str, str]:
        if not all(value.values()):
            raise ValueError("MODEL = WHERE: the place where the report calls it the best single model")
        return value
