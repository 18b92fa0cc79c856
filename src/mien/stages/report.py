"""What a study, or a folder of ensembles, was found to be, to a report that a person reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mien.core.artifacts import base
from mien.core.artifacts.ensemble import SELECTION, runs_of
from mien.core.artifacts.evaluation import read_evaluation
from mien.core.artifacts.index import read_index
from mien.core.artifacts.run import read_metrics
from mien.core.artifacts.study import StudyFolder, read_study
from mien.core.errors import UsageError
from mien.core.labels import LABELS
from mien.report.compose import compose
from mien.report.html import to_html
from mien.report.study_view import is_synthetic, models_of

FORMATS = ("html",)


def run(root: Path, formats: tuple[str, ...]) -> list[Path]:
    """Write the report of the study, or of the ensembles, whose `study.json` lies in `root`; returns the files."""
    unknown = set(formats) - set(FORMATS)
    if unknown or not formats:
        raise UsageError(f"--format {','.join(formats)}.", rule=f"Formats of this version: {', '.join(FORMATS)}.")
    folder, study = StudyFolder(root), read_study(root)
    ensembles = root if (root / SELECTION).is_file() else folder.ensembles
    runs = runs_of(ensembles) | ({study["student"]["name"]: folder.student} if study["student"] else {})
    evaluations = {name: read_evaluation(path) for name, path in runs.items()}
    evaluations |= {
        e["name"]: read_evaluation(ensembles / e["name"]) for e in study["ensembles"] if e["name"] not in runs
    }
    histories = {m["name"]: read_metrics(runs[m["name"]]) for m in models_of(study) if m["training"]}
    sheet = _sheet(folder.index) if study["index"] and is_synthetic(study) else None
    page = to_html(compose(study, histories, evaluations, sheet))
    base.write_text(folder.report, page)
    return [folder.report]


def _sheet(index_folder: Path, count: int = 10) -> dict[str, Any]:
    """Some train pictures of each class; only drawn faces are shown."""
    index = read_index(index_folder)
    rows = index.rows("train")
    return {name: np.array(index.pixels[rows[index.labels[rows] == i][:count]]) for i, name in enumerate(LABELS)}
