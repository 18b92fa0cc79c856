"""`evaluation.json`: test metrics with intervals, beside the hash of the selection made before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mien.core.artifacts import base
from mien.core.errors import ArtifactError

KIND, VERSION = "evaluation", 3
FIX = "Make it: `mien evaluate RUN --index DIR`."


def write_evaluation(folder: Path, evaluation: dict[str, Any]) -> None:
    """Write crash-safely; the caller puts `fingerprint`, `selection_hash` and `test_accesses` in: how often test was opened
    before the selection, before the calibration (null for ensembles) and before this evaluation."""
    missing = {"fingerprint", "selection_hash", "test_accesses", "test"} - set(evaluation)
    if missing:
        raise ValueError(f"evaluation lacks {sorted(missing)}")
    base.write_json(folder / "evaluation.json", {"kind": KIND, "format": VERSION, **evaluation})


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Read a model's test results."""
    evaluation: dict[str, Any] = base.read_json(folder / "evaluation.json", kind="evaluation", fix=FIX)
    if evaluation.get("format") != VERSION:
        raise ArtifactError(
            f"{folder / 'evaluation.json'} has format {evaluation.get('format')}.",
            rule=f"This version reads format {VERSION}.",
            fix=FIX,
        )
    return evaluation


def transfer_path(run: Path, index: str) -> Path:
    """Where a run keeps its figures on another index's test (by that index's content hash)."""
    return run / "transfer" / f"{index[:16]}.json"


def write_transfer(run: Path, found: dict[str, Any]) -> None:
    """Write a run's figures on another index's test, crash-safely."""
    base.write_json(transfer_path(run, found["on"]), {"kind": "transfer", "format": VERSION, **found})


def read_transfers(run: Path) -> list[dict[str, Any]]:
    """All that a run was judged on besides its own index's test, as it is calibrated and selected now."""
    own = read_evaluation(run)
    found = [base.read_json(path, kind="transfer") for path in sorted((run / "transfer").glob("*.json"))]
    known = ("format", "selection_hash", "calibration_hash")
    return [one for one in found if all(one.get(key) == own[key] for key in known)]


def read_transfer(run: Path, index: str) -> dict[str, Any]:
    """Read a run's figures on another index's test (by that index's content hash)."""
    found: dict[str, Any] = base.read_json(
        transfer_path(run, index), kind="transfer", fix="Make it: `mien evaluate RUN --index DIR --on OTHER`."
    )
    return found
