"""Training: exact resume, flags that act, divergence, distillation."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mien.core.artifacts.index import read_index
from mien.core.artifacts.run import read_metrics, read_run
from mien.core.config.train import TrainConfig, resolve
from mien.core.errors import TrainingDiverged, UsageError
from mien.evaluate.metrics import score_logits
from mien.nn.loop import Trainer
from mien.stages import train as stage

BASE = {
    "backbone": "cnn",
    "batch_size": 32,
    "epochs": 2,
    "save_every_steps": 3,
    "drop_rate": 0.3,
    "mixup": 0.2,
    "warmup_epochs": 1,
}


def train(index, out, **settings):
    config, origin = resolve(TrainConfig, ("flag", BASE | settings))
    return stage.run(config, origin, index, out)


class Killed(Exception):
    """Stands for SIGKILL: nothing of the trainer's own runs after it."""


@pytest.mark.parametrize("at", [1, 4, 10, 11, 15])
def test_a_run_killed_anywhere_ends_with_the_same_bits(small_index, tmp_path, at, monkeypatch):
    whole = train(small_index, tmp_path / "whole")
    step = Trainer._one_step

    def one(self, progress):
        if self.step == at and not (tmp_path / "once").exists():
            (tmp_path / "once").touch()
            raise Killed
        step(self, progress)

    monkeypatch.setattr(Trainer, "_one_step", one)
    with pytest.raises(Killed):
        train(small_index, tmp_path / "killed")
    again = train(small_index, tmp_path / "killed", save_every_steps=5)
    assert again.weights_hash == whole.weights_hash
    assert read_metrics(again.folder) == read_metrics(whole.folder)
    a, b = (load_file(next((r.folder / "last").glob("*.safetensors"))) for r in (whole, again))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_signal_saves_and_interrupts(small_index, tmp_path, monkeypatch):
    import os
    import signal

    step = Trainer._one_step

    def one(self, progress):
        step(self, progress)
        if self.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_one_step", one)
    with pytest.raises(KeyboardInterrupt):
        train(small_index, tmp_path / "r")
    assert json.loads((tmp_path / "r" / "last" / "state.json").read_text())["step"] in (4, 5)


@pytest.mark.parametrize(
    "change",
    [
        {"head": "linear"}, {"scale": 5.0}, {"margin": 0.5, "plain_logits_epochs": 0, "arcface_warmup_epochs": 0}, {"label_smoothing": 0.0},
        {"balanced_sampling": False}, {"optimizer": "sgd"}, {"lr": 5e-4}, {"weight_decay": 0.5}, {"scheduler": "constant"}, {"warmup_epochs": 0},
        {"min_lr": 5e-4}, {"batch_size": 16}, {"ema_decay": 0.0}, {"clip_grad": 0.01}, {"drop_rate": 0.0}, {"freeze_backbone_epochs": 1},
        {"crop_min": 0.4}, {"rotate": 0.0}, {"flip": False}, {"jitter": 0.0}, {"erase": 0.0}, {"mixup": 0.0}, {"seed": 1}, {"img_size": 40},
        {"amp": "bf16"}, {"plain_logits_epochs": 0}, {"arcface_warmup_epochs": 1, "plain_logits_epochs": 0},
    ],
    ids=lambda c: "+".join(c),
)  # fmt: skip
def test_every_training_flag_acts(small_index, tmp_path_factory, tmp_path, change):
    reference = tmp_path_factory.getbasetemp() / "reference"
    whole = train(small_index, reference, amp="no") if not reference.exists() else read_run(reference)
    other = train(small_index, tmp_path / "r", **({"amp": "no"} | change))
    assert other.weights_hash != whole.weights_hash


def test_saving_more_often_changes_nothing(small_index, tmp_path):
    a = train(small_index, tmp_path / "a", save_every_steps=1)
    b = train(small_index, tmp_path / "b", save_every_steps=1000)
    assert a.weights_hash == b.weights_hash
    assert a.manifest["fingerprint"] == b.manifest["fingerprint"]


def test_soft_votes_act_where_there_are_votes(small_index, tmp_path, monkeypatch):
    from mien.core.artifacts.index import Index

    votes = np.random.default_rng(0).dirichlet(np.ones(7), len(read_index(small_index).table)).astype(np.float32)
    monkeypatch.setattr(Index, "votes", votes)
    assert (
        train(small_index, tmp_path / "a", soft_votes=True).weights_hash
        != train(small_index, tmp_path / "b").weights_hash
    )


def test_a_loss_that_is_not_finite_stops_and_names_the_step(small_index, tmp_path):
    with pytest.raises(TrainingDiverged, match="step"):
        train(
            small_index,
            tmp_path / "r",
            lr=1e30,
            min_lr=0,
            clip_grad=0,
            optimizer="sgd",
            warmup_epochs=0,
            head="linear",
            mixup=0,
        )


def test_the_kept_epoch_is_vals_best_and_its_weights_are_the_averaged_ones(small_index, tmp_path):
    run = train(small_index, tmp_path / "r", epochs=4)
    lines = read_metrics(run.folder)
    best = max(lines, key=lambda line: line["val"]["macro_f1"])
    assert run.manifest["best"] == {"best_epoch": best["epoch"], "best_val_macro_f1": best["val"]["macro_f1"]}
    from mien.nn.inference import load_network
    from mien.nn.predict import predict_logits

    index = read_index(small_index)
    rows = index.rows("val")
    scored = score_logits(predict_logits(load_network(run), index.pixels, rows), index.labels[rows])
    assert scored["macro_f1"] == pytest.approx(best["val"]["macro_f1"], abs=0.02)


def test_a_tracker_gets_the_epochs(small_index, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(small_index, tmp_path / "r", tracker="tensorboard")
    (events,) = (run.folder / "tracker").glob("events*")
    log = EventAccumulator(str(events))
    log.Reload()
    seen = [event.value for event in log.Scalars("val/macro_f1")]
    assert seen == pytest.approx([line["val"]["macro_f1"] for line in read_metrics(run.folder)])


def test_refusals_leave_nothing(small_index, tmp_path):
    for settings, expected in (
        ({"backbone": "resnt18"}, "Did you mean"),
        ({"batch_size": 5000}, "fits into train"),
        ({"backbone": "vit_tiny", "stem": "small"}, "small stem"),
    ):
        with pytest.raises(UsageError, match=expected):
            train(small_index, tmp_path / "r", **settings)
        assert not (tmp_path / "r").exists()


def test_another_run_is_not_overwritten(small_index, tmp_path):
    train(small_index, tmp_path / "r", epochs=1)
    with pytest.raises(UsageError, match="holds something else"):
        train(small_index, tmp_path / "r", epochs=1, seed=5)


def test_the_config_states_where_each_value_came_from(small_index, tmp_path):
    run = train(small_index, tmp_path / "r", epochs=1)
    origin = {k: v["from"] for k, v in run.config["settings"].items()}
    assert origin["epochs"] == "flag"
    assert origin["weight_decay"] == "recipe"
    assert origin["head"] == "built-in"
    assert run.config["training_prior"] == pytest.approx([1 / 7] * 7)


def test_the_distillation_teacher_is_the_ensemble_of_evaluate(small_study):
    from mien.core.artifacts.ensemble import read_ensemble
    from mien.core.artifacts.predictions import predictions_path, read_predictions
    from mien.evaluate.metrics import log_softmax
    from mien.nn.inference import load_network
    from mien.nn.loop import ensemble_teacher

    index = read_index(small_study / "index")
    rows = index.rows("val")
    for pool in ("probability", "logit"):
        folder = small_study / "ensembles" / f"arc+plain.{pool}"
        ensemble = read_ensemble(folder)
        members = [(load_network(read_run(folder / m.run)), m.weight, m.temperature) for m in ensemble.members]
        teach = ensemble_teacher(members, ensemble.pool, ensemble.temperature)
        x = torch.from_numpy(np.array(index.pixels[rows])).permute(0, 3, 1, 2)
        found = teach(x).numpy()
        expected = log_softmax(read_predictions(predictions_path(folder, "val")).logits)
        # the teacher computes in bf16 where the processor does
        assert np.abs(np.exp(found) - np.exp(expected)).max() < 0.03
