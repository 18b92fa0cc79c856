"""Everything computes on the accelerator, and results come back; the tests' device refuses to be mixed with another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.accelerator import META, accelerator
from mien.core.artifacts.index import read_index
from mien.core.config import DistillConfig, TrainConfig, resolve
from mien.core.labels import N_CLASSES
from mien.evaluate.metrics import score_logits
from mien.nn.devices import compute_device
from mien.nn.distillation.teacher import ensemble_teacher
from mien.nn.models.network import make_network
from mien.nn.predict import predict_logits
from mien.nn.training.run import train_run


def a_network(**settings):
    config, _ = resolve(TrainConfig, ("flag", {"backbone": "cnn", "head": "linear"} | settings))
    return make_network(config, crop_size=32, color="grey")


def test_the_test_device_refuses_a_forgotten_transfer():
    with accelerator() as device, pytest.raises(RuntimeError):
        a_network()(torch.zeros(2, 1, 32, 32, device=device))
    assert compute_device() == torch.device("cpu")


def test_predictions_are_computed_on_the_accelerator_and_come_back():
    pixels = np.zeros((40, 32, 32, 1), np.uint8)
    network, seen = a_network(), []
    network.backbone.register_forward_hook(lambda module, x, y: seen.append((x[0].device, y.device)))
    with accelerator():
        logits = predict_logits(network, pixels, np.arange(40), batch_size=16)
    assert set(seen) == {(META, META)}
    assert isinstance(logits, np.ndarray)
    assert logits.shape == (40, N_CLASSES)
    assert logits.dtype == np.float64


@pytest.mark.parametrize("pool", ["probability", "logit"])
def test_a_teacher_answers_on_the_accelerator(pool):
    members = [(a_network(), 0.5, torch.eye(7), torch.zeros(7)) for _ in range(2)]
    with accelerator() as device:
        taught = ensemble_teacher(members, pool, 1.3, device)(torch.zeros(4, 1, 32, 32, device=device))
    assert taught.device == META
    assert taught.shape == (4, N_CLASSES)


# adamw-safe, since meta has no fused kernels
SMALL = {
    "backbone": "cnn",
    "batch_size": 64,
    "epochs": 1,
    "warmup_epochs": 0,
    "save_every_steps": 5,
    "optimizer": "adamw-safe",
}
RICH = {
    "center_weight": 0.01,
    "mixing": "mixcut",
    "randaugment": 1,
    "clahe": 0.5,
    "minority_boost": 2.0,
    "sam_rho": 0.05,
    "accumulate": 2,
}


@pytest.mark.trains
@pytest.mark.parametrize(
    "settings",
    [RICH, {"loss": "balanced_softmax", "head": "joint", "optimizer": "sgd"}, {"kd_views": 1, "mixing": "mixup"}],
)
def test_a_student_is_taught_on_the_accelerator(small_index, tmp_path, settings):
    """Every step of a distillation, its validations, its saves: not one tensor is left on the CPU."""
    index = read_index(small_index)
    config, origin = resolve(DistillConfig, ("flag", SMALL | settings))
    asked = []

    def load():
        teach = ensemble_teacher([(a_network(), 1.0, torch.eye(7), torch.zeros(7))], "probability", 1.3, META)
        return lambda x: asked.append(x.device) or teach(x)

    with accelerator():
        run = train_run(config, origin, index, tmp_path / "r", "mark", score=score_logits, teacher=load)
    assert run.environment["training"]["device"] == "meta"
    assert run.environment["training"]["steps"] > 1
    assert len(asked) == (2 if "kd_views" in settings else run.environment["training"]["steps"])  # of 256 images each
    assert set(asked) == {META}
