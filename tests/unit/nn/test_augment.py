"""Augmentation and mixing: against OpenCV and Pillow where they define it, and by their properties."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mien.nn.augment.augmentation import Augmentation
from mien.nn.augment.image_ops import clahe, equalize, warp
from mien.nn.augment.mixing import beta, cutmix, mix, mixup, partners
from mien.nn.augment.randaugment import OPERATIONS
from mien.nn.augment.random_source import BatchRandom, random_for
from mien.nn.augment.webcam import blur, degrade, jpeg

IMAGES = torch.randint(0, 256, (16, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def apply(augment, x, seed=0, boost=None):
    return augment(x, random_for(x, generator(seed)), boost)


def alike(a, b):
    """Equal but for rounding; where an operation cuts at a level, rounding moves single pixels across it."""
    return float(((a - b).abs() > 0.05).float().mean()) < 0.01


def smooth_faces(n=6, size=48):
    """Grey images with soft structure, (n, 1, size, size)."""
    rng = np.random.default_rng(3)
    blurred = [cv2.GaussianBlur(rng.integers(0, 256, (size, size), dtype=np.uint8), (0, 0), 4) for _ in range(n)]
    return torch.from_numpy(np.stack(blurred)[:, None])


def test_identity_augmentation_is_bit_for_bit():
    assert torch.equal(apply(Augmentation(), IMAGES), IMAGES)


STRENGTHS = [
    {"flip": True},
    {"crop_min": 0.5},
    {"rotate": 15.0},
    {"jitter": 0.4},
    {"erase": 1.0},
    {"clahe": 0.5},
    {"randaugment": 2},
    {"degrade": 0.8},
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strength", STRENGTHS, ids=str)
def test_every_strength_acts_stays_in_range_and_repeats(strength, channels):
    x = IMAGES[:, :channels]
    augment = Augmentation(**strength)
    a, b, c = apply(augment, x, 1), apply(augment, x, 1), apply(augment, x, 2)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert a.shape == x.shape
    assert a.float().min() >= 0
    assert a.float().max() <= 255


@pytest.mark.parametrize("strength", STRENGTHS, ids=str)
def test_an_image_is_augmented_alike_in_any_part_of_the_batch(strength):
    augment = Augmentation(**strength)
    whole = apply(augment, IMAGES, 5).float()
    for part in (slice(0, 8), slice(8, 16), slice(3, 6)):
        found = augment(IMAGES[part], BatchRandom(generator(5), 16, part, IMAGES.device)).float()
        assert alike(found, whole[part])


@pytest.mark.parametrize("strength", [s for s in STRENGTHS if "flip" not in s], ids=str)
def test_a_boost_strengthens_single_images(strength):
    augment = Augmentation(**({"randaugment_magnitude": 3.0} | strength))
    boost = torch.ones(16)
    boost[4:] = 2.0
    plain, boosted = apply(augment, IMAGES, 2).float(), apply(augment, IMAGES, 2, boost).float()
    assert alike(plain[:4], boosted[:4])
    if strength != {"erase": 1.0}:  # a certain chance cannot grow
        assert not torch.allclose(plain[4:], boosted[4:], atol=1)


def test_flip_mirrors_whole_images():
    out = apply(Augmentation(flip=True), IMAGES, 3)
    kinds = [(torch.equal(o, p), torch.equal(o, p.flip(2))) for o, p in zip(out, IMAGES, strict=True)]
    assert all(a or b for a, b in kinds)
    assert set(kinds) == {(True, False), (False, True)}


def test_clahe_is_opencvs():
    x = smooth_faces()
    oracle = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(4, 4))
    expected = np.stack([oracle.apply(p[0].numpy()) for p in x]).astype(float)
    found = clahe(x.float())[:, 0].numpy()
    assert np.abs(found - expected).max() < 1.01  # rounding
    assert np.abs(expected - x[:, 0].numpy()).mean() > 15


def test_equalisation_is_opencvs():
    x = smooth_faces()
    expected = np.stack([cv2.equalizeHist(p[0].numpy()) for p in x]).astype(float)
    found = equalize(x.float())[:, 0].numpy()
    assert np.abs(found - expected).max() < 1.01
    assert found.std() > 60
    flat = torch.full((1, 1, 8, 8), 9.0)
    assert torch.equal(equalize(flat), flat)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_of_randaugment(name):
    x = smooth_faces().float()
    one = torch.ones(len(x), 1, 1, 1)
    out = OPERATIONS[name](x, 0.9 * one, one)
    assert out.shape == x.shape
    assert torch.isfinite(out).all()
    assert torch.equal(out, x) == (name == "identity")
    none = OPERATIONS[name](x, 0 * one, one)
    if name not in ("autocontrast", "equalize", "sharpness"):
        assert torch.allclose(none, x, atol=1e-2)


def test_operations_against_pillow_and_numpy():
    x = smooth_faces().float()
    one = torch.ones(len(x), 1, 1, 1)
    expected = np.stack([np.asarray(ImageOps.autocontrast(Image.fromarray(p[0].byte().numpy()))) for p in x])
    assert np.abs(OPERATIONS["autocontrast"](x, one, one)[:, 0].numpy() - expected).max() < 1.01
    assert torch.equal(OPERATIONS["posterize"](x, one, one), (x / 16).floor() * 16)
    assert torch.equal(OPERATIONS["solarize"](x, one, one), torch.where(x > 128, 255 - x, x))
    moved = OPERATIONS["translate_x"](x, one, one)
    assert torch.allclose(moved[..., :40], x[..., 7:47] * 0.8 + x[..., 8:48] * 0.2, atol=0.1)


def test_warp_of_the_identity_changes_nothing():
    theta = torch.eye(2, 3).repeat(16, 1, 1)
    assert torch.allclose(warp(IMAGES.float(), theta), IMAGES.float(), atol=1e-2)


def numbered(n=16):
    """Images that hold their own number, and targets that tell it."""
    return torch.arange(n).float().view(n, 1, 1, 1).expand(n, 1, 8, 8), torch.eye(n)


def test_neighbours_are_partners():
    assert partners(torch.arange(6.0).view(6, 1)).flatten().tolist() == [1, 0, 3, 2, 5, 4]
    assert partners(torch.arange(5.0).view(5, 1)).flatten().tolist() == [1, 0, 3, 2, 4]


def test_mixup_mixes_images_and_targets_alike():
    x, target = numbered()
    mixed, t = mixup(x, target, 0.3)
    assert torch.allclose(t.sum(1), torch.ones(16))
    assert torch.allclose(mixed[:, 0, 0, 0], t @ torch.arange(16.0), atol=1e-5)
    assert mixed[0, 0, 0, 0] == pytest.approx(0.7, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_cutmix_gives_targets_the_area_that_was_replaced(share, y, at):
    x, target = numbered()
    mixed, t = cutmix(x, target, share, y, at)
    assert torch.allclose(mixed.mean((1, 2, 3)), t @ torch.arange(16.0), atol=1e-4)
    assert torch.allclose(t.sum(1), torch.ones(16))
    assert set(mixed[0].unique().tolist()) <= {0.0, 1.0}


def test_mixing_is_as_often_as_asked_and_takes_turns():
    x, target = numbered()

    def kinds(kind, probability):
        seen = []
        for step in range(200):
            mixed, t = mix(
                x, target, kind=kind, alpha=1.0, probability=probability, step=step, generator=generator(step)
            )
            inner = mixed[0].unique()
            seen.append(
                "none" if torch.equal(t, target) else "cut" if len(inner) > 1 or inner.item() in (0.0, 1.0) else "up"
            )
        return seen

    assert set(kinds("none", 1.0)) == {"none"}
    assert 70 < kinds("mixup", 0.5).count("up") < 130
    assert set(kinds("mixup", 1.0)) == {"up"}
    assert "up" not in kinds("cutmix", 1.0)
    turns = kinds("mixcut", 1.0)
    assert set(turns[::2]) == {"up"}
    assert "up" not in turns[1::2]


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 3.0])
def test_shares_are_beta_distributed(alpha):
    from scipy import stats

    g = generator(1)
    drawn = [beta(alpha, g) for _ in range(1500)]
    assert all(0 <= v <= 1 for v in drawn)
    if alpha > 0.1:  # below, a float cannot tell many of them from 1
        assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_jpeg_loses_what_libjpeg_loses():
    """Grey images: the codec's tables, transform and rounding."""
    x, quality = smooth_faces(), (90, 50, 30, 15, 8, 5)
    expected = [
        cv2.imdecode(cv2.imencode(".jpg", p[0].numpy(), [cv2.IMWRITE_JPEG_QUALITY, q])[1], cv2.IMREAD_GRAYSCALE)
        for p, q in zip(x, quality, strict=True)
    ]
    found = jpeg(x.float(), torch.tensor(quality, dtype=torch.float32))[:, 0].numpy()
    for image, truth, before in zip(found, np.stack(expected).astype(float), x[:, 0].numpy(), strict=True):
        assert (
            np.abs(image - truth).mean() < 0.1 * np.abs(before - truth).mean() + 0.3
        )  # integer transforms round otherwise


def test_blur_is_opencvs():
    x, sigma = smooth_faces(), torch.linspace(0.4, 2.4, 6)
    for image, found, s in zip(x, blur(x.float(), sigma), sigma.tolist(), strict=True):
        expected = cv2.GaussianBlur(image[0].numpy().astype(np.float32), (0, 0), s, borderType=cv2.BORDER_REFLECT_101)
        assert np.abs(found[0].numpy() - expected).max() < 0.5


def degraded(x, kind, strength, *, box=0.5):
    """Images with one degradation of five, the box being off by what `box` says (0.5: not at all)."""
    r = torch.full((len(x), 8), 0.3)
    r[:, 0], r[:, 1], r[:, 2], r[:, 3:6] = 0.0, (kind + 0.5) / 5, strength, box
    r[:, 6] = torch.arange(len(x)) / len(x)
    return degrade(x, r, torch.ones(len(x)))


def test_each_degradation_grows_with_its_strength():
    x = smooth_faces(32, 48).float()
    for kind in range(5):
        weak, strong = ((degraded(x, kind, s) - x).abs().mean() for s in (0.05, 0.95))
        assert strong > 1.5 * weak > 0


def test_noise_and_low_light_have_the_spread_they_say():
    x = torch.full((64, 1, 48, 48), 120.0)
    assert float((degraded(x, 2, 0.5) - x).std()) == pytest.approx(21, rel=0.05)
    dark = degraded(x, 4, 0.4)
    light = 120 / 255 * 0.5
    assert float(dark.mean()) == pytest.approx(255 * light, rel=0.02)
    assert float(dark.std()) == pytest.approx(255 * (light / 400) ** 0.5, rel=0.05)


def test_a_box_is_off_by_a_tenth_at_most():
    """A bright pixel moves by no more than the shift and the scale allow."""
    x = torch.zeros(1, 1, 41, 41)
    x[..., 20, 20] = 255
    for box, moved in ((0.5, 0.0), (1.0, 41 * 0.1 / 1.1), (0.0, 41 * 0.1 * 1.1)):
        out = degraded(x, 3, 0.0, box=box)[0, 0]
        row, column = np.unravel_index(int(out.argmax()), out.shape)
        assert abs(abs(int(row) - 20) - moved) <= 1
        assert abs(abs(int(column) - 20) - moved) <= 1


def test_as_many_images_are_degraded_as_the_chance_says():
    x = IMAGES.repeat(40, 1, 1, 1)
    changed = (apply(Augmentation(degrade=0.3), x) != x.float()).flatten(1).any(1).float().mean()
    assert float(changed) == pytest.approx(0.3, abs=0.06)
