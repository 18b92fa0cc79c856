"""A sweep's folder: the index, a run for each variant and seed, `sweep.json`, its table and its curves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from mien.core.artifacts import base
from mien.core.artifacts.run import Environment, TrainingEvent

SCHEMA = 2


class SweepIndex(TypedDict):
    """The index of a sweep; rows by split."""

    content: str
    sources: list[str]
    rows: dict[str, int]


class BestScores(TypedDict):
    """Figures on val at the best epoch."""

    macro_f1: float
    accuracy: float
    nll: float


class SweepRun(TypedDict):
    """One training: `curve` has epoch, val macro-F1 and margin of each validation, `last` is the last macro-F1."""

    seed: int
    best: BestScores
    best_epoch: int
    last: float
    fall_after_margin: float | None
    events: list[TrainingEvent]
    seconds: float
    curve: list[list[float]]


class Spread(TypedDict):
    """Mean and standard deviation over seeds."""

    mean: float
    sd: float


class VariantSpread(TypedDict):
    """A variant's figures on val over seeds."""

    macro_f1: Spread
    accuracy: Spread
    nll: Spread
    last: Spread


class VariantDifference(TypedDict):
    """A variant less the baseline, over seeds; `ci95` is not corrected for the number of comparisons, `p_holm` is."""

    mean: float
    ci95: tuple[float, float]
    p: float
    p_holm: float
    per_seed: tuple[float, ...]


class SweepVariant(TypedDict):
    """A variant of the training; the baseline has no difference (null)."""

    name: str
    settings: dict[str, object]
    runs: list[SweepRun]
    val: VariantSpread
    difference: VariantDifference | None


class SweepDocument(TypedDict):
    """`sweep.json`; `without_result` says by variant and seed why there is none."""

    schema: int
    name: str
    description: str
    mien_git: str | None
    baseline: str
    seeds: list[int]
    index: SweepIndex
    judged_on: str
    interval: str
    variants: list[SweepVariant]
    without_result: dict[str, dict[str, str]]
    environment: Environment


@dataclass(frozen=True)
class SweepFolder:
    """Paths inside a sweep's folder."""

    root: Path

    @property
    def index(self) -> Path:
        """The index."""
        return self.root / "index"

    def run(self, variant: str, seed: int) -> Path:
        """One run."""
        return self.root / "runs" / variant / f"seed-{seed}"

    @property
    def summary(self) -> Path:
        """`sweep.json`."""
        return self.root / "sweep.json"


def write_sweep(root: Path, document: SweepDocument, table: str, curves: bytes | None) -> None:
    """Write `sweep.json`, the table as Markdown, and the curves as PNG."""
    base.write_json(SweepFolder(root).summary, document)
    base.write_text(root / "sweep.md", table)
    if curves is not None:
        base.write_bytes(root / "curves.png", curves)
