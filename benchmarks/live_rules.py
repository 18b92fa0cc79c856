"""Where the defaults of `live.json` come from: label flips against delay, on composed steps.

    python benchmarks/live_rules.py --model MODEL.onnx --faces FILE --run RUN --out docs/results/live_rules.json

Faces of PublicTest (val: nothing here is test) on whose class at least eight of ten voters of FER+ agree are shown
in turn, three seconds each, 24 frames a second, with the tremor that a detector's boxes have and the noise of a
camera. *Delay*: seconds from a step until its class is said, the median over all steps (never said counts as
infinite). *Flips*: changes of the label beyond the one that a step asks for, a minute. `--video` gives frame tables of
`mien live` besides, whose smoothed flips a minute are counted. `--run`, the evaluated run that the model was exported
from, gives predictions of test: each face stands before the camera for a second, and *false positive rates* are the
shares of other classes' faces that are called a class, with the rules of `live.json` and by the likeliest class alone.
Nothing is chosen by them.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from mien.core.artifacts.calibration import read_calibration
from mien.core.artifacts.evaluation import read_evaluation
from mien.core.artifacts.predictions import predictions_path, read_predictions
from mien.core.config.live import SHIPPED_RULES, LiveRules
from mien.core.errors import SplitError
from mien.core.labels import LABELS
from mien.evaluate.scaling import Scaling
from mien.runtime.policy import LabelPolicy, thresholds_of
from mien.runtime.recognizer import open_session
from mien.stages import replay

FERPLUS = {
    "neutral": "neutral",
    "happy": "happiness",
    "surprise": "surprise",
    "sad": "sadness",
    "angry": "anger",
    "disgust": "disgust",
    "fear": "fear",
}
RATE, SECONDS = 24, 3.0
GRID = {
    "filter": [
        {"filter": "one_euro", "cutoff": c, "beta": b} for c, b in itertools.product((0.5, 0.8, 1.2), (0.1, 0.3))
    ]
    + [{"filter": "ema", "time_constant": t} for t in (0.15, 0.25, 0.4)]
    + [{"filter": "none"}],
    "dwell": [0.1, 0.2, 0.25, 0.3],
    "hysteresis": [0.05, 0.15],
}


def known_faces(path: Path, each: int, rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """Up to `each` face crops of each class of PublicTest, with a clear majority of FER+'s voters."""
    columns = ["usage", "image", *(f"ferplus_{name}" for name in FERPLUS.values())]
    rows = [row for row in pq.read_table(path, columns=columns).to_pylist() if row["usage"] == "PublicTest"]
    found = {}
    for label, name in FERPLUS.items():
        clear = [row for row in rows if row[f"ferplus_{name}"] >= (6 if label == "disgust" else 8)]
        chosen = rng.permutation(len(clear))[:each]
        found[label] = [np.asarray(Image.open(io.BytesIO(clear[k]["image"])).convert("L")) for k in chosen]
    return found


def step(face: np.ndarray, size: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """One face for some frames as crops (n, size, size, 3): moved, scaled, lit and noisy as in front of a camera."""
    out, tremor = np.empty((frames, size, size, 3), np.uint8), np.zeros(4)
    scale = size / face.shape[0]
    for k in range(frames):
        tremor = 0.8 * tremor + rng.normal(0, (0.3, 0.3, 0.01, 3.0))  # pixels, pixels, scale, grey values
        zoom, middle = scale * (1 + tremor[2]), size / 2
        move = np.array(
            [[zoom, 0, middle - zoom * 24 + scale * tremor[0]], [0, zoom, middle - zoom * 24 + scale * tremor[1]]]
        )
        moved = cv2.warpAffine(face, move, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        noisy = moved + tremor[3] + rng.normal(0, 4, moved.shape)
        out[k] = np.clip(noisy, 0, 255)[..., None]
    return out


def compose(model: Path, faces: Path, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (n, 7) of all frames, the class of each step, and the model's thresholds."""
    rng = np.random.default_rng(seed)
    session, card = open_session(model, 1)
    known = known_faces(faces, 12, rng)
    classes: list[int] = []
    while len(classes) < steps:
        c = int(rng.integers(len(LABELS)))
        if known[LABELS[c]] and (not classes or c != classes[-1]):
            classes.append(c)
    logits = []
    for c in classes:
        face = known[LABELS[c]][int(rng.integers(len(known[LABELS[c]])))]
        crops = step(face, card.crop.size, round(RATE * SECONDS), rng)
        logits += [session.run(["logits"], {"crops": part})[0] for part in np.array_split(crops, 9)]
    return np.concatenate(logits), np.array(classes), card.decisions.thresholds


def judge(logits: np.ndarray, classes: np.ndarray, rules: LiveRules, thresholds: np.ndarray) -> dict[str, float]:
    """Delay and flips under one set of rules."""
    policy = LabelPolicy(rules, thresholds_of(rules, thresholds))
    said = [policy.update(z, k / RATE)[1] for k, z in enumerate(logits)]
    length = round(RATE * SECONDS)
    delays, flips = [], 0
    for k, c in enumerate(classes):
        part, before = said[k * length : (k + 1) * length], said[max(0, k * length - 1)]
        delays.append(part.index(LABELS[c]) / RATE if LABELS[c] in part else np.inf)
        flips += max(0, sum(a != b for a, b in zip([before, *part], part, strict=False)) - 1)
    right = np.mean([s == LABELS[c] for s, c in zip(said, np.repeat(classes, length), strict=True)])
    return {
        "median_delay_s": round(float(np.median(delays)), 3),
        "never_said": int(np.isinf(delays).sum()),
        "flips_per_minute": round(flips / (len(said) / RATE / 60), 2),
        "accuracy": round(float(right), 4),
        "unsure": round(float(np.mean([s is None for s in said])), 4),
    }


def false_positive_rates(run: Path, model: Path) -> dict[str, dict[str, float]]:
    """{class: shares of other classes' test faces called it, and of its own}, with the live rules and without them."""
    read_evaluation(run)  # raises where test was not opened by `mien evaluate`
    test = read_predictions(predictions_path(run, "test"), allow_test=True)
    card = open_session(model, 1)[1]
    weights = test.meta["weights_hash"]
    if weights not in (card.weights_hash, card.quantized_from):
        raise SplitError(f"{model} was not exported from {run}.", fix="Name the run that it was made of.")
    rules = LiveRules()
    thresholds = thresholds_of(rules, card.decisions.thresholds)
    fitted = read_calibration(run / "calibration.json", weights_hash=weights)
    calibrated = Scaling(fitted.method, np.array(fitted.matrix), np.array(fitted.bias)).apply(test.logits)
    answers = []
    for z in calibrated:
        policy = LabelPolicy(rules, thresholds)
        answers.append([policy.update(z, k / RATE)[1] for k in range(RATE)][-1])
    likeliest = [LABELS[c] for c in calibrated.argmax(1)]
    out = {}
    for c, name in enumerate(LABELS):
        own = test.labels == c
        of = {"rules": np.array([a == name for a in answers]), "likeliest": np.array([a == name for a in likeliest])}
        out[name] = {f"false_positives_{how}": float(hit[~own].mean()) for how, hit in of.items()}
        out[name] |= {f"recall_{how}": float(hit[own].mean()) for how, hit in of.items()}
    return out


def main() -> None:
    """Sweep, print a table, write the JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--video", type=Path, nargs="*", default=[])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    logits, classes, thresholds = compose(given.model, given.faces, given.steps, given.seed)
    rows = []
    for changes, dwell, hysteresis in [({}, None, None), *itertools.product(*GRID.values())]:
        rules = changes if dwell is None else changes | {"dwell": dwell, "hysteresis": hysteresis}
        row = {"rules": rules or "live.json", **judge(logits, classes, LiveRules(**rules), thresholds)}
        row["video_flips_per_minute"] = [
            replay.run(v, LiveRules(**rules).model_dump())["flips_per_minute"]["smoothed"] for v in given.video
        ]
        rows.append(row)
        print(
            row["median_delay_s"], row["flips_per_minute"], row["accuracy"], row["video_flips_per_minute"], row["rules"]
        )
    done = {
        "model": open_session(given.model, 1)[1].name,
        "steps": given.steps,
        "frames_per_second": RATE,
        "seconds_a_step": SECONDS,
        "live_json": SHIPPED_RULES,
        "rows": rows,
        "test": false_positive_rates(given.run, given.model) if given.run else {},
    }
    if given.out:
        given.out.write_text(json.dumps(done, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
