"""`evaluation.json`: test metrics with intervals, beside the hash of the selection made before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mien.core.artifacts import base

KIND, VERSION = "evaluation", 1


def write_evaluation(folder: Path, evaluation: dict[str, Any]) -> None:
    """Write crash-safely; the caller puts `fingerprint` and `selection_hash` in."""
    missing = {"fingerprint", "selection_hash", "test"} - set(evaluation)
    if missing:
        raise ValueError(f"evaluation lacks {sorted(missing)}")
    base.write_json(folder / "evaluation.json", {"kind": KIND, "format": VERSION, **evaluation})


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Read a model's test results."""
    evaluation: dict[str, Any] = base.read_json(
        folder / "evaluation.json", kind="evaluation", fix="Make it: `mien evaluate RUN --index DIR`."
    )
    return evaluation


def transfer_path(run: Path, index: str) -> Path:
    """Where a run keeps its figures on another index's test (by that index's content hash)."""
    return run / "transfer" / f"{index[:16]}.json"


def write_transfer(run: Path, found: dict[str, Any]) -> None:
    """Write a run's figures on another index's test, crash-safely."""
    base.write_json(transfer_path(run, found["on"]), {"kind": "transfer", "format": VERSION, **found})
