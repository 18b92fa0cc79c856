"""Corruptions do what their names say, more so at each strength; groups are counted as a naive loop counts them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from helpers import faces
from mien.core.errors import InputError
from mien.evaluate.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from mien.evaluate.metrics import metrics, softmax
from mien.evaluate.shift import by_group, degradation
from mien.synthetic import draw_face

FACES = np.stack([draw_face(3, i, 48).image for i in range(12)])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_strength_changes_more_and_the_seed_decides(name):
    changes = []
    for strength in STRENGTHS:
        out = corrupt(FACES, name, strength)
        assert out.shape == FACES.shape
        assert out.dtype == np.uint8
        changes.append(np.abs(out.astype(float) - FACES).mean())
        assert (out == corrupt(FACES, name, strength)).all()
    assert changes == sorted(changes)
    assert changes[0] > 0.3
    assert changes[-1] > 1.5 * changes[0]


def test_grey_stays_one_channel_and_each_image_is_its_own():
    grey = FACES[..., :1].copy()
    for name in CORRUPTIONS:
        assert corrupt(grey, name, 3).shape == grey.shape
    noisy = corrupt(np.full((2, 48, 48, 3), 128, np.uint8), "noise", 3)
    assert (noisy[0] != noisy[1]).any()
    assert (noisy[..., 0] == noisy[..., 1]).all()  # luminance noise: grey images stay grey


def test_what_is_covered():
    eyes, mouth = corrupt(FACES, "occlude_eyes", 5), corrupt(FACES, "occlude_mouth", 5)
    assert (eyes[:, 30:] == FACES[:, 30:]).all()
    assert (eyes[:, 12:22] == 96).all()
    assert (mouth[:, :28] == FACES[:, :28]).all()
    assert (mouth[:, 32:42] == 96).all()


def test_a_shifted_box_moves_the_face_within_its_bounds():
    """A dot in the middle stays within strength 3's tenth of the side, and moves in each direction."""
    dots = np.zeros((200, 48, 48, 3), np.uint8)
    dots[:, 23:25, 23:25] = 255
    moved = corrupt(dots, "shifted_box", 3)[..., 0].astype(float)
    places = np.arange(48)
    centre = np.stack([(moved.sum(axis) * places).sum(1) / moved.sum((1, 2)) for axis in (1, 2)]) - 23.5
    assert (
        np.abs(centre).max() < 0.1 * 48 * 1.1 + 0.5
    )  # the shift is in the box's own pixels, enlarged by up to a tenth
    assert (centre.min(1) < -3).all()
    assert (centre.max(1) > 3).all()
    area = moved.sum((1, 2)) / (4 * 255)
    assert area.min() == pytest.approx(1 / 1.21, abs=0.05)
    assert area.max() == pytest.approx(1.21, abs=0.05)


def test_unknown_ones():
    with pytest.raises(InputError, match="Did you mean 'noise'"):
        corrupt(FACES, "noises", 1)
    with pytest.raises(InputError, match="1 to 5"):
        corrupt(FACES, "noise", 6)


def test_degradation_is_paired():
    z, y = faces.simulated(800, seed=1, skill=3.0)
    worse = [softmax(z + np.random.default_rng(s).normal(0, s, z.shape)) for s in (1, 3)]
    rows = degradation(softmax(z), worse, y)
    assert [r["strength"] for r in rows] == [1, 2]
    fall = rows[1]["change"]["accuracy"]
    assert fall["value"] == pytest.approx(metrics(worse[1], y)["accuracy"] - metrics(softmax(z), y)["accuracy"])
    assert fall["ci95"][0] < fall["value"] < fall["ci95"][1] < 0
    same = degradation(softmax(z), [softmax(z)], y)[0]["change"]["macro_f1"]
    assert same["value"] == same["ci95"][0] == same["ci95"][1] == 0


def test_groups_against_a_naive_loop():
    z, y = faces.simulated(400, seed=2)
    p = softmax(z)
    rng = np.random.default_rng(0)
    rows = [
        {"age": str(rng.integers(0, 3)), "name": str(i)} | ({"glasses": "yes"} if i < 5 else {"glasses": "no"})
        for i in range(400)
    ]
    found = by_group(p, y, rows)
    assert set(found) == {"age", "glasses"}  # every image has its own name
    for value, group in found["age"]["groups"].items():
        inside = np.array([row["age"] == value for row in rows])
        assert group["n"] == inside.sum()
        assert group["accuracy"] == pytest.approx((p.argmax(1) == y)[inside].mean())
        assert group["ci95"]["accuracy"][0] < group["accuracy"] < group["ci95"]["accuracy"][1]
        truth = f1_score(y[inside], p.argmax(1)[inside], labels=np.unique(y[inside]), average="macro")
        assert group["macro_f1_present"] == pytest.approx(truth)
    assert found["glasses"]["groups"]["yes"] == {"n": 5}
    assert found["glasses"]["accuracy_gap"] is None


def test_a_class_that_a_group_lacks_costs_nothing():
    """A perfect model: macro-F1 over all seven classes would be .857 where one is absent."""
    y = np.arange(420) % 7
    sex = np.where((y == 1) | (np.arange(420) % 2 == 0), "a", "b")
    group = by_group(np.eye(7)[y], y, [{"sex": s} for s in sex])["sex"]["groups"]["b"]
    assert "disgust" not in group["classes"]
    assert len(group["classes"]) == 6
    assert group["macro_f1_present"] == 1
    assert group["ci95"]["macro_f1_present"] == [1, 1]


def test_groups_and_degradation_resample_near_duplicates_in_whole():
    z, y = faces.simulated(200, seed=2)
    p, copies = softmax(np.repeat(z, 4, 0)), np.repeat(np.arange(200), 4).astype(str)
    rows, labels = [{"sex": "ab"[i // 4 % 2]} for i in range(800)], np.repeat(y, 4)
    widths = [
        np.diff(by_group(p, labels, rows, groups=g)["sex"]["groups"]["a"]["ci95"]["accuracy"]) for g in (None, copies)
    ]
    assert widths[1] > 1.5 * widths[0]
    worse = [p[:, ::-1]]
    widths = [np.diff(degradation(p, worse, labels, groups=g)[0]["change"]["accuracy"]["ci95"]) for g in (None, copies)]
    assert widths[1] > 1.5 * widths[0]
