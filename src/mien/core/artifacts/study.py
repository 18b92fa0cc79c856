"""A study's folder: where each stage's artefact lies, what was asked for, timings, `study.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mien.core.artifacts import base
from mien.core.errors import ArtifactError, UsageError

SCHEMA = 3
REQUEST = "request.json"
FIX = "Run the study: `mien study STUDY.toml --out DIR`."
Kind = Literal["study", "sweep", "matrix"]
KINDS: tuple[Kind, ...] = ("study", "sweep", "matrix")


@dataclass(frozen=True)
class StudyFolder:
    """Paths inside a study's folder."""

    root: Path

    @property
    def index(self) -> Path:
        """The index."""
        return self.root / "index"

    def teacher(self, name: str) -> Path:
        """A teacher's run."""
        return self.root / "teachers" / name

    @property
    def ensembles(self) -> Path:
        """The ensembles and the selection."""
        return self.root / "ensembles"

    @property
    def student(self) -> Path:
        """The student's run."""
        return self.root / "student"

    @property
    def model(self) -> Path:
        """The exported student."""
        return self.root / "export" / "student.onnx"

    @property
    def summary(self) -> Path:
        """`study.json`."""
        return self.root / "study.json"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.root / "report" / "index.html"


def earlier_request(root: Path, name: str, kind: Kind) -> dict[str, Any] | None:
    """What was asked for in `root` before, None where nothing was; a folder that holds anything else is refused."""
    path = root / REQUEST
    before: dict[str, Any] | None = base.read_json(path, kind=f"{kind} request") if path.is_file() else None
    if before is None and root.exists() and (not root.is_dir() or base.occupied(root)):
        raise UsageError(
            f"{root} is not empty and holds no {kind}.",
            rule=f"A {kind} has a folder of its own.",
            fix="Name another --out.",
        )
    if before is not None and (before.get("name") != name or kind not in before):
        raise UsageError(
            f"{root} holds the {next((k for k in KINDS if k in before), 'study')} {before.get('name')!r}, not the {kind} {name!r}.",
            rule=f"A {kind} has a folder of its own.",
            fix="Name another --out.",
        )
    return before


def open_study(
    root: Path,
    name: str,
    request: dict[str, Any],
    text: str | None = None,
    *,
    kind: Kind = "study",
) -> bool:
    """Take `root` for a study, sweep or matrix; True when the same one was there with other settings.

    A folder that holds anything else is refused. `text` is its file, kept as `KIND.toml`.
    """
    before = earlier_request(root, name, kind)
    base.write_json(root / REQUEST, {"name": name, kind: request})
    if text is not None:
        base.write_text(root / f"{kind}.toml", text)
    return before is not None and before[kind] != request


def close_study(root: Path) -> None:
    """Leave nothing of a study, sweep or matrix that failed before it made anything."""
    if {path.name for path in root.iterdir()} <= {REQUEST, *(f"{kind}.toml" for kind in KINDS)}:
        for path in root.iterdir():
            path.unlink()
        root.rmdir()


def read_request(root: Path) -> dict[str, Any]:
    """What the study in `root` was asked for."""
    request: dict[str, Any] = base.read_json(
        root / REQUEST, kind="study", fix="Run one: `mien study STUDY.toml --out DIR`."
    )
    return request


def read_timings(root: Path) -> dict[str, float]:
    """Seconds that each stage took when it ran."""
    path = root / "timings.json"
    return dict(base.read_json(path, kind="timings")) if path.is_file() else {}


def write_timings(root: Path, timings: dict[str, float]) -> None:
    """Write the stages' seconds."""
    base.write_json(root / "timings.json", timings)


def write_study(root: Path, document: dict[str, Any]) -> None:
    """Write `study.json` unless it already says the same."""
    path = StudyFolder(root).summary
    if not path.is_file() or base.read_json(path, kind="study summary") != document:
        base.write_json(path, document)


def read_study(root: Path) -> dict[str, Any]:
    """Read `study.json`."""
    path = StudyFolder(root).summary
    document: dict[str, Any] = base.read_json(path, kind="study summary", fix=FIX)
    if document.get("schema") != SCHEMA:
        raise ArtifactError(
            f"{path} has schema {document.get('schema')}.", rule=f"This version reads schema {SCHEMA}.", fix=FIX
        )
    return document
