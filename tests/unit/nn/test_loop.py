"""Training: exact resume, flags that act, divergence, distillation."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mien.core.artifacts.index import read_index
from mien.core.artifacts.lock import only_writer
from mien.core.artifacts.run import read_metrics, read_run
from mien.core.config import TrainConfig, resolve
from mien.core.errors import ArtifactError, ConfigError, InputError, TrainingDiverged, UsageError
from mien.core.labels import LABELS
from mien.evaluate.metrics import metrics, score_logits, softmax
from mien.nn.training.train_rows import train_rows
from mien.nn.training.trainer import Trainer
from mien.stages import train as stage

pytestmark = pytest.mark.trains

BASE = {
    "backbone": "cnn",
    "batch_size": 32,
    "epochs": 2,
    "save_every_steps": 3,
    "drop_rate": 0.3,
    "mixing": "mixcut",
    "warmup_epochs": 1,
}


def train(index, out, **settings):
    config, origin = resolve(TrainConfig, ("flag", BASE | settings))
    return stage.run(config, origin, index, out)


def test_two_trainings_of_one_folder_do_not_meet(small_index, tmp_path):
    with only_writer(tmp_path / "r"), pytest.raises(UsageError, match="Another process is writing"):
        train(small_index, tmp_path / "r")
    assert not (tmp_path / "r").exists()
    finished = train(small_index, tmp_path / "r", epochs=1, warmup_epochs=0)
    config, origin = resolve(TrainConfig, ("flag", BASE | {"epochs": 2}))
    with only_writer(tmp_path / "r"), pytest.raises(UsageError, match="Another process is writing"):
        stage.run(config, origin, small_index, tmp_path / "r", replace=True)
    assert read_run(tmp_path / "r").weights_hash == finished.weights_hash


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


def test_saving_more_often_changes_nothing(small_index, tmp_path):
    a = train(small_index, tmp_path / "a", save_every_steps=1)
    b = train(small_index, tmp_path / "b", save_every_steps=1000)
    assert a.weights_hash == b.weights_hash
    assert a.manifest["fingerprint"] == b.manifest["fingerprint"]


def test_soft_votes_act_where_there_are_votes(small_index, tmp_path, monkeypatch):
    from mien.core.artifacts.index import Index

    votes = np.random.default_rng(0).dirichlet(np.ones(7), len(read_index(small_index).table)).astype(np.float32)
    with pytest.raises(InputError, match="no annotators' votes"):
        train(small_index, tmp_path / "none", soft_votes=True)
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
            mixing="none",
        )


def test_the_kept_epoch_is_vals_best_and_its_weights_are_the_averaged_ones(small_index, tmp_path):
    run = train(small_index, tmp_path / "r", epochs=4, amp="no")  # in bf16 a prediction of more images turns
    lines = read_metrics(run.folder)
    best = max(lines, key=lambda line: line["val"]["macro_f1"])
    assert run.manifest["best"] == {"best_epoch": best["epoch"], "best_val_macro_f1": best["val"]["macro_f1"]}
    from mien.nn.inference import load_network
    from mien.nn.predict import predict_logits

    index = read_index(small_index)
    rows = index.rows("val")
    logits = predict_logits(load_network(run), index.pixels, rows)
    scored = score_logits(logits, index.labels[rows])
    assert scored["macro_f1"] == pytest.approx(best["val"]["macro_f1"], abs=0.03)  # a tie or two may turn
    whole = metrics(softmax(logits), index.labels[rows])
    assert scored["per_class_f1"] == whole["per_class_f1"]
    assert [scored[key] for key in scored if key != "per_class_f1"] == pytest.approx(
        [whole[key] for key in scored if key != "per_class_f1"], rel=1e-5, abs=1e-6
    )
    for line in lines:  # each epoch tells what it is made of
        for val in (line["val"], line["val_raw"]):
            assert set(val) == {"accuracy", "macro_f1", "minority_f1", "nll", "ece", "per_class_f1"}
            assert val["macro_f1"] == pytest.approx(np.mean([val["per_class_f1"][name] for name in LABELS]))


def test_a_tracker_gets_the_epochs(small_index, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(small_index, tmp_path / "r", tracker="tensorboard")
    (events,) = (run.folder / "mien").glob("events*")
    log = EventAccumulator(str(events))
    log.Reload()
    seen = [event.value for event in log.Scalars("val/macro_f1")]
    assert len(log.Scalars("val/per_class_f1/fear")) == len(seen)
    assert seen == pytest.approx([line["val"]["macro_f1"] for line in read_metrics(run.folder)])


def test_refusals_leave_nothing(small_index, tmp_path):
    for settings, expected in (
        ({"backbone": "resnt18"}, "Did you mean"),
        ({"batch_size": 5000}, "fits into train"),
        ({"backbone": "vit_tiny", "stem": "small"}, "small stem"),
        ({"backbone": "convnext_tiny", "stem": "native"}, "would see 1x1"),
        ({"tracker": "wandb"}, "pip install wandb"),
        ({"pretrained": "nothing.safetensors"}, "no such file"),
        ({"freeze_blocks": 7, "freeze_backbone_epochs": 1}, "of 3 blocks"),
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
    from mien.nn.distillation.teacher import ensemble_teacher
    from mien.nn.inference import load_network

    index = read_index(small_study / "index")
    rows = index.rows("val")
    for pool in ("probability", "logit"):
        folder = small_study / "ensembles" / f"arc+plain.{pool}"
        ensemble = read_ensemble(folder)
        members = [
            (load_network(read_run(folder / m.run)), m.weight, torch.tensor(m.matrix), torch.tensor(m.bias))
            for m in ensemble.members
        ]
        teach = ensemble_teacher(members, ensemble.pool, ensemble.temperature, torch.device("cpu"))
        x = torch.from_numpy(np.array(index.pixels[rows])).permute(0, 3, 1, 2)
        found = teach(x).numpy()
        expected = log_softmax(read_predictions(predictions_path(folder, "val")).logits)
        # the teacher computes in bf16 where the processor does
        assert np.abs(np.exp(found) - np.exp(expected)).max() < 0.03


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"loss": "balanced_softmax", "balanced_sampling": True}, "twice"),
        ({"freeze_blocks": 1}, "for how long"),
        ({"scale_start": 3.0}, "belong together"),
        ({"pretrained": "timm", "init_from": "x"}, "exclude each other"),
        ({"mixing": "mixup", "batch_size": 33}, "must be even"),
        ({"accumulate": 3, "batch_size": 32}, "multiple of accumulate"),
        ({"sam_rho": 0.1, "amp": "fp16"}, "use bf16"),
        ({"min_lr": 1.0}, "above lr"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, expected):
    with pytest.raises(ConfigError, match=expected):
        resolve(TrainConfig, ("flag", settings))


def test_accumulated_parts_give_the_gradient_of_the_whole(small_index, tmp_path):
    """With a network without batch statistics, parts change nothing but rounding."""
    from mien.nn.models.network import make_network

    gradients = []
    for parts in (1, 4):
        flags = {
            "backbone": "vit_tiny",
            "patch_size": 16,
            "amp": "no",
            "accumulate": parts,
            "drop_path": 0.0,
            "batch_size": 32,
        }
        config, _ = resolve(TrainConfig, ("flag", flags))
        index = read_index(small_index)
        torch.manual_seed(0)
        network = make_network(config, crop_size=32, color=index.crop.color)
        trainer = Trainer(config, index, tmp_path, network, train_rows(config, index), score=score_logits)
        batch = trainer.batches(0, 0.0)
        loss, _ = trainer._gradient(batch.images, batch.target, None, trainer.current_schedule())
        gradients.append((float(loss), [p.grad.clone() for p in trainer.objective.parameters()]))
    (loss, whole), (same, parts) = gradients
    assert same == pytest.approx(loss, rel=1e-4)
    for a, b in zip(whole, parts, strict=True):
        assert torch.allclose(a, b, atol=1e-3 * float(a.abs().max()) + 1e-6, rtol=1e-3)


def test_polishing_starts_from_a_finished_run_of_the_same_index(small_index, tmp_path):
    first = train(small_index, tmp_path / "first", head="linear", epochs=3)
    polished = train(
        small_index,
        tmp_path / "polished",
        head="linear",
        epochs=1,
        init_from=str(first.folder),
        lr=1e-7,
        min_lr=0,
        warmup_epochs=0,
    )
    a, b = (load_file(r.weights) for r in (first, polished))
    assert max(float((a[k] - b[k]).abs().max()) for k in a if "running" not in k and "num_batches" not in k) < 1e-4
    assert polished.config["started_from"]["sha256"] == first.weights_hash
    assert {k for k, v in polished.config["settings"].items() if v["from"] == "recipe"} >= {
        "crop_min",
        "plain_logits_epochs",
    }
    with pytest.raises(UsageError, match="same backbone, stem and head"):
        train(small_index, tmp_path / "r", init_from=str(first.folder), head="arcface")
    from helpers import faces

    with pytest.raises(InputError, match="another index"):
        train(
            faces.index(tmp_path / "other", count=420, size=32, seed=5),
            tmp_path / "r",
            head="linear",
            init_from=str(first.folder),
        )


def test_corrected_terms_reach_a_finished_run_without_training(small_index, tmp_path, monkeypatch):
    """Also through a polish of it; and a kill between the files leaves a training that the same command finishes."""
    from mien.core.artifacts import base

    first = train(small_index, tmp_path / "first", epochs=1, warmup_epochs=0)
    weights = shutil.copy(first.weights, tmp_path / "weights.safetensors")
    start = {"epochs": 1, "warmup_epochs": 0, "pretrained": str(weights)}
    unknown = train(small_index, tmp_path / "r", **start)
    polish = {"epochs": 1, "warmup_epochs": 0, "init_from": str(unknown.folder)}
    polished = train(small_index, tmp_path / "p", **polish)
    assert "state it with --pretrained-license" in unknown.terms[-1]
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "__init__", lambda *a, **k: pytest.fail("it trains again"))
        stated = train(small_index, tmp_path / "r", pretrained_license="CC BY 4.0", **start)
        again = train(small_index, tmp_path / "p", **polish)
        kept = train(small_index, tmp_path / "r", **start)
    assert stated.terms[-1] == kept.terms[-1] == f"starting weights {weights.name}: CC BY 4.0"
    assert stated.settings["pretrained_license"] == "CC BY 4.0"
    assert again.terms[-1].endswith(stated.terms[-1])
    for before, after in ((unknown, stated), (polished, again)):
        assert (after.weights_hash, after.manifest["fingerprint"]) == (
            before.weights_hash,
            before.manifest["fingerprint"],
        )
        assert (
            base.check_file(after.folder, after.manifest, "config.json")
            != before.manifest["files"]["config.json"]["sha256"]
        )
        assert {p.name for p in after.folder.iterdir()} == {p.name for p in before.folder.iterdir()}
    write = base.write_json

    def killed(path, value):
        if path.name == base.MANIFEST:
            raise Killed
        write(path, value)

    with monkeypatch.context() as patched:
        patched.setattr(base, "write_json", killed)
        with pytest.raises(Killed):
            train(small_index, tmp_path / "r", pretrained_license="MIT", **start)
    finished = train(small_index, tmp_path / "r", pretrained_license="MIT", **start)
    assert finished.terms[-1].endswith("MIT")
    assert finished.weights_hash == unknown.weights_hash


def test_the_starting_weights_are_part_of_a_run(small_index, tmp_path):
    first = train(small_index, tmp_path / "first", head="linear", epochs=1)
    a = train(small_index, tmp_path / "a", head="linear", epochs=1, pretrained=str(first.folder))
    assert a.config["started_from"]["license"] == "; ".join(first.terms)
    assert a.config["started_from"]["from"] == "run first"
    from helpers import faces

    elsewhere = faces.index(tmp_path / "other", count=420, size=32, seed=5)
    with pytest.raises(InputError, match="learned on another index"):
        train(elsewhere, tmp_path / "r", head="linear", epochs=1, pretrained=str(first.weights))
    other = train(small_index, tmp_path / "second", head="linear", epochs=1, seed=4)
    with pytest.raises(UsageError, match="holds something else"):
        train(small_index, tmp_path / "a", head="linear", epochs=1, pretrained=str(other.weights))


def test_raw_and_averaged_weights_are_both_looked_at(small_index, tmp_path):
    lines = read_metrics(train(small_index, tmp_path / "a").folder)
    assert all({"val", "val_raw"} <= set(line) for line in lines)
    assert any(line["val"] != line["val_raw"] for line in lines)
    assert not any(
        "val_raw" in line for line in read_metrics(train(small_index, tmp_path / "b", eval_raw=False).folder)
    )


def test_validations_come_as_often_as_asked_and_patience_ends(small_index, tmp_path):
    run = train(small_index, tmp_path / "a", epochs=5, eval_every=2)
    assert [line["epoch"] for line in read_metrics(run.folder) if "val" in line] == [2, 4, 5]
    # With a learning rate of next to nothing the first look stays the best.
    short = train(small_index, tmp_path / "b", epochs=9, lr=1e-12, min_lr=0, warmup_epochs=0, patience=2)
    assert len(read_metrics(short.folder)) < 9
    assert short.manifest["events"][-1]["kind"] == "patience exhausted"


def test_a_divergence_after_a_good_epoch_keeps_its_weights_and_is_recorded(small_index, tmp_path, monkeypatch):
    from mien.nn.training.objective import TrainingObjective

    forward = TrainingObjective.forward

    def broken(self, x, *rest):
        loss, logits = forward(self, x, *rest)
        self.calls = getattr(self, "calls", 0) + 1
        return (loss * float("nan") if self.calls == 15 else loss), logits

    monkeypatch.setattr(TrainingObjective, "forward", broken)
    run = train(small_index, tmp_path / "r", epochs=4)
    (event,) = run.manifest["events"]
    assert event["kind"] == "not finite"
    assert event["step"] == 15
    assert run.manifest["best"]["best_epoch"] == 1
    assert all(v.isfinite().all() for v in load_file(run.weights).values())


def test_a_collapse_is_named_once(small_index, tmp_path, monkeypatch):
    scores = iter([0.5, 0.55, 0.3, 0.2, 0.6])
    import mien.stages.train as module

    monkeypatch.setattr(module, "score_logits", lambda z, y: {"macro_f1": next(scores), "accuracy": 0.5, "nll": 1.0})
    run = train(small_index, tmp_path / "r", epochs=5, eval_raw=False)
    (event,) = run.manifest["events"]
    assert event["kind"] == "collapse of val macro-F1"
    assert (event["epoch"], event["step"]) == (3, read_metrics(run.folder)[2]["step"])
    assert "0.550 (epoch 2) to 0.300" in event["text"]
    assert run.manifest["best"]["best_epoch"] == 5


def test_nan_in_a_saved_state_is_refused(small_index, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    step = Trainer._one_step

    def one(self, progress):
        if self.step == 5:
            raise Killed
        step(self, progress)

    monkeypatch.setattr(Trainer, "_one_step", one)
    with pytest.raises(Killed):
        train(small_index, tmp_path / "r")
    monkeypatch.setattr(Trainer, "_one_step", step)
    (path,) = (tmp_path / "r" / "last").glob("*.safetensors")
    state = load_file(path)
    key = next(k for k in state if k.startswith("lesson.") and state[k].ndim > 1)
    state[key][0] = float("nan")
    save_file(state, path)
    with pytest.raises(ArtifactError, match="NaN or Inf"):
        train(small_index, tmp_path / "r")


def test_an_index_without_val_or_without_a_class_is_refused(small_index, tmp_path, monkeypatch):
    from mien.core.artifacts.index import Index

    rows = Index.rows
    monkeypatch.setattr(Index, "rows", lambda self, split: rows(self, split)[: 0 if split == "val" else None])
    with pytest.raises(InputError, match="no val images"):
        train(small_index, tmp_path / "r")
    monkeypatch.setattr(Index, "rows", rows)
    index = read_index(small_index)
    without = np.where(index.labels == 1, 0, index.labels)
    monkeypatch.setattr(Index, "labels", without)
    with pytest.raises(InputError, match="no train image of: disgust"):
        train(small_index, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_predicted_priors_are_declared(small_index, tmp_path):
    run = train(small_index, tmp_path / "a", epochs=1, loss="balanced_softmax", predict_prior="natural")
    index = read_index(small_index)
    shares = np.bincount(index.labels[index.rows("train")], minlength=7) / len(index.rows("train"))
    assert run.config["training_prior"] == pytest.approx([1 / 7] * 7)
    assert run.config["predicts_prior"] == pytest.approx(shares)
    shift = load_file(run.weights)["prior_shift"].numpy()
    assert shift == pytest.approx(np.log(shares * 7), abs=1e-5)


@pytest.mark.parametrize("at", [17, "last of an epoch"])
def test_weights_that_break_after_a_good_epoch_end_the_run_too(small_index, tmp_path, monkeypatch, at):
    learn = Trainer._learn

    def broken(self, batch, now):
        learn(self, batch, now)
        last = self.step == 3 * self.sampler.steps_per_epoch - 1
        if last if at == "last of an epoch" else self.step == at:  # the loss was finite, the update is not
            with torch.no_grad():
                next(self.network.parameters()).fill_(float("inf"))

    monkeypatch.setattr(Trainer, "_learn", broken)
    run = train(small_index, tmp_path / "r", epochs=4)
    assert [event["kind"] for event in run.manifest["events"]] == ["not finite"]
    assert all(v.isfinite().all() for v in load_file(run.weights).values())
    assert all(
        v.isfinite().all() for path in (run.folder / "last").glob("*.safetensors") for v in load_file(path).values()
    )


def test_each_line_tells_the_margin_and_rate_of_its_own_last_step(small_index, tmp_path):
    run = train(
        small_index,
        tmp_path / "r",
        epochs=4,
        plain_logits_epochs=2,
        arcface_warmup_epochs=0,
        warmup_epochs=0,
        scheduler="constant",
    )
    assert [line["margin"] for line in read_metrics(run.folder)] == [0, 0, 0.2, 0.2]


def test_a_polish_stands_on_the_settings_of_its_run(small_index, tmp_path):
    first = train(small_index, tmp_path / "first", epochs=1, margin=0.4, scale=17.0, drop_rate=0.1)
    config, origin = resolve(TrainConfig, ("flag", {"init_from": str(first.folder)}))
    assert (config.backbone, config.margin, config.scale, config.drop_rate, config.batch_size) == (
        "cnn",
        0.4,
        17.0,
        0.1,
        32,
    )
    assert (config.epochs, origin["epochs"]["from"]) == (8, "recipe")
    assert origin["margin"]["from"] == "run"
    assert resolve(TrainConfig, ("flag", {"init_from": str(first.folder), "margin": 0.1}))[0].margin == 0.1


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"plain_logits_epochs": 3}, "the margin never starts"),
        ({"freeze_backbone_epochs": 2}, "never learns"),
        ({"warmup_epochs": 2}, "never leaves its warm-up"),
        ({"focal_gamma": 1.0}, "focal_gamma does nothing without loss focal"),
        ({"head": "linear", "margin": 0.3}, "margin does nothing without a head with a margin"),
        ({"drop_path": 0.1}, "residual blocks"),
    ],
)
def test_what_is_most_likely_not_meant_is_said(small_index, tmp_path, capsys, flags, expected):
    train(small_index, tmp_path / "r", epochs=2, **({"warmup_epochs": 1} | flags))
    assert expected in capsys.readouterr().err


def test_a_run_goes_on_in_the_precision_it_began_in(small_index, tmp_path, monkeypatch):
    from mien.nn.training import trainer as loop

    step = Trainer._one_step

    def one(self, progress):
        if self.step == 5:
            raise Killed
        step(self, progress)

    monkeypatch.setattr(loop, "pick_precision", lambda *_: "no")
    monkeypatch.setattr(Trainer, "_one_step", one)
    with pytest.raises(Killed):
        train(small_index, tmp_path / "r")
    monkeypatch.setattr(loop, "pick_precision", lambda *_: "bf16")
    with pytest.raises(ArtifactError, match="begun in precision 'no'"):
        train(small_index, tmp_path / "r")
