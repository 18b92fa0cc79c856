"""The page's crops against Python's, the page's smoothing and identities against Python's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from helpers.node import node
from mien.core.config.live import SHIPPED_RULES, LiveRules
from mien.core.errors import InputError
from mien.core.geometry import CropSpec, crop_face
from mien.core.labels import LABELS
from mien.runtime.detect import Detection
from mien.runtime.track import Tracker

RNG = np.random.default_rng(3)
WIDTH, HEIGHT = 90, 70
CROP = """
    const { cropFace } = await load("crop.js");
    const image = { data: Uint8ClampedArray.from(given.data), width: given.width, height: given.height };
    return given.boxes.map((box, i) => {
        const crop = cropFace(image, box, given.crop, given.landmarks?.[i]);
        return crop && Array.from(crop);
    });
"""


def image() -> np.ndarray:
    """Waves and noise, RGB."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = np.stack([120 + 90 * np.sin(x / 7 + k) * np.cos(y / (5 + k)) for k in range(3)], 2)
    return np.clip(waves + RNG.normal(0, 12, waves.shape), 0, 255).astype(np.uint8)


def page_crops(rgb, boxes, spec, landmarks=None):
    rgba = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    given = {
        "data": rgba.ravel().tolist(),
        "width": rgb.shape[1],
        "height": rgb.shape[0],
        "boxes": boxes,
        "crop": spec.model_dump(),
        "landmarks": landmarks,
    }
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
    rgb, spec = image(), CropSpec(size=size, scale=1.1, shift_y=0.03)
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
    rgb, spec = image(), CropSpec(size=24, align="eyes")
    boxes = [[20.0, 15.0, 30.0, 36.0], [-4.0, 10.0, 40.0, 40.0], [20.0, 15.0, 30.0, 30.0]]
    landmarks = [[[28, 24], [44, 30]], [[30, 20], [10, 28]], [[30, 20], [30, 28]]]
    for box, marks, ours in zip(boxes, landmarks, page_crops(rgb, boxes, spec, landmarks), strict=True):
        theirs = python_crop(rgb, box, spec, np.array(marks, np.float32))
        difference = np.abs(ours.astype(int) - theirs.astype(int))  # OpenCV turns in steps of 1/32 pixel
        assert difference.max() <= 8, box
        assert difference.mean() < 1, box


def test_the_golden_traces_come_out_the_same():
    """The traces that Python replays too (tests/helpers/naive_policy.py made them)."""
    traces = json.loads((Path(__file__).parents[2] / "data" / "live_traces.json").read_text())["traces"]
    body = """
        const { LabelPolicy } = await load("policy.js");
        return given.map(({ rules, thresholds, times, logits }) => {
            const policy = new LabelPolicy(rules, thresholds);
            return logits.map((z, i) => policy.update(z, times[i]));
        });
    """
    for trace, ours in zip(traces, node(body, traces), strict=True):
        labels = [None if one["label"] is None else LABELS[one["label"]] for one in ours]
        assert labels == trace["labels"], trace["name"]
        np.testing.assert_allclose(
            [one["smooth"] for one in ours], trace["probabilities"], atol=2e-6, err_msg=trace["name"]
        )


def walkers():
    """(time, detections) of three faces at an uneven rate: two cross and cover each other, one leaves twice."""
    frames, time = [], 0.0
    for k in range(200):
        boxes = [[10 + 2.5 * k, 20, 40, 40], [510 - 2.5 * k, 24, 40, 44], [100 + 3 * np.sin(k / 5), 300, 50, 50]]
        kept = [
            box
            for i, box in enumerate(boxes)
            if not (i == 2 and (20 < k < 30 or 60 < k < 140)) and not (i == 1 and 96 < k < 104)
        ]
        noisy = [(np.array(box) + RNG.normal(0, 0.4, 4)).tolist() for box in kept]
        found = [{"box": box, "score": float(RNG.uniform(0.65, 1))} for box in noisy]
        frames.append((time, [found[i] for i in RNG.permutation(len(found))]))
        time += RNG.uniform(0.03, 0.05)
    return frames


def test_identities_and_boxes_are_those_of_python():
    frames = walkers()
    body = """
        const { Tracker } = await load("track.js");
        const tracker = new Tracker(given.rules);
        return given.frames.map(([time, found]) => {
            const { due } = tracker;
            return { due, faces: due ? tracker.update(found, time) : tracker.follow(time) };
        });
    """
    tracker, searched = Tracker(LiveRules()), 0
    for (time, found), ours in zip(frames, node(body, {"rules": SHIPPED_RULES, "frames": frames}), strict=True):
        assert ours["due"] == tracker.due
        searched += tracker.due
        detections = [Detection(tuple(one["box"]), one["score"]) for one in found]
        theirs = tracker.update(detections, time) if tracker.due else tracker.follow(time)
        assert [one["id"] for one in ours["faces"]] == [one.face_id for one in theirs]
        boxes = [one.detection.box for one in theirs]
        np.testing.assert_allclose([one["box"] for one in ours["faces"]], boxes, rtol=1e-6, atol=1e-6)
    assert 20 < searched < len(frames)
    assert tracker.identities == 4


def test_assignments_have_the_least_cost():
    cases = [
        RNG.uniform(0, 1, shape).round(3) for shape in [(1, 1), (2, 2), (3, 5), (5, 3), (6, 6), (1, 4), (4, 1)] * 5
    ]
    for costs in cases[::3]:
        costs[costs > 0.7] = 1e6
    ours = node('const { assign } = await load("assign.js"); return given.map(assign);', [c.tolist() for c in cases])
    for costs, columns in zip(cases, ours, strict=True):
        pairs = [(i, j) for i, j in enumerate(columns) if j >= 0]
        assert len(pairs) == len({j for _, j in pairs}) == min(costs.shape)
        assert sum(costs[pair] for pair in pairs) == pytest.approx(costs[linear_sum_assignment(costs)].sum())
