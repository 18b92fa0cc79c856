"""The page's crops against Python's, the page's smoothing and identities against Python's."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.node import node
from mien.core.errors import InputError
from mien.core.geometry import CropSpec, crop_face
from mien.core.labels import LABELS
from mien.runtime.smooth import Smoother
from mien.runtime.track import Tracker
from mien.stages.serve import live_parameters

RNG = np.random.default_rng(3)
WIDTH, HEIGHT = 90, 70
CROP = """
    const { cropFace } = await load("crop.js");
    const image = { data: Uint8ClampedArray.from(given.data), width: given.width, height: given.height };
    return given.boxes.map((box, i) => { const c = cropFace(image, box, given.crop, given.landmarks?.[i]); return c && Array.from(c); });
"""


def picture() -> np.ndarray:
    """Waves and noise, RGB."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = np.stack([120 + 90 * np.sin(x / 7 + k) * np.cos(y / (5 + k)) for k in range(3)], 2)
    return np.clip(waves + RNG.normal(0, 12, waves.shape), 0, 255).astype(np.uint8)


def page_crops(rgb, boxes, spec, landmarks=None):
    rgba = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    given = {
        "data": rgba.ravel().tolist(), "width": rgb.shape[1], "height": rgb.shape[0], "boxes": boxes,
        "crop": spec.model_dump(), "landmarks": landmarks,
    }  # fmt: skip
    found = node(CROP, given)
    return [c if c is None else np.array(c, np.uint8).reshape(spec.size, spec.size, 3) for c in found]


def python_crop(rgb, box, spec, landmarks=None):
    try:
        return crop_face(rgb, tuple(box), spec, landmarks)
    except InputError:
        return None


@pytest.mark.parametrize("size", [16, 24, 48], ids=["down", "both", "up"])
def test_crops_are_those_of_python(size):
    """Whole, half and odd places; inside, over each edge, outside; larger and smaller than the crop."""
    rgb, spec = picture(), CropSpec(size=size, scale=1.1, shift_y=0.03)
    boxes = [
        [20, 15, 30, 36],
        [20.5, 14.5, 29.5, 35.5],
        [-8, -6, 40, 44],
        [70, 50, 33, 30],
        [5, 5, 80, 64],
        [30.2, 20.7, 11.3, 9.9],
        [200, 10, 30, 30],
        [10, 10, 0.4, 20],
    ]
    boxes += RNG.uniform([-20, -20, 6, 6], [80, 60, 60, 60], (24, 4)).tolist()
    for box, ours in zip(boxes, page_crops(rgb, boxes, spec), strict=True):
        theirs = python_crop(rgb, box, spec)
        assert (ours is None) == (theirs is None), box
        if ours is not None:
            assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1, box


def test_crops_with_level_eyes_are_those_of_python():
    rgb, spec = picture(), CropSpec(size=24, align="eyes")
    boxes = [[20.0, 15.0, 30.0, 36.0], [-4.0, 10.0, 40.0, 40.0], [20.0, 15.0, 30.0, 30.0]]
    landmarks = [[[28, 24], [44, 30]], [[30, 20], [10, 28]], [[30, 20], [30, 28]]]
    for box, marks, ours in zip(boxes, landmarks, page_crops(rgb, boxes, spec, landmarks), strict=True):
        theirs = python_crop(rgb, box, spec, np.array(marks, np.float32))
        difference = np.abs(ours.astype(int) - theirs.astype(int))  # OpenCV turns in steps of 1/32 pixel
        assert difference.max() <= 8, box
        assert difference.mean() < 1, box


def test_smoothed_probabilities_and_labels_are_those_of_python():
    """Logits that take turns, with noise, at uneven times, with a gap."""
    live, thresholds = live_parameters(), np.linspace(0.2, 0.5, len(LABELS))
    times = np.cumsum(RNG.uniform(0.01, 0.08, 300))
    times[150:] += 3
    turns = 3 * np.sin(np.arange(300)[:, None] / 13 + np.arange(len(LABELS)))
    logits = turns + RNG.normal(0, 0.7, turns.shape)
    keys = ("cutoff", "beta", "dwell", "hysteresis")
    smoother = Smoother(**{key: live[key] for key in keys}, thresholds=thresholds)
    theirs = [smoother.update(z, t) for z, t in zip(logits, times, strict=True)]
    body = """
        const { Smoother } = await load("smooth.js");
        const smoother = new Smoother(given.live, given.thresholds);
        return given.logits.map((z, i) => smoother.update(z, given.times[i]));
    """
    given = {"live": live, "thresholds": thresholds.tolist(), "logits": logits.tolist(), "times": times.tolist()}
    ours = node(body, given)
    assert [None if one["label"] is None else LABELS[one["label"]] for one in ours] == [label for _, label in theirs]
    assert len({label for _, label in theirs}) > 3
    np.testing.assert_allclose([one["smooth"] for one in ours], [p for p, _ in theirs], rtol=1e-9, atol=1e-12)


def test_identities_are_those_of_python():
    """Three faces that walk, cross, leave and come back."""
    live, frames = live_parameters(), []
    for k in range(120):
        boxes = [[10 + 2 * k, 20, 40, 40], [250 - 2 * k, 24, 40, 44], [100, 200 + 20 * np.sin(k / 9), 50, 50]]
        kept = [box for i, box in enumerate(boxes) if not (i == 2 and (20 < k < 30 or 50 < k < 100))]
        frames.append((k / 20, [kept[i] for i in RNG.permutation(len(kept))]))
    tracker = Tracker(min_overlap=live["min_overlap"], patience=live["patience"])
    theirs = [tracker.update([tuple(box) for box in boxes], time) for time, boxes in frames]
    body = """
        const { Tracker } = await load("track.js");
        const tracker = new Tracker(given.live);
        return given.frames.map(([time, boxes]) => tracker.update(boxes, time));
    """
    assert node(body, {"live": live, "frames": frames}) == theirs
    assert max(max(ids) for ids in theirs) == 3
