"""Small indexes, studies and predictions for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mien.core.artifacts.calibration_rows import CalibrationRows
from mien.core.artifacts.predictions import Predictions
from mien.core.config.index import IndexConfig
from mien.core.labels import LABELS
from mien.stages import index as stage

STUDY = """
name = "small"
seed = {seed}
[expected]
"selected.accuracy" = [0.2, 1.0]
"student.retention_macro_f1" = [2.0, 3.0]
[index]
source = ["synthetic={count}"]
size = 32
[[teachers]]
name = "arc"
backbone = "cnn"
batch_size = 32
epochs = {epochs}
save_every_steps = {save}
[[teachers]]
name = "plain"
backbone = "cnn"
head = "linear"
batch_size = 32
epochs = {epochs}
save_every_steps = {save}
[student]
backbone = "cnn"
batch_size = 32
epochs = {epochs}
save_every_steps = {save}
[ensemble]
resamples = 200
[evaluate]
resamples = 200
corruptions = {corruptions}
corruption_pictures = 60
[calibrate]
resamples = 40
"""


def index(folder: Path, *, count: int = 560, size: int = 32, seed: int = 0) -> Path:
    """Build an index of drawn faces."""
    stage.run(IndexConfig(source=(f"synthetic={count}",), size=size, seed=seed), folder)
    return folder


def study_file(
    path: Path, *, count: int = 1470, epochs: int = 6, seed: int = 0, save: int = 20, corruptions: bool = True
) -> Path:
    """Write a small study."""
    text = STUDY.format(count=count, epochs=epochs, seed=seed, save=save, corruptions=str(corruptions).lower())
    path.write_text(text, encoding="utf-8")
    return path


def simulated(n: int, *, seed: int = 0, sharpness: float = 1.0, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, 7) whose softmax at T = sharpness is exactly calibrated, and labels drawn from it."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, skill, (n, len(LABELS)))
    p = np.exp(true - true.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    labels = (p.cumsum(1) > rng.random((n, 1))).argmax(1)
    return true * sharpness, labels


def predictions(
    logits: np.ndarray, labels: np.ndarray, *, split: str = "calib", head: str = "linear", name: str = "simulated"
) -> Predictions:
    """Predictions of made-up images."""
    ids = np.array([f"{i:064x}" for i in range(len(labels))])
    meta = {"name": name, "weights_hash": "0" * 64, "index": "1" * 64, "scale_in_logits": True, "head": head}
    return Predictions(split, ids, labels.astype(np.int64), logits.astype(np.float64), meta)


def fit_rows(n: int, *, seed: int = 0, sharpness: float = 1.0, skill: float = 1.5) -> CalibrationRows:
    """Calib rows of a simulated model."""
    return CalibrationRows.of(predictions(*simulated(n, seed=seed, sharpness=sharpness, skill=skill)))
