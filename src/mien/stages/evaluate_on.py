"""A finished model on another index's test, without images that it may have seen.

The model is a run, an ensemble or an exported model file. A matrix of train and test sources consists of such
evaluations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts import base
from mien.core.artifacts import test_accesses as accesses
from mien.core.artifacts.calibration import read_calibration
from mien.core.artifacts.ensemble import SELECTION, read_ensemble, read_selection
from mien.core.artifacts.evaluation import (
    KIND,
    VERSION,
    AccessesBefore,
    LeftOut,
    TransferDocument,
    read_transfer,
    transfer_path,
    write_transfer,
)
from mien.core.artifacts.index import Index, read_index
from mien.core.artifacts.metrics import MetricsWithIntervals
from mien.core.artifacts.pixels import PixelRows
from mien.core.artifacts.prediction_source import (
    check_has_weights,
    judging_warnings,
    read_prediction_source,
    selection_of,
)
from mien.core.artifacts.run import Run, check_index, read_run
from mien.core.config.judge import EvaluateConfig
from mien.core.errors import ArtifactError, InputError, SplitError, UsageError
from mien.core.geometry import CropSpec
from mien.core.progress import meter, warn
from mien.data.duplicates.copies import copies
from mien.evaluate.bootstrap import with_intervals
from mien.evaluate.metrics import softmax
from mien.evaluate.pooling import ensemble_logits
from mien.evaluate.scaling import scaling_of

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]
_BATCH = 64
_NO_INDEX = (
    "what the model has seen is not known, so that nothing was left out: name the index that it learned from (--index)"
)


@dataclass(frozen=True)
class _Model:
    """What is needed of a model.

    `probabilities` gives (n, 7) for packed images; `folder` keeps the figures and the record of the access.
    """

    name: str
    folder: Path
    crop: CropSpec
    probabilities: Callable[[PixelRows, Rows], Floats]
    hashes: accesses.EvaluatedHashes
    places: list[Path]
    before_selection: int
    before_calibration: int
    trained_on: list[str]
    warnings: list[str]


def run(
    target: Path,
    index_folder: Path | None,
    other_folder: Path,
    config: EvaluateConfig,
    *,
    selection: Path | None = None,
) -> TransferDocument:
    """Score a finished model on the test split of `other_folder`.

    `target` is a calibrated run, an ensemble, a folder of ensembles (what it selected) or a model file (.onnx, for
    which torch is not needed). Runs and ensembles are judged once a selection knows them. Left out are images that
    stand in the train, val or calib split of `index_folder`, the index that the model learned from, and their copies,
    found as an index finds them: mirrored, cropped, re-compressed or re-exposed ones, verified on the pixels. Only a
    model file may be judged without that index; then nothing is left out, and a warning is given.

    Raises
    ------
    UsageError
        for a run or ensemble without its index
    InputError
        for crops that the model does not know, and where no image is left
    SplitError
        for a model that no selection knows
    """
    other = read_index(other_folder)
    index = None if index_folder is None else read_index(index_folder)
    model = _open(target, index, other_folder, config, selection)
    _check_crop(model, target, other)
    content = "none" if index is None else index.content_hash
    fingerprint = base.fingerprint(
        KIND, VERSION, config.figure_settings(), {**model.hashes, "index": content, "on": other.content_hash}
    )
    if transfer_path(model.folder, other.content_hash).is_file():
        done = read_transfer(model.folder, other.content_hash)
        if done.get("fingerprint") == fingerprint:
            return done
    rows, left_out = other.rows("test"), LeftOut(same=0, near=0)
    if index is not None and index_folder is not None:
        rows, left_out = _unseen(index_folder, other_folder, index.content_hash, other.content_hash)
    scored = _score(model, other, rows, config)
    write_transfer(
        model.folder,
        {
            "kind": "transfer",
            "format": VERSION,
            "name": model.name,
            "selection_hash": model.hashes["selection_hash"],
            "calibration_hash": model.hashes["calibration_hash"],
            "trained_on": model.trained_on,
            "on": other.content_hash,
            "on_sources": other.sources,
            "test": scored,
            "warnings": model.warnings,
            "fingerprint": fingerprint,
            "left_out": left_out,
            "test_accesses": _record(model, other, scored),
        },
    )
    return read_transfer(model.folder, other.content_hash)


def _score(model: _Model, other: Index, rows: Rows, config: EvaluateConfig) -> MetricsWithIntervals:
    for text in model.warnings:
        warn(f"{model.name}: {text}")
    return with_intervals(
        model.probabilities(other.pixels, rows),
        other.labels[rows],
        resamples=config.resamples,
        seed=config.seed,
        groups=other.group_ids[rows],
    )


def _record(model: _Model, other: Index, scored: MetricsWithIntervals) -> AccessesBefore:
    ids = other.image_ids[other.rows("test")].tolist()
    before = accesses.record(model.name, scored, ids, model.places, index=other.content_hash, **model.hashes)
    return {
        "before": before,
        "before_selection": model.before_selection,
        "before_calibration": model.before_calibration,
    }


def _open(
    target: Path, index: Index | None, other_folder: Path, config: EvaluateConfig, selection: Path | None
) -> _Model:
    if target.suffix == ".onnx":
        return _model_file(target, index, other_folder)
    if index is None:
        raise UsageError(
            f"{target} is judged on another index without what it has seen.",
            rule="--on needs the index that a run or an ensemble learned from.",
            fix="Name it: --index DIR.",
        )
    if (target / SELECTION).is_file():
        target = target / read_selection(target / SELECTION)["name"]
    if (target / "ensemble.json").is_file():
        return _ensemble(target, index, other_folder, config)
    return _run(target, index, other_folder, config, selection)


def _run(target: Path, index: Index, other_folder: Path, config: EvaluateConfig, selection_path: Path | None) -> _Model:
    check_has_weights(target, "judge with")
    source = read_prediction_source(target)
    if source.run is None:
        raise UsageError(f"{target} has no weights.")
    check_index(source.run, index)
    calibration = read_calibration(target / "calibration.json", weights_hash=source.weights_hash)
    selection, selection_file = selection_of(source, selection_path, calibration)
    trained, scaling = source.run, scaling_of(calibration)
    return _Model(
        name=source.name,
        folder=target,
        crop=index.crop,
        probabilities=lambda pixels, rows: softmax(scaling.apply(_logits(trained, pixels, rows, config))),
        hashes={
            "weights_hash": source.weights_hash,
            "calibration_hash": calibration.hash,
            "selection_hash": selection["hash"],
        },
        places=accesses.places_of([target], other_folder, selection_file),
        before_selection=selection["test_accesses"],
        before_calibration=calibration.test_accesses,
        trained_on=index.sources,
        warnings=judging_warnings(source, selection, calibration),
    )


def _ensemble(target: Path, index: Index, other_folder: Path, config: EvaluateConfig) -> _Model:
    ensemble, selection_path = read_ensemble(target), target.parent / SELECTION
    selection = read_selection(selection_path)
    candidate = selection["candidates"].get(ensemble.name)
    if candidate is None or candidate["hash"] != ensemble.hash:
        raise SplitError(
            f"{target} is not among the candidates of {selection_path}.",
            rule="Test is opened for what the selection knew.",
            fix="Make the ensembles again: `mien ensemble`.",
        )
    for member in ensemble.members:
        check_has_weights(target / member.run, "judge with")
    members = [read_run(target / member.run) for member in ensemble.members]
    for trained, member in zip(members, ensemble.members, strict=True):
        check_index(trained, index)
        if trained.weights_hash != member.weights_hash:
            raise ArtifactError(
                f"{trained.folder} was trained again after {ensemble.name} was made.", fix="Make the ensembles again."
            )

    def probabilities(pixels: PixelRows, rows: Rows) -> Floats:
        logits = [_logits(trained, pixels, rows, config) for trained in members]
        return softmax(ensemble_logits(logits, ensemble) / ensemble.temperature)

    return _Model(
        name=ensemble.name,
        folder=target,
        crop=index.crop,
        probabilities=probabilities,
        hashes={
            "weights_hash": ensemble.weights_hash,
            "calibration_hash": ensemble.hash,
            "selection_hash": selection["hash"],
        },
        places=accesses.places_of([target / m.run for m in ensemble.members], other_folder, selection_path),
        before_selection=selection["test_accesses"],
        before_calibration=0,
        trained_on=index.sources,
        warnings=[*ensemble.warnings],
    )


def _model_file(target: Path, index: Index | None, other_folder: Path) -> _Model:
    """An exported model, by onnxruntime alone. Its figures are kept in `MODEL.onnx.evaluations/`."""
    from mien.runtime.recognizer import open_session  # noqa: PLC0415  (onnxruntime)

    session, card = open_session(target, threads=2)
    folder = target.with_name(f"{target.name}.evaluations")

    def probabilities(pixels: PixelRows, rows: Rows) -> Floats:
        out = np.empty((len(rows), len(card.labels)))
        with meter(f"{card.name}: test", len(rows)) as progress:
            for start in range(0, len(rows), _BATCH):
                crops = np.array(pixels[rows[start : start + _BATCH]])
                crops = np.repeat(crops, 3, axis=3) if crops.shape[3] == 1 else crops
                out[start : start + len(crops)] = session.run(["probabilities"], {"crops": crops})[0]
                progress.advance(len(crops))
        return np.asarray(out / out.sum(1, keepdims=True))  # float32 sums to 1 within 1e-6 only

    return _Model(
        name=card.name,
        folder=folder,
        crop=card.crop,
        probabilities=probabilities,
        hashes={
            "weights_hash": card.weights_hash,
            "calibration_hash": base.sha256_file(target),
            "selection_hash": "none",
        },
        places=[folder, other_folder.resolve().parent],
        before_selection=0,
        before_calibration=0,
        trained_on=card.sources,
        warnings=[] if index is not None else [_NO_INDEX],
    )


def _logits(trained: Run, pixels: PixelRows, rows: Rows, config: EvaluateConfig) -> Floats:
    from mien.nn.inference import load_network  # noqa: PLC0415  (torch)
    from mien.nn.predict import predict_logits  # noqa: PLC0415

    return predict_logits(load_network(trained), pixels, rows, batch_size=config.batch_size)


def _check_crop(model: _Model, target: Path, other: Index) -> None:
    """Raise unless the index is cropped as the model was taught; a grey model also takes images in colour."""
    model_crop, index_crop = model.crop.model_dump(), other.crop.model_dump()
    if model_crop["color"] == "grey":
        index_crop["color"] = "grey"
    differences = [
        f"{key} {model_crop[key]!r} and {index_crop[key]!r}" for key in model_crop if model_crop[key] != index_crop[key]
    ]
    if differences:
        raise InputError(
            f"{target} learned other crops than {other.folder} has: {', '.join(differences)}.",
            rule="A model sees what it was trained on: the same size, colour and crop.",
            fix=f"Build the other index with --like {target}.",
        )


@lru_cache(maxsize=64)  # the same for every seed of a matrix
def _unseen(index_folder: Path, other_folder: Path, *contents: str) -> tuple[Rows, LeftOut]:
    """Test rows of the other index whose images are not in this one's deciding splits, and how many were left out."""
    index, other = read_index(index_folder), read_index(other_folder)
    rows = other.rows("test")
    deciding = np.flatnonzero(index.splits != "test")
    same = np.isin(other.image_ids[rows], index.image_ids[deciding])
    near = np.zeros(len(rows), dtype=bool)
    # Drawn faces share strokes, and no two are copies.
    real, deciding_real = ~other.drawn[rows], ~index.drawn[deciding]
    near[real] = copies(other.pixels, rows[real], index.pixels, deciding[deciding_real])
    keep = ~(same | near)
    if not keep.any():
        raise InputError(f"Every test image of {other.folder} is one of {index.folder} or looks like one.")
    return rows[keep], {"same": int(same.sum()), "near": int((near & ~same).sum())}
