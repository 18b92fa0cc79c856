"""Sampling, priors, schedule, optimisers, averaging, preprocessing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mien.core.config.train import TrainConfig
from mien.core.errors import UsageError
from mien.nn.models.network import Preprocess, make_network
from mien.nn.training.objective import TrainingObjective, freeze, frozen_names
from mien.nn.training.optimizers import MovingAverage, SharpnessAware, block_of, layer_scales, lr_at, make_optimizer
from mien.nn.training.pixel_loader import PixelLoader
from mien.nn.training.priors import assumed_prior, shown_prior
from mien.nn.training.sampler import Sampler, step_seed


def make(name="cnn", **changes):
    """A network of 48 px inputs."""
    return make_network(TrainConfig(backbone=name, **changes), crop_size=48, color="rgb")


def objective(name="cnn", **changes):
    settings = TrainConfig(backbone=name, **changes)
    return TrainingObjective(make(name, **changes), settings, torch.full((7,), 1 / 7))


def test_every_row_is_seen_once_an_epoch():
    labels = np.arange(100) % 7
    sampler = Sampler(labels, 10, 0, balanced=False)
    rows = np.concatenate([sampler.rows(s) for s in range(sampler.steps_per_epoch)])
    assert sorted(rows) == list(range(100))
    assert (sampler.rows(13) == Sampler(labels, 10, 0, balanced=False).rows(13)).all()
    assert (sampler.rows(0) != sampler.rows(10)).any()


def test_balanced_sampling_shows_every_class_equally():
    labels = np.repeat(np.arange(7), [5, 10, 20, 40, 80, 100, 145])
    sampler = Sampler(labels, 20, 0, balanced=True)
    seen = np.bincount(
        labels[np.concatenate([sampler.rows(s) for s in range(sampler.steps_per_epoch * 3)])], minlength=7
    )
    assert seen.max() / seen.min() < 1.15


def test_priors():
    labels = np.repeat(np.arange(7), [5, 10, 20, 40, 80, 100, 145])
    one_hot = np.eye(7, dtype=np.float32)[labels]
    natural = shown_prior(one_hot, labels, balanced=False)
    assert natural == pytest.approx(np.bincount(labels) / 400)
    assert shown_prior(one_hot, labels, balanced=True) == pytest.approx([1 / 7] * 7)
    # what the sampler really draws, with soft targets that lean to class 0
    soft = 0.7 * one_hot + 0.3 * np.eye(7, dtype=np.float32)[np.zeros(400, dtype=int)]
    drawn = Sampler(labels, 400, 0, balanced=True)
    seen = np.concatenate([drawn.rows(step) for step in range(40)])
    assert shown_prior(soft, labels, balanced=True) == pytest.approx(soft[seen].mean(0), abs=0.01)
    assert assumed_prior(natural, "cross_entropy", 1.0) == pytest.approx(natural)
    assert assumed_prior(natural, "balanced_softmax", 1.0) == pytest.approx([1 / 7] * 7)
    root = np.sqrt(natural) / np.sqrt(natural).sum()
    assert assumed_prior(natural, "logit_adjusted", 0.5) == pytest.approx(root)


def test_the_feeder_reads_ahead_and_gives_each_steps_images():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), dtype=np.uint8)
    rows = np.arange(10, 50)
    sampler = Sampler(np.arange(40) % 7, 8, 0, balanced=False)
    feeder = PixelLoader(pixels, rows, torch.device("cpu"), sampler.rows, 12)
    for step in (3, 4, 5, 11):
        expected = pixels[rows[sampler.rows(step)]].transpose(0, 3, 1, 2)
        assert np.array_equal(feeder.take(step).numpy(), expected)
    feeder.close()


def test_ranks_share_a_batch():
    sampler = Sampler(np.arange(64) % 7, 8, 0, balanced=True)
    parts = [sampler.rows(3, rank=r, world=2) for r in range(2)]
    assert np.array_equal(np.concatenate(parts), sampler.rows(3))


def test_seeds_differ_by_step_and_purpose():
    assert len({step_seed(s, t, p) for s in range(4) for t in range(4) for p in range(4)}) == 64


def test_learning_rate():
    c = TrainConfig(lr=1.0, min_lr=0.1, warmup_epochs=2, epochs=12)
    assert [lr_at(e, c) for e in (1, 2, 7, 12)] == pytest.approx([0.5, 1.0, 0.55, 0.1])
    assert lr_at(9, c.model_copy(update={"scheduler": "constant"})) == 1.0


def test_weight_decay_spares_biases_norms_scales_and_centres():
    taught = objective(center_weight=0.1)
    groups = make_optimizer(taught, TrainConfig(weight_decay=0.3)).param_groups
    assert sorted(g["weight_decay"] for g in groups) == [0.0, 0.3]
    decayed = next(g for g in groups if g["weight_decay"])["params"]
    assert all(p.ndim >= 2 for p in decayed)
    assert not any(p is taught.center.centers for p in decayed)
    assert sum(len(g["params"]) for g in groups) == len(list(taught.parameters()))
    for name, kind in (("sgd", torch.optim.SGD), ("adamw-safe", torch.optim.AdamW), ("adamw", torch.optim.AdamW)):
        assert isinstance(make_optimizer(taught, TrainConfig(optimizer=name)), kind)
    safe = make_optimizer(taught, TrainConfig(optimizer="adamw-safe"))
    assert (safe.defaults["foreach"], safe.defaults["fused"]) == (False, False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("cnn", "stages.0.0.weight", "stages.2.0.weight"),
        ("hybrid", "stages.0.0.weight", "norm.weight"),
        ("resnet18", "conv1.weight", "layer4.1.conv2.weight"),
        ("convnext_tiny", "stem.0.weight", "head.norm.weight"),
        ("vit_tiny", "cls_token", "norm.weight"),
        ("efficientnet_b3", "conv_stem.weight", "conv_head.weight"),
        ("mobilenetv3_small", "conv_stem.weight", "conv_head.weight"),
    ],
)
def test_layer_decay_falls_from_the_head_to_the_stem(name, first, last):
    backbone = make(name).backbone
    (blocks, depth), scales = block_of(backbone), layer_scales(backbone, 0.5)
    assert set(scales) == {key for key, _ in backbone.named_parameters()}
    assert blocks[first] == min(blocks.values()) == (name == "cnn")  # it has no stem
    assert blocks[last] == max(blocks.values())
    assert blocks[last] in (depth, depth + 1)  # the last block, or what follows it: at the head's rate
    assert scales[last] == (0.5 if blocks[last] == depth else 1.0)
    assert scales[first] == 0.5 ** (depth + 1 - blocks[first])
    assert depth >= 2


def test_a_vits_layers_are_numbered_as_beit_and_mae_do():
    scales = layer_scales(make("vit_tiny").backbone, 0.5)
    assert [scales[f"blocks.{i}.attn.qkv.weight"] for i in (11, 10, 0)] == [0.5, 0.25, 0.5**12]
    assert scales["pos_embed"] == scales["patch_embed.proj.weight"] == 0.5**13
    assert scales["norm.weight"] == 1.0


def test_positions_and_tokens_of_a_vit_do_not_decay():
    taught = objective("vit_tiny")
    free = next(
        g["params"] for g in make_optimizer(taught, TrainConfig(weight_decay=0.3)).param_groups if not g["weight_decay"]
    )
    backbone = taught.network.backbone
    assert all(any(p is q for q in free) for p in (backbone.pos_embed, backbone.cls_token))


def test_a_frozen_backbones_head_learns_at_the_peak_rate_and_the_warm_up_follows():
    c = TrainConfig(lr=1.0, min_lr=0.1, warmup_epochs=2, epochs=14, freeze_backbone_epochs=2)
    assert [lr_at(e, c) for e in (0, 1.9, 3, 4, 9, 14)] == pytest.approx([1.0, 1.0, 0.5, 1.0, 0.55, 0.1])
    partly = c.model_copy(update={"freeze_blocks": 1})
    assert lr_at(1, partly) == 0.5


def test_layer_decay_reaches_the_optimiser():
    groups = make_optimizer(objective(), TrainConfig(layer_decay=0.5)).param_groups
    assert {g["lr_scale"] for g in groups} == {1.0, 0.5, 0.25, 0.125}


def test_freezing_first_blocks_and_all():
    backbone = make("resnet18").backbone
    backbone.train()
    freeze(backbone, frozen_names(backbone, 2))
    learning = {key.split(".")[0] for key, p in backbone.named_parameters() if p.requires_grad}
    assert learning == {"layer3", "layer4"}
    assert not backbone.layer2.training
    assert not backbone.bn1.training
    assert backbone.layer3.training
    freeze(backbone, frozen_names(backbone, 0))
    assert not any(p.requires_grad for p in backbone.parameters())
    backbone.train()
    freeze(backbone, frozenset())
    assert all(p.requires_grad for p in backbone.parameters())
    with pytest.raises(UsageError, match="of 4 blocks"):
        frozen_names(backbone, 9)


def test_sam_takes_the_gradient_at_the_worst_point_nearby():
    w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    (w.square().sum() / 2).backward()  # gradient w, of norm 5
    sam = SharpnessAware([w], 0.5)
    sam.climb()
    assert w.tolist() == pytest.approx([3.3, 4.4], rel=1e-5)
    sam.descend()
    assert w.tolist() == pytest.approx([3.0, 4.0], rel=1e-5)


def test_moving_average_is_the_recurrence():
    network = torch.nn.Linear(2, 2)
    average = MovingAverage(network, 0.9)
    expected = network.weight.detach().clone()
    for step in range(1, 6):
        with torch.no_grad():
            network.weight.add_(step)
        average.update(network, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.weight.detach()
    assert torch.allclose(average.state["weight"], expected, atol=1e-5)


def test_moving_average_without_foreach_is_the_same():
    a, b = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    both = [MovingAverage(a, 0.9, foreach=f) for f in (True, False)]
    for average in both:
        average.update(b, 3)
    assert torch.allclose(both[0].state["weight"], both[1].state["weight"], atol=1e-5)


def test_preprocessing_of_grey():
    rgb = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    grey = Preprocess("grey", 24, 24)
    luma = 0.299 * rgb[:, 0].float() + 0.587 * rgb[:, 1].float() + 0.114 * rgb[:, 2].float()
    assert torch.allclose(grey(rgb), grey(luma.unsqueeze(1)), atol=1e-5)
    assert grey(rgb).shape == (2, 3, 24, 24)
    assert Preprocess("rgb", 32, 24)(rgb).shape == (2, 3, 32, 32)
