"""Two finished studies, or folders of ensembles, to a comparison on their common test images."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np

from mien.core.artifacts import base
from mien.core.artifacts.ensemble import SELECTION, runs_of
from mien.core.artifacts.metrics import PairedDifference
from mien.core.artifacts.predictions import Predictions, predictions_path, read_predictions
from mien.core.artifacts.study import REQUEST, StudyDocument, StudyFolder, read_request, read_study
from mien.core.config.train import NEUTRAL
from mien.core.errors import InputError, UsageError
from mien.evaluate.comparison import holm
from mien.evaluate.metrics import softmax
from mien.evaluate.paired import paired

_WORDS = ("name", "description", "cost", "expected", "earlier", "teachers", "student")


class ComparedModel(PairedDifference):
    """A model of the second folder less one of the first."""

    first: str
    second: str


class CorrectedModel(ComparedModel):
    """One of several that are compared: its p, corrected for their number by Holm."""

    p_holm: float


class DifferingSetting(TypedDict):
    """A setting `of` the study or of a run, with both values."""

    key: str
    of: str
    first: object
    second: object


class Comparison(TypedDict):
    """`comparison.json` of two folders; `only` are models that one of them lacks."""

    first: str
    second: str
    n: int
    selected: ComparedModel
    models: list[CorrectedModel]
    settings: list[DifferingSetting]
    only: dict[str, list[str]]


def compare(first: Path, second: Path) -> Comparison:
    """The comparison of two folders: names, paired statistics (second less first), settings that differ.

    Raises `InputError` where the test images or their labels are not the same.
    """
    if first.resolve() == second.resolve():
        raise UsageError(f"--compare {first} {second}: one folder twice.", rule="Two reports are compared.")
    studies = [read_study(root) for root in (first, second)]
    chosen = [study["selected"]["name"] for study in studies]
    pair = [_predictions(root, name) for root, name in zip((first, second), chosen, strict=True)]
    _check_same_test(first, second, pair)
    names = [e["name"] for e in studies[0]["ensembles"] if e["name"] in {o["name"] for o in studies[1]["ensembles"]}]
    entries = [_compared(name, name, *(_predictions(root, name) for root in (first, second))) for name in names]
    corrected = holm(np.array([m["mcnemar"]["p"] for m in entries])).tolist() if entries else list[float]()
    models: list[CorrectedModel] = [{**m, "p_holm": float(p)} for m, p in zip(entries, corrected, strict=True)]
    return {
        "first": _name(first, second),
        "second": _name(second, first),
        "n": len(pair[0].labels),
        "selected": _compared(chosen[0], chosen[1], *pair),
        "models": models,
        "settings": [*_study_differences(first, second), *_run_differences(first, second)],
        "only": _only(studies),
    }


def _name(root: Path, other: Path) -> str:
    """A folder's name, with its parent's where both have the same."""
    folder, other_folder = root.resolve(), other.resolve()
    return folder.name if folder.name != other_folder.name else f"{folder.parent.name}/{folder.name}"


def _ensembles(root: Path) -> Path:
    return root if (root / SELECTION).is_file() else StudyFolder(root).ensembles


def _predictions(root: Path, candidate: str) -> Predictions:
    """A candidate's calibrated test predictions, rows in the order of their ids."""
    predictions = read_predictions(predictions_path(_ensembles(root) / candidate, "test"), allow_test=True)
    order = np.argsort(predictions.image_ids, kind="stable")
    groups = None if predictions.groups is None else predictions.groups[order]
    return Predictions(
        predictions.split,
        predictions.image_ids[order],
        predictions.labels[order],
        predictions.logits[order],
        predictions.meta,
        groups,
    )


def _check_same_test(first: Path, second: Path, pair: list[Predictions]) -> None:
    ids = [set(p.image_ids.tolist()) for p in pair]
    rule = "Paired statistics need the same test images with the same labels."
    fix = (
        "Judge both on one test: run the second study on the first one's sources and settings of [index], "
        "or import predictions of the same images."
    )
    if ids[0] != ids[1] or len(pair[0].labels) != len(pair[1].labels):
        raise InputError(
            (
                f"{first} has {len(ids[0]):,} test images and {second} {len(ids[1]):,}; "
                f"{len(ids[0] & ids[1]):,} are the same."
            ),
            rule=rule,
            fix=fix,
        )
    other = int((pair[0].labels != pair[1].labels).sum())
    if other:
        raise InputError(
            f"{other:,} of {len(ids[0]):,} test images have another label in {second} than in {first}.",
            rule=rule,
            fix=fix,
        )


def _compared(first: str, second: str, reference: Predictions, compared: Predictions) -> ComparedModel:
    difference = paired(softmax(compared.logits), softmax(reference.logits), reference.labels, groups=reference.groups)
    return {"first": first, "second": second, **difference}


def _flat(value: object, place: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {place: value}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{place}.{key}" if place else key).items()}


def _differences(first: dict[str, object], second: dict[str, object], of: str) -> list[DifferingSetting]:
    keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    return [{"key": key, "of": of, "first": first.get(key), "second": second.get(key)} for key in keys]


def _study_differences(first: Path, second: Path) -> list[DifferingSetting]:
    if not all((root / REQUEST).is_file() for root in (first, second)):
        return []
    requests = [read_request(root)["study"] for root in (first, second)]
    first_settings, second_settings = (_flat({k: v for k, v in study.items() if k not in _WORDS}) for study in requests)
    return _differences(first_settings, second_settings, "the study")


def _run_differences(first: Path, second: Path) -> list[DifferingSetting]:
    runs = [runs_of(_ensembles(root)) for root in (first, second)]
    for folders, root in zip(runs, (first, second), strict=True):
        if (StudyFolder(root).student / base.MANIFEST).is_file():
            folders["student"] = StudyFolder(root).student
    return [
        row
        for name in runs[0]
        if name in runs[1]
        for row in _differences(_settings(runs[0][name]), _settings(runs[1][name]), name)
    ]


def _settings(run: Path) -> dict[str, object]:
    """The settings of a training, empty for imported predictions."""
    config = base.read_json(run / "config.json", kind="run configuration")
    return {key: entry["value"] for key, entry in config.get("settings", {}).items() if key not in NEUTRAL}


def _only(studies: list[StudyDocument]) -> dict[str, list[str]]:
    names = [[m["name"] for m in study["teachers"]] for study in studies]
    return {
        "first": [n for n in names[0] if n not in names[1]],
        "second": [n for n in names[1] if n not in names[0]],
    }
