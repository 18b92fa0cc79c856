"""A sweep's folder: the index, a run for each variant and seed, `sweep.json`, its table and its curves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mien.core.artifacts import base

SCHEMA = 2


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


def write_sweep(root: Path, document: dict[str, Any], table: str, curves: bytes | None) -> None:
    """Write `sweep.json`, the table as Markdown, and the curves as PNG."""
    base.write_json(SweepFolder(root).summary, document)
    base.write_text(root / "sweep.md", table)
    if curves is not None:
        base.write_bytes(root / "curves.png", curves)
