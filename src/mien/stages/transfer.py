"""A run on another index's test, without what it may have seen: the cells of a train-source × test-source matrix."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts import base
from mien.core.artifacts import test_accesses as accesses
from mien.core.artifacts.calibration import read_calibration
from mien.core.artifacts.evaluation import KIND, VERSION, read_transfer, transfer_path, write_transfer
from mien.core.artifacts.index import read_index
from mien.core.artifacts.judged import check_has_weights, judging_warnings, read_judged, selection_of
from mien.core.artifacts.run import check_index
from mien.core.config.judge import EvaluateConfig
from mien.core.errors import InputError, UsageError
from mien.core.progress import warn
from mien.data.copies import copies
from mien.evaluate.bootstrap import with_intervals
from mien.evaluate.metrics import softmax
from mien.evaluate.scaling import scaling_of


def run(
    target: Path, index_folder: Path, other_folder: Path, config: EvaluateConfig, *, selection: Path | None = None
) -> dict[str, Any]:
    """Score a calibrated run on the test split of `other_folder`, once a selection knows the run.

    Left out are pictures that stand in the train, val or calib split of the run's own index, and their copies, found as an
    index finds them: mirrored, cropped, re-compressed or re-exposed ones, verified on the pixels.
    """
    check_has_weights(target, "judge with")
    judged, index, other = read_judged(target), read_index(index_folder), read_index(other_folder)
    if judged.run is None:
        raise UsageError(f"{target} has no weights.")
    check_index(judged.run, index)
    mine, theirs = index.crop.model_dump(), other.crop.model_dump()
    differ = [f"{key} {mine[key]!r} and {theirs[key]!r}" for key in mine if mine[key] != theirs[key]]
    if differ:
        raise InputError(
            f"{target} learned other crops than {other_folder} has: {', '.join(differ)}.",
            rule="A run sees what it was trained on: the same size, colour and crop.",
            fix="Build the other index with the same --size, --color, --align, --crop-scale and --crop-shift-y.",
        )
    calibration = read_calibration(target / "calibration.json", weights_hash=judged.weights_hash)
    chosen, selection = selection_of(judged, selection, calibration)
    mark = base.fingerprint(
        KIND, VERSION, config.figure_settings(),
        {"weights": judged.weights_hash, "calibration": calibration.hash, "selection": chosen["hash"], "index": index.content_hash, "on": other.content_hash},
    )  # fmt: skip
    if transfer_path(target, other.content_hash).is_file():
        done = read_transfer(target, other.content_hash)
        if done.get("fingerprint") == mark:
            return done
    rows, left = _unseen(index_folder, other_folder, index.content_hash, other.content_hash)
    from mien.nn.inference import load_network  # noqa: PLC0415  (torch)
    from mien.nn.predict import predict_logits  # noqa: PLC0415

    logits = predict_logits(load_network(judged.run), other.pixels, rows, batch_size=config.batch_size)
    labels = other.labels[rows]
    scored = with_intervals(softmax(scaling_of(calibration).apply(logits)), labels, resamples=config.resamples, seed=config.seed, groups=other.group_ids[rows])  # fmt: skip
    warnings = judging_warnings(judged, chosen, calibration)
    for text in warnings:
        warn(f"{judged.name}: {text}")
    found = {
        "fingerprint": mark, "name": judged.name, "selection_hash": chosen["hash"], "calibration_hash": calibration.hash, "trained_on": index.sources, "on": other.content_hash, "on_sources": other.sources,
        "left_out": left, "test": scored, "warnings": warnings,
    }  # fmt: skip
    before = accesses.record(
        found,
        other.image_ids[other.rows("test")].tolist(),
        accesses.places_of([target], other_folder, selection),
        index=other.content_hash,
        weights_hash=judged.weights_hash,
        calibration_hash=calibration.hash,
        selection_hash=chosen["hash"],
    )
    found["test_accesses"] = {
        "before": before,
        "before_selection": chosen["test_accesses"],
        "before_calibration": calibration.test_accesses,
    }
    write_transfer(target, found)
    return read_transfer(target, other.content_hash)


@lru_cache(maxsize=64)  # the same for every seed of a matrix
def _unseen(index_folder: Path, other_folder: Path, *contents: str) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Test rows of the other index that the splits of this one which may decide do not show, and how many were left out."""
    index, other = read_index(index_folder), read_index(other_folder)
    rows = other.rows("test")
    seen = np.flatnonzero(index.splits != "test")
    same = np.isin(other.image_ids[rows], index.image_ids[seen])
    near = np.zeros(len(rows), dtype=bool)
    asked, shown = ~other.drawn[rows], ~index.drawn[seen]  # drawn faces share strokes and are known to differ
    near[asked] = copies(other.pixels, rows[asked], index.pixels, seen[shown])
    keep = ~(same | near)
    if not keep.any():
        raise InputError(f"Every test picture of {other.folder} is one of {index.folder} or looks like one.")
    return rows[keep], {"same": int(same.sum()), "near": int((near & ~same).sum())}
