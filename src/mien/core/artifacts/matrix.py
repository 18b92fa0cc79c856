"""A matrix's folder: an index a source, runs of each source and seed, their selections, `matrix.json`, table and figure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mien.core.artifacts import base
from mien.core.artifacts.ensemble import SELECTION

SCHEMA = 1


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


def write_matrix(root: Path, document: dict[str, Any], table: str, figure: bytes | None) -> None:
    """Write `matrix.json`, the tables as Markdown, and the figure as PNG."""
    base.write_json(MatrixFolder(root).summary, document)
    base.write_text(root / "matrix.md", table)
    if figure is not None:
        base.write_bytes(root / "matrix.png", figure)
