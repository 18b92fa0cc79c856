"""A finished study, or a folder of ensembles, to a report that a person reads."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts import base
from mien.core.artifacts.ensemble import SELECTION, runs_of
from mien.core.artifacts.evaluation import read_evaluation
from mien.core.artifacts.index import read_index
from mien.core.artifacts.run import Epoch, read_metrics
from mien.core.artifacts.study import StudyDocument, StudyFolder, read_study
from mien.core.errors import ArtifactError, MienError, UsageError
from mien.core.labels import LABELS
from mien.core.progress import warn
from mien.report.blocks import Document
from mien.report.comparison import compose_comparison
from mien.report.compose import compose
from mien.report.csv_tables import csv_files
from mien.report.material import Material
from mien.report.node import Node
from mien.report.provenance import blanks, numbers

FORMATS = ("html", "docx", "pdf", "md")


def run(root: Path, formats: tuple[str, ...]) -> list[Path]:
    """Write the report of the study, or of the ensembles, whose `study.json` lies in `root`; returns the documents.

    Beside them: every table as CSV, the source of every number, and the cells without one. Files that cannot be read
    are named in the report, and the rest of it is written.
    """
    _check_formats(formats)
    material = _collect(root)
    for path, text in material.problems:
        warn(f"{path} is left out of the report: {text}")
    return _publish(compose(material), StudyFolder(root).report.parent, formats)


def run_comparison(comparison: Mapping[str, object], first: Path, second: Path, formats: tuple[str, ...]) -> list[Path]:
    """Write the comparison of two folders (`compare_studies.compare`) below the second's report; returns documents."""
    _check_formats(formats)
    folder = StudyFolder(second).report.parent / f"beside-{str(comparison['first']).replace('/', '-')}"
    path = folder / "comparison.json"
    _put(path, (json.dumps(comparison, indent=1, allow_nan=False) + "\n").encode())
    reader = _Reader(second)
    studies = (Node(read_study(root), reader.name(StudyFolder(root).summary)) for root in (first, second))
    return _publish(compose_comparison(Node(comparison, reader.name(path)), *studies), folder, formats)


def _check_formats(formats: tuple[str, ...]) -> None:
    if set(formats) - set(FORMATS) or not formats:
        raise UsageError(f"--format {','.join(formats)}.", rule=f"Formats of this version: {', '.join(FORMATS)}.")


def _publish(document: Document, folder: Path, formats: tuple[str, ...]) -> list[Path]:
    """Write a document, its tables, and where its numbers come from."""
    files = csv_files(document)
    for old in (folder / "tables").glob("*.csv"):
        if f"tables/{old.name}" not in files:
            old.unlink()
    written = [path for kind in dict.fromkeys(formats) for path in _write(document, folder, kind)]
    for name, text in files.items():
        _put(folder / name, text.encode())
    for name, rows in (("numbers", numbers(document)), ("blanks", blanks(document))):
        _put(folder / f"{name}.json", (json.dumps({name: rows}, indent=1, allow_nan=False) + "\n").encode())
    return written


def _write(document: Document, folder: Path, kind: str) -> list[Path]:
    """One format of the document; returns the file that a reader opens."""
    if kind == "html":
        from mien.report.html import to_html  # noqa: PLC0415 - each writer's package is loaded for its format alone

        files = {"index.html": to_html(document).encode()}
    elif kind == "docx":
        from mien.report.docx import to_docx  # noqa: PLC0415

        files = {"report.docx": to_docx(document)}
    elif kind == "pdf":
        from mien.report.pdf import to_pdf  # noqa: PLC0415

        files = {"report.pdf": to_pdf(document)}
    else:
        from mien.report.markdown import svg_files, to_markdown  # noqa: PLC0415

        files = {"report.md": to_markdown(document).encode(), **svg_files(document)}
    for name, data in files.items():
        _put(folder / name, data)
    return [folder / next(iter(files))]


def _put(path: Path, data: bytes) -> None:
    """Write a file unless it holds these bytes."""
    if not path.is_file() or path.read_bytes() != data:
        base.write_bytes(path, data)


class _Reader:
    """Reads artefacts as nodes that know their file; what cannot be read is kept as a problem."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[tuple[str, str]] = []

    def name(self, path: Path) -> str:
        """A path as the report gives it."""
        return Path(os.path.relpath(path.resolve(), self.root.resolve())).as_posix()

    def node(self, path: Path, read: Callable[[], object]) -> Node | None:
        """What `read` returns of the file `path`, None where it cannot be read."""
        try:
            return Node(read(), self.name(path))
        except MienError as error:
            self.problems.append((self.name(path), str(error)))
        except (OSError, ValueError, KeyError, TypeError) as error:  # a file of another format
            self.problems.append((self.name(path), f"It cannot be read: {error}. Make it again with this version."))
        return None

    def json(self, path: Path, kind: str) -> Node | None:
        """A JSON file."""
        return self.node(path, lambda: base.read_json(path, kind=kind, fix="Make it again with this version."))


def _collect(root: Path) -> Material:
    """All that lies in the folder, and what of it could not be read."""
    folder, study, reader = StudyFolder(root), read_study(root), _Reader(root)
    node = Node(study, reader.name(folder.summary))
    alone = (root / SELECTION).is_file()
    ensembles = root if alone else folder.ensembles
    folders = _run_folders(ensembles, study, reader)
    if study["student"]:
        folders[study["student"]["name"]] = folder.student
    trained = {
        m["name"]: folders[m["name"]]
        for m in study["teachers"] + ([study["student"]] if study["student"] else [])
        if m["training"] and m["name"] in folders
    }
    evaluated = folders | {e["name"]: ensembles / e["name"] for e in study["ensembles"] if e["name"] not in folders}
    provenance = (
        None if study["index"] is None else reader.json(folder.index / "provenance.json", "provenance of an index")
    )
    sheet = None
    if study["index"] and study["drawn"]:
        images = reader.node(folder.index, lambda: _sheet(folder.index))
        sheet = None if images is None else images.value
    return Material(
        study=node,
        provenance=provenance,
        sheet=sheet,
        histories=_each(trained, lambda p: reader.node(p / "metrics.jsonl", lambda: _history(p))),
        evaluations=_each(evaluated, lambda p: reader.node(p / "evaluation.json", lambda: read_evaluation(p))),
        configs=_each(trained, lambda p: reader.json(p / "config.json", "run configuration")),
        environments=_each(trained, lambda p: reader.json(p / "environment.json", "training environment")),
        manifests=_each(trained, lambda p: reader.json(p / base.MANIFEST, "manifest")),
        problems=tuple(reader.problems),
    )


def _run_folders(ensembles: Path, study: StudyDocument, reader: _Reader) -> dict[str, Path]:
    """Where the runs lie by their names; for a study as it lays them out where the selection cannot be read."""
    try:
        return runs_of(ensembles)
    except ArtifactError as error:
        reader.problems.append((reader.name(ensembles), str(error)))
        return {t["name"]: StudyFolder(reader.root).teacher(t["name"]) for t in study["teachers"]}


def _each(folders: dict[str, Path], read: Callable[[Path], Node | None]) -> dict[str, Node]:
    nodes = {name: read(path) for name, path in folders.items()}
    return {name: node for name, node in nodes.items() if node is not None}


def _history(folder: Path) -> list[Epoch]:
    """The epochs of a run. Raises `ArtifactError` where no validation stands in them."""
    lines = read_metrics(folder)
    if not any("val" in line for line in lines):
        raise ArtifactError(f"{folder / 'metrics.jsonl'} holds no validated epoch.", fix="Train again.")
    return lines


def _sheet(index_folder: Path, count: int = 10) -> dict[str, NDArray[np.uint8]]:
    """Some train images of each class; only drawn faces are shown."""
    index = read_index(index_folder)
    rows = index.rows("train")
    return {name: np.array(index.pixels[rows[index.labels[rows] == i][:count]]) for i, name in enumerate(LABELS)}
