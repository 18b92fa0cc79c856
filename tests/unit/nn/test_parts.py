"""Augmentation, sampling, schedule, averaging, backbones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mien.core.config.train import TrainConfig
from mien.core.errors import UsageError
from mien.nn.augment import Augmentation, mixup
from mien.nn.backbones import Preprocess, make_network, parameter_count
from mien.nn.batches import Sampler, step_seed, training_prior
from mien.nn.optim import MovingAverage, lr_at, make_optimizer

PICTURES = torch.randint(0, 256, (16, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_identity_augmentation_is_bit_for_bit():
    assert torch.equal(Augmentation()(PICTURES, generator()), PICTURES)


@pytest.mark.parametrize(
    "strength", [{"flip": True}, {"crop_min": 0.5}, {"rotate": 15.0}, {"jitter": 0.4}, {"erase": 1.0}], ids=str
)
def test_every_strength_acts_stays_in_range_and_repeats(strength):
    augment = Augmentation(**strength)
    a, b, c = augment(PICTURES, generator(1)), augment(PICTURES, generator(1)), augment(PICTURES, generator(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert a.shape == PICTURES.shape
    assert a.float().min() >= 0
    assert a.float().max() <= 255


def test_flip_mirrors_whole_pictures():
    out = Augmentation(flip=True)(PICTURES, generator(3))
    kinds = [torch.equal(o, p) or torch.equal(o, p.flip(2)) for o, p in zip(out, PICTURES, strict=True)]
    assert all(kinds)


def test_mixup_mixes_pictures_and_targets_alike():
    target = torch.eye(7)[torch.arange(16) % 7]
    flat = torch.arange(16).float().view(16, 1, 1, 1).expand(16, 1, 4, 4)
    x, t = mixup(flat, target, 0.4, generator())
    assert t.sum(1) == pytest.approx(torch.ones(16))
    back = t @ torch.zeros(7, 1)
    assert back.shape == (16, 1)
    assert not torch.equal(x, flat)
    same, unchanged = mixup(flat, target, 0.0, generator())
    assert torch.equal(same, flat)
    assert torch.equal(unchanged, target)


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
    assert training_prior(labels, balanced=True) == pytest.approx([1 / 7] * 7)
    assert training_prior(labels, balanced=False) == pytest.approx((np.bincount(labels) / 400).tolist())


def test_ranks_share_a_batch():
    sampler = Sampler(np.arange(64) % 7, 8, 0, balanced=True)
    parts = [sampler.rows(3, rank=r, world=2) for r in range(2)]
    assert sorted(np.concatenate(parts)) == sorted(sampler.rows(3))


def test_seeds_differ_by_step_and_purpose():
    assert len({step_seed(s, t, p) for s in range(4) for t in range(4) for p in range(4)}) == 64


def test_learning_rate():
    c = TrainConfig(lr=1.0, min_lr=0.1, warmup_epochs=2, epochs=12)
    assert [lr_at(e, c) for e in (1, 2, 7, 12)] == pytest.approx([0.5, 1.0, 0.55, 0.1])
    assert lr_at(9, c.model_copy(update={"scheduler": "constant"})) == 1.0


def test_weight_decay_spares_biases_norms_and_scales():
    network = make_network(TrainConfig(backbone="cnn").model_dump(), crop_size=32, color="rgb")
    groups = make_optimizer(network, TrainConfig(weight_decay=0.3)).param_groups
    assert [g["weight_decay"] for g in groups] == [0.3, 0.0]
    assert all(p.ndim >= 2 for p in groups[0]["params"])
    for name, kind in (("sgd", torch.optim.SGD), ("adamw-safe", torch.optim.AdamW), ("adamw", torch.optim.AdamW)):
        assert isinstance(make_optimizer(network, TrainConfig(optimizer=name)), kind)
    safe = make_optimizer(network, TrainConfig(optimizer="adamw-safe"))
    assert (safe.defaults["foreach"], safe.defaults["fused"]) == (False, False)


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
    assert torch.allclose(average.state["weight"], expected)


def test_preprocessing_of_grey():
    rgb = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    grey = Preprocess("grey", 24, 24)
    luma = 0.299 * rgb[:, 0].float() + 0.587 * rgb[:, 1].float() + 0.114 * rgb[:, 2].float()
    assert torch.allclose(grey(rgb), grey(luma.unsqueeze(1)), atol=1e-5)
    assert grey(rgb).shape == (2, 3, 24, 24)
    assert Preprocess("rgb", 32, 24)(rgb).shape == (2, 3, 32, 32)


SMALL = {
    "resnet18": "small",
    "mobilenetv3_small": "small",
    "mobilenetv3_large": "native",
    "efficientnet_b3": "native",
    "convnext_tiny": "small",
    "vit_tiny": "native",
    "cnn": "native",
}


@pytest.mark.parametrize("backbone", SMALL)
def test_backbones_take_two_steps_and_reload(backbone, tmp_path):
    from safetensors.torch import load_file, save_file

    settings = TrainConfig(backbone=backbone, stem=SMALL[backbone]).model_dump()
    torch.manual_seed(0)
    network = make_network(settings, crop_size=48, color="rgb")
    optimizer = make_optimizer(network, TrainConfig(lr=1e-3))
    x, y = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8), torch.eye(7)[:4]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.train()
    for _ in range(2):
        optimizer.zero_grad()
        loss = -(network(x, y, 0.1).log_softmax(1) * y).sum()
        loss.backward()
        optimizer.step()
    assert any(not torch.equal(before[k], v) for k, v in network.state_dict().items())
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    other = make_network(settings, crop_size=48, color="rgb")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    with torch.inference_mode():
        assert torch.equal(network.eval()(x), other.eval()(x))
    assert parameter_count(network) > 50_000


def test_unknown_backbones_name_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'resnet18"):
        make_network(TrainConfig(backbone="resnet_18").model_dump(), crop_size=48, color="rgb")
    with pytest.raises(UsageError, match="No small stem"):
        make_network(TrainConfig(backbone="vit_tiny", stem="small").model_dump(), crop_size=48, color="rgb")
    with pytest.raises(UsageError, match="must fit"):
        make_network(TrainConfig(backbone="vit_tiny", img_size=50).model_dump(), crop_size=48, color="rgb")
