"""The study for a large accelerator, run without one: its networks, and the student from them, learn for two steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from mien.core.artifacts.run import read_metrics
from mien.core.config.index import IndexConfig
from mien.core.config.recipes import recipe, resolve
from mien.core.config.study import load_study, shipped_studies
from mien.core.config.train import TrainConfig
from mien.stages import index, train

STUDY = load_study(shipped_studies() / "fer2013_gpu.toml")
TRAININGS = [(teacher.name, teacher.settings) for teacher in STUDY.teachers] + [("student", STUDY.student)]
# Weights are not downloaded here, and two steps have no last ten epochs.
SHORT = {
    "pretrained": "none",
    "epochs": 1,
    "batch_size": 8,
    "mix_off_epochs": 0,
    "warmup_epochs": 0,
    "freeze_backbone_epochs": 0,
}

pytestmark = [pytest.mark.long, pytest.mark.trains]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 21 train images, three a class."""
    out = tmp_path_factory.mktemp("index") / "index"
    index.run(IndexConfig(source=("synthetic=240",), max_train=21), out)
    return out


@pytest.mark.parametrize(("name", "settings"), TRAININGS)
def test_two_steps(few, tmp_path, name, settings):
    below = recipe(settings["backbone"], "finetune")
    given = {key: value for key, value in (below | settings | SHORT).items() if key in TrainConfig.model_fields}
    config, origin = resolve(TrainConfig, ("study", given))
    train.run(config, origin, few, tmp_path / name)
    (epoch,) = read_metrics(tmp_path / name)
    assert epoch["step"] == 2
    assert epoch["train_loss"] > 0
