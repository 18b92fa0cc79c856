"""A selected ensemble and an index to a student run."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mien.core.artifacts import base
from mien.core.artifacts.ensemble import SELECTION, Ensemble, read_ensemble, read_selection
from mien.core.artifacts.index import Index, read_index
from mien.core.artifacts.plan import is_made
from mien.core.artifacts.prediction_source import check_has_weights
from mien.core.artifacts.predictions import predictions_path, read_predictions
from mien.core.artifacts.run import (
    KIND,
    VERSION,
    Run,
    TaughtBy,
    Teaching,
    check_index,
    read_run,
    starting_point,
    with_stated_terms,
)
from mien.core.artifacts.teacher_views import views_folder
from mien.core.config.base import Origins
from mien.core.config.train import DistillConfig
from mien.core.errors import ArtifactError
from mien.core.progress import say
from mien.evaluate.calibration_error import Floats, Ints
from mien.evaluate.metrics import score_logits, softmax
from mien.evaluate.temperature import minimum

if TYPE_CHECKING:
    from mien.nn.distillation.teacher import Teacher

_TRAIN_SAMPLE = 2000  # images of train on which the teacher's confidence is measured
_TRAIN_EXCESS = 0.03  # of (confidence - accuracy) on train over that on calib: beyond it the teacher gets a temperature


def run(
    config: DistillConfig,
    origin: Origins,
    teacher: Path,
    index_folder: Path,
    out: Path,
    *,
    replace: bool = False,
) -> Run:
    """Teach a student from the ensemble that `teacher` (a folder of ensembles) selected, or names.

    With `replace` a run of other settings at `out` makes way (a study owns its folders). Raises `UsageError` while
    another training writes there.
    """
    index = read_index(index_folder)
    folder, selection_path = _find(teacher)
    ensemble = read_ensemble(folder)
    fingerprint = base.fingerprint(
        KIND,
        VERSION,
        config.identity(),
        {
            "index": index.content_hash,
            "teacher": ensemble.weights_hash,
            "T": str(ensemble.temperature),
            **starting_point(config, index),
        },
    )
    if is_made(out, fingerprint, holds="is taught already"):
        return with_stated_terms(read_run(out), config, origin)
    from mien.nn.training.run import writing  # noqa: PLC0415  (torch)

    with writing(out):
        if replace:
            base.make_way(out, fingerprint)
        return _taught(config, origin, index, ensemble, folder, selection_path, out, fingerprint)


def _taught(
    config: DistillConfig,
    origin: Origins,
    index: Index,
    ensemble: Ensemble,
    folder: Path,
    selection_path: Path,
    out: Path,
    fingerprint: str,
) -> Run:
    """Train in `out` what `ensemble` in `folder` teaches."""
    members = _members(ensemble, folder)
    for member in members:
        check_index(member, index)
    from mien.nn.distillation.teacher import tempered_teacher  # noqa: PLC0415  (torch)
    from mien.nn.training.run import train_run  # noqa: PLC0415

    loaded = cache(lambda: _load(ensemble, members))  # made when needed: its networks take memory
    teaching = _teaching(loaded, folder, index)
    taught_by: TaughtBy = {
        "name": ensemble.name,
        "weights_hash": ensemble.weights_hash,
        "selection_hash": read_selection(selection_path)["hash"],
        "selection": os.path.relpath(selection_path.resolve(), out.resolve()),
        **teaching,
    }

    def teacher_of_views() -> Teacher:
        return tempered_teacher(loaded(), teaching["teaching_temperature"])

    tempered = {"teaching_temperature": teaching["teaching_temperature"]}
    views_fingerprint = base.fingerprint(
        "teacher", 2, tempered, {"weights": ensemble.weights_hash, "T": str(ensemble.temperature)}
    )
    views = views_folder(folder, views_fingerprint)
    return train_run(
        config,
        origin,
        index,
        out,
        fingerprint,
        score=score_logits,
        teacher=teacher_of_views,
        views=views,
        taught_by=taught_by,
    )


def _load(ensemble: Ensemble, members: list[Run]) -> Teacher:
    """The ensemble as a frozen teacher on the device that trains."""
    import torch  # noqa: PLC0415

    from mien.nn.devices import processes  # noqa: PLC0415
    from mien.nn.distillation.teacher import ensemble_teacher  # noqa: PLC0415
    from mien.nn.inference import load_network  # noqa: PLC0415

    networks = [
        (load_network(trained), m.weight, torch.tensor(m.matrix), torch.tensor(m.bias))
        for trained, m in zip(members, ensemble.members, strict=True)
    ]
    return ensemble_teacher(networks, ensemble.pool, ensemble.temperature, processes().device)


def _teaching(teacher: Callable[[], Teacher], folder: Path, index: Index) -> Teaching:
    """The teacher's confidence less its accuracy on train (a sample, not augmented) and on calib, and a temperature.

    A teacher that is over-confident on the images it teaches, beyond what it is on calib, gets a temperature of its own
    for teaching, fitted on that sample: a student learns from the teacher's probabilities there, and its own
    calibration follows them (arXiv 2508.20224).
    """
    from mien.nn.devices import processes  # noqa: PLC0415  (torch)
    from mien.nn.distillation.teacher import teacher_log_probabilities  # noqa: PLC0415

    train = np.random.default_rng(0).permutation(index.rows("train"))[:_TRAIN_SAMPLE]
    logs = teacher_log_probabilities(teacher(), index.pixels, np.sort(train), processes().device)
    labels = index.labels[np.sort(train)]
    calib = read_predictions(predictions_path(folder, "calib"))
    gaps = [_confidence_gap(logs, labels), _confidence_gap(calib.logits, calib.labels)]
    # Rounded: last bits differ between processes on an accelerator, and all students must share the teacher's views.
    temperature = round(minimum(logs, labels), 4) if gaps[0] - gaps[1] > _TRAIN_EXCESS else 1.0
    note = "" if temperature == 1 else f"; it teaches at a temperature of its own, {temperature:.2f}"
    say(f"the teacher's confidence less its accuracy: {gaps[0]:+.3f} on train, {gaps[1]:+.3f} on calib{note}")
    return {"train_gap": gaps[0], "calib_gap": gaps[1], "teaching_temperature": temperature}


def _confidence_gap(logits: Floats, labels: Ints) -> float:
    """Mean confidence less accuracy."""
    probabilities = softmax(logits)
    return float(probabilities.max(1).mean() - (probabilities.argmax(1) == labels).mean())


def _find(teacher: Path) -> tuple[Path, Path]:
    """The ensemble's folder and its selection, from a folder of ensembles or one of them."""
    if (teacher / "ensemble.json").is_file():
        return teacher, teacher.parent / SELECTION
    selection = read_selection(teacher / SELECTION)
    return teacher / selection["name"], teacher / SELECTION


def _members(ensemble: Ensemble, folder: Path) -> list[Run]:
    for member in ensemble.members:
        check_has_weights(folder / member.run, "teach with")
    runs = [read_run(folder / member.run) for member in ensemble.members]
    for trained, member in zip(runs, ensemble.members, strict=True):
        if trained.weights_hash != member.weights_hash:
            raise ArtifactError(
                f"{trained.folder} was trained again after {ensemble.name} was made.", fix="Make the ensembles again."
            )
    return runs
