"""A matrix's folder: an index per source, runs per source and seed, selections, `matrix.json`, table and figure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from mien.core.artifacts import base
from mien.core.artifacts.ensemble import SELECTION
from mien.core.artifacts.evaluation import LeftOut
from mien.core.artifacts.metrics import Intervals
from mien.core.artifacts.run import Environment

SCHEMA = 1


class MatrixSource(TypedDict):
    """The index of one source; rows by split."""

    content: str
    sources: list[str]
    rows: dict[str, int]


class CellRun(TypedDict):
    """Figures of one run in a cell."""

    seed: int
    macro_f1: float
    accuracy: float
    ece: float
    signed_gap: float
    ci95: Intervals


class OverSeeds(TypedDict):
    """A figure's mean over seeds, its spread (null: one seed), and the interval for images and seeds together."""

    mean: float
    sd: float | None
    ci95: list[float]


class Cell(TypedDict):
    """Runs that learned from source `train`, judged on the test of source `test`."""

    train: str
    test: str
    n: int
    left_out: LeftOut
    runs: list[CellRun]
    macro_f1: OverSeeds
    accuracy: OverSeeds
    ece: OverSeeds
    signed_gap: OverSeeds


class LostRun(TypedDict):
    """A run that has no result."""

    source: str
    seed: int
    why: str


class MatrixDocument(TypedDict):
    """`matrix.json`."""

    schema: int
    name: str
    description: str
    mien_git: str | None
    seeds: list[int]
    sources: dict[str, MatrixSource]
    interval: str
    cells: list[Cell]
    without_result: list[LostRun]
    environment: Environment


@dataclass(frozen=True)
class MatrixFolder:
    """Paths inside a matrix's folder."""

    root: Path

    def index(self, source: str) -> Path:
        """The index of one source."""
        return self.root / "indexes" / source

    def whole(self, source: str) -> Path:
        """The index of all images of a source that is restricted to those that all of its sources label."""
        return self.root / "indexes" / f"{source}.all"

    def run(self, source: str, seed: int) -> Path:
        """One run."""
        return self.root / "runs" / f"{source}_seed-{seed}"

    def ensembles(self, source: str) -> Path:
        """The selection among one source's runs, which opens test for them."""
        return self.root / "ensembles" / source

    def selection(self, source: str) -> Path:
        """The written selection itself."""
        return self.ensembles(source) / SELECTION

    @property
    def summary(self) -> Path:
        """`matrix.json`."""
        return self.root / "matrix.json"


def write_matrix(root: Path, document: MatrixDocument, table: str, figure: bytes | None) -> None:
    """Write `matrix.json`, the tables as Markdown, and the figure as PNG."""
    base.write_json(MatrixFolder(root).summary, document)
    base.write_text(root / "matrix.md", table)
    if figure is not None:
        base.write_bytes(root / "matrix.png", figure)
