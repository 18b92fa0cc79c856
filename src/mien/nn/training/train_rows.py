"""The train rows of a training: all of the index, or with suspect labels dropped, changed or drawn less often."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.index import Index
from mien.core.artifacts.suspects import read_suspects
from mien.core.config.base import expand
from mien.core.config.train import TrainConfig
from mien.core.labels import N_CLASSES


@dataclass(frozen=True)
class TrainRows:
    """Row numbers (n,), labels (n,), soft targets (n, 7), and the chance that an epoch draws each row (None: all)."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    targets: NDArray[np.float32]
    chance: NDArray[np.float64] | None


def train_rows(config: TrainConfig, index: Index) -> TrainRows:
    """The rows that `config` teaches. Suspects that the index does not have in train are passed over."""
    rows = index.rows("train")
    labels = index.labels[rows]
    one_hot: NDArray[np.float32] = np.eye(N_CLASSES, dtype=np.float32)[labels]
    targets = index.votes[rows] if config.soft_votes else one_hot
    if config.suspects is None:
        return TrainRows(rows, labels, targets, None)
    suspects = read_suspects(Path(expand(config.suspects)), index=index.content_hash)
    advice = {
        name: c
        for name, c, s in zip(
            suspects.image_ids.tolist(), suspects.suggested.tolist(), suspects.suspect.tolist(), strict=True
        )
        if s
    }
    suspect = np.array([name in advice for name in index.image_ids[rows].tolist()])
    if config.suspect_treatment == "drop":
        return TrainRows(rows[~suspect], labels[~suspect], targets[~suspect], None)
    if config.suspect_treatment == "downweight":
        return TrainRows(rows, labels, targets, np.where(suspect, config.suspect_weight, 1.0))
    changed, soft = labels.copy(), targets.copy()
    changed[suspect] = [advice[name] for name in index.image_ids[rows][suspect].tolist()]
    soft[suspect] = np.eye(N_CLASSES, dtype=np.float32)[changed[suspect]]
    return TrainRows(rows, changed, soft, None)
