"""What each training flag does to the trainer that it asks for, without a training; the rest is named with its test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from mien.core.artifacts.index import read_index
from mien.core.config.train import TrainConfig
from mien.evaluate.metrics import score_logits
from mien.nn.augment.augmentation import Augmentation
from mien.nn.models.network import make_network
from mien.nn.training.train_rows import train_rows
from mien.nn.training.trainer import Trainer

PLAIN = {
    "backbone": "cnn",
    "batch_size": 32,
    "amp": "no",
    "label_smoothing": 0.0,
    "warmup_epochs": 0,
    "lr": 1e-3,
    "min_lr": 1e-5,
    "epochs": 12,
    "plain_logits_epochs": 0,
    "arcface_warmup_epochs": 0,
}
OFF = {"crop_min": 1.0, "rotate": 0.0, "flip": False, "jitter": 0.0, "erase": 0.0}


@pytest.fixture
def make(small_index, tmp_path):
    """A trainer of settings, on the small index."""
    index, made = read_index(small_index), []

    def one(**settings) -> Trainer:
        config = TrainConfig(**(PLAIN | settings))
        torch.manual_seed(config.seed)
        network = make_network(config, crop_size=32, color=index.crop.color)
        made.append(Trainer(config, index, tmp_path, network, train_rows(config, index), score=score_logits))
        return made[-1]

    yield one
    for trainer in made:
        trainer.batches.close()


def over(trainer, key, *epochs):
    """What the schedule says at these epochs."""
    out = []
    for epoch in epochs:
        trainer.step = round(epoch * trainer.sampler.steps_per_epoch)
        out.append(getattr(trainer.current_schedule(), key))
    return out


# Flags that a schedule follows: (settings, what, at which epochs, its values).
SCHEDULES = [
    ({"lr": 3e-4}, "lr", (0,), (3e-4,)),
    ({"min_lr": 2e-4}, "lr", (12,), (2e-4,)),
    ({"warmup_epochs": 4}, "lr", (1, 2, 4), (2.5e-4, 5e-4, 1e-3)),
    ({"scheduler": "constant"}, "lr", (0, 11), (1e-3, 1e-3)),
    ({"margin": 0.5}, "margin", (0, 6), (0.5, 0.5)),
    ({"margin": 0.5, "plain_logits_epochs": 3}, "margin", (0, 2, 3), (0.0, 0.0, 0.5)),
    ({"margin": 0.5, "arcface_warmup_epochs": 4}, "margin", (0, 2, 4, 6), (0.0, 0.25, 0.5, 0.5)),
    ({"margin": 0.5, "head": "linear"}, "margin", (6,), (0.0,)),
    ({"scale": 10.0, "scale_start": 4.0, "scale_warmup_epochs": 2.0}, "scale", (0, 1, 2), (4.0, 7.0, 10.0)),
    ({"mixing": "mixup", "mix_probability": 0.3}, "mixing", (0, 6), (0.3, 0.3)),
    ({"mixing": "mixup", "mix_warmup_epochs": 4.0}, "mixing", (0, 1, 4), (0.0, 0.25, 1.0)),
    ({"mixing": "mixup", "mix_off_epochs": 2.0}, "mixing", (9, 10, 11), (1.0, 0.0, 0.0)),
    ({"freeze_backbone_epochs": 2}, "frozen", (0, 1, 2), (True, True, False)),
]


@pytest.mark.parametrize(
    ("settings", "what", "epochs", "values"), SCHEDULES, ids=lambda v: "" if callable(v) else str(v)[:60]
)
def test_schedules(make, settings, what, epochs, values):
    assert over(make(**settings), what, *epochs) == pytest.approx(values)


# Flags that shape the trainer: (settings, what of it, its value).
SHAPES = [
    ({"epochs": 5}, lambda t: t.total / t.sampler.steps_per_epoch, 5),
    ({"batch_size": 16}, lambda t: len(t.batches(0, 0.0).images), 16),
    (
        {"optimizer": "sgd"},
        lambda t: (type(t.optimizer.optimizer), t.optimizer.defaults["momentum"]),
        (torch.optim.SGD, 0.9),
    ),
    ({"weight_decay": 0.5}, lambda t: sorted({g["weight_decay"] for g in t.optimizer.param_groups}), [0.0, 0.5]),
    ({"layer_decay": 0.5}, lambda t: min(g["lr_scale"] for g in t.optimizer.param_groups), 0.125),
    ({"ema_decay": 0.9}, lambda t: t.ema.decay, 0.9),
    ({"ema_decay": 0.0}, lambda t: t.ema, None),
    ({"sam_rho": 0.05}, lambda t: t.sam.rho, 0.05),
    (
        {"freeze_backbone_epochs": 1},
        lambda t: len(t.frozen),
        len(list(make_network(TrainConfig(**PLAIN), crop_size=32, color="rgb").backbone.named_parameters())),
    ),
    ({"freeze_backbone_epochs": 1, "freeze_blocks": 1}, lambda t: {n.split(".")[1] for n in t.frozen}, {"0"}),
    ({"amp": "bf16"}, lambda t: t.precision, "bf16"),
    ({"drop_rate": 0.4}, lambda t: t.network.backbone.drop.p, 0.4),
    (
        {"backbone": "hybrid", "drop_path": 0.5},
        lambda t: max(getattr(m, "drop_prob", 0) for m in t.network.modules()),
        0.5,
    ),
    ({"attention": "cbam"}, lambda t: any("cbam" in name for name, _ in t.network.named_modules()), True),
    ({"img_size": 40}, lambda t: t.network.preprocess(torch.zeros(1, 3, 32, 32)).shape[-1], 40),
    ({"backbone": "vit_tiny", "patch_size": 16}, lambda t: t.network.backbone.patch_embed.proj.kernel_size, (16, 16)),
    ({"backbone": "resnet18", "stem": "small"}, lambda t: t.network.backbone.conv1.kernel_size, (3, 3)),
    ({"head": "subcenter", "subcenters": 4}, lambda t: t.network.head.weight.shape[0], 7 * 4),
    ({"head": "linear"}, lambda t: type(t.network.head).__name__, "LinearHead"),
    ({"label_smoothing": 0.7}, lambda t: t.batches(0, 0.0).target.amin().item(), 0.1),
    ({"center_weight": 0.1}, lambda t: t.objective.center.centers.shape[0], 7),
    ({"mixing": "mixup", "mix_alpha": 3.0}, lambda t: int((t.batches(0, 1.0).target > 0).sum(1).max()), 2),
    ({"mixing": "none"}, lambda t: int((t.batches(0, 1.0).target > 0).sum(1).max()), 1),
    ({"minority_boost": 2.0}, lambda t: sorted(set(t.batches.boost.tolist())), [1.0, 2.0]),
    ({"balanced_sampling": False}, lambda t: t.config.balanced, False),
    ({"loss": "balanced_softmax"}, lambda t: t.config.balanced, False),
]


@pytest.mark.parametrize(("settings", "what", "value"), SHAPES, ids=lambda v: "" if callable(v) else str(v)[:60])
def test_shapes(make, settings, what, value):
    found = what(make(**settings))
    assert found == (pytest.approx(value) if isinstance(value, float) else value)


STRENGTHS = [
    {"crop_min": 0.4},
    {"rotate": 30.0},
    {"flip": True},
    {"jitter": 0.5},
    {"erase": 1.0},
    {"clahe": 0.5},
    {"degrade": 0.5},
    {"randaugment": 1, "randaugment_magnitude": 9.0},
]


@pytest.mark.parametrize("strength", STRENGTHS, ids=str)
def test_strengths_of_augmentation_come_as_asked(make, strength):
    """test_augment.py says what each strength does to images."""
    assert make(**(OFF | strength)).batches.augment == Augmentation(**({"randaugment_magnitude": 5.0} | OFF | strength))


def test_a_seed_draws_other_weights_and_another_order(make):
    a, b, again = make(seed=0), make(seed=1), make(seed=0)
    first = [next(t.network.parameters()).detach() for t in (a, b, again)]
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    assert (a.sampler.rows(0) == again.sampler.rows(0)).all()
    assert (a.sampler.rows(0) != b.sampler.rows(0)).any()


def test_the_scale_multiplies_cosines(make):
    x = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        five, ten = (make(scale=s).network.eval()(x) for s in (5.0, 10.0))
    assert torch.allclose(ten, 2 * five, atol=1e-4)


def gradient(trainer):
    """Its first gradient, as one vector, after what `_learn` does to it."""
    batch = trainer.batches(0, 0.0)
    trainer._learn(batch, trainer.current_schedule())
    return torch.cat([p.grad.flatten() for p in trainer.objective.parameters()])


def test_the_gradient_is_clipped_to_the_norm_that_was_asked_for(make):
    free, clipped = gradient(make(clip_grad=0.0)), gradient(make(clip_grad=0.01))
    assert float(clipped.norm()) == pytest.approx(0.01, rel=1e-3)
    assert float(free.norm()) > 0.02
    assert float(torch.nn.functional.cosine_similarity(free, clipped, dim=0)) == pytest.approx(1, abs=1e-3)


def test_the_joint_heads_second_loss_has_the_weight_that_was_asked_for(make):
    losses = []
    for weight in (0.5, 1.0, 1.5):
        trainer = make(head="joint", joint_weight=weight)
        batch = trainer.batches(0, 0.0)
        losses.append(float(trainer._gradient(batch.images, batch.target, None, trainer.current_schedule())[0]))
    assert losses[1] == pytest.approx((losses[0] + losses[2]) / 2, rel=1e-4)
    assert losses[2] > losses[0]


def test_smaller_parts_are_gone_through(make, monkeypatch):
    seen = []
    trainer = make(accumulate=4)
    forward = trainer.objective.forward
    monkeypatch.setattr(trainer.objective, "forward", lambda x, *rest: (seen.append(len(x)), forward(x, *rest))[1])
    gradient(trainer)
    assert seen == [8, 8, 8, 8]


# Where a flag's own test stands: what it does needs a training, or is a function that is tested by itself.
ELSEWHERE = {
    "backbone": "nn/test_backbones.py::test_every_backbone_takes_two_steps_and_reloads",
    "pretrained": "nn/test_backbones.py::test_pretrained_files_are_loaded_with_their_terms",
    "pretrained_license": "nn/test_backbones.py::test_pretrained_files_are_loaded_with_their_terms",
    "init_from": "nn/test_loop.py::test_polishing_starts_from_a_finished_run_of_the_same_index",
    "focal_gamma": "nn/test_heads.py::test_losses_equal_a_naive_loop_and_their_gradients_are_right",
    "logit_adjust_tau": "nn/test_heads.py::test_losses_equal_a_naive_loop_and_their_gradients_are_right",
    "soft_votes": "nn/test_loop.py::test_soft_votes_act_where_there_are_votes",
    "predict_prior": "nn/test_loop.py::test_predicted_priors_are_declared",
    "suspects": "nn/test_doubt.py::test_the_three_treatments",
    "suspect_treatment": "nn/test_doubt.py::test_the_three_treatments",
    "suspect_weight": "nn/test_doubt.py::test_the_three_treatments",
    "hard_share": "nn/test_doubt.py::test_the_hardest_share_against_a_naive_loop",
    "eval_every": "nn/test_loop.py::test_validations_come_as_often_as_asked_and_patience_ends",
    "patience": "nn/test_loop.py::test_validations_come_as_often_as_asked_and_patience_ends",
    "eval_raw": "nn/test_loop.py::test_raw_and_averaged_weights_are_both_looked_at",
    "save_every_steps": "nn/test_loop.py::test_saving_more_often_changes_nothing",
    "tracker": "nn/test_loop.py::test_a_tracker_gets_the_epochs",
}
HERE = {"seed", "clip_grad", "joint_weight", "accumulate"}  # tests of their own above


def test_every_flag_has_a_test_that_says_what_it_does():
    tabled = {key for settings, *_ in (*SCHEDULES, *SHAPES) for key in settings} | {k for s in STRENGTHS for k in s}
    assert set(TrainConfig.model_fields) == tabled | HERE | set(ELSEWHERE)
    for flag, place in ELSEWHERE.items():
        path, name = place.split("::")
        tree = ast.parse((Path(__file__).parents[1] / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{flag}: no {place}"
