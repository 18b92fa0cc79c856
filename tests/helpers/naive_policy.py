"""The rules of `live.json` once more, in plain Python without arrays: the oracle of `tests/data/live_traces.json`.

`python tests/helpers/naive_policy.py` writes the traces anew after the rules themselves were changed.

Format: {"format": 1, "labels": [7 names], "traces": [{"name", "rules": what differs from live.json at the time of
writing, all parameters of smoothing and decision spelled out, "thresholds": [7], "times": [n seconds],
"logits": [n × 7], "probabilities": [n × 7, rounded to 6 digits], "labels": [n names or null]}]}.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

LABELS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
FILE = Path(__file__).parents[1] / "data" / "live_traces.json"
BASE = {
    "filter": "one_euro",
    "cutoff": 0.8,
    "beta": 0.3,
    "speed_cutoff": 1.0,
    "time_constant": 0.25,
    "hysteresis": 0.05,
    "dwell": 0.2,
    "release": 0.1,
    "hold": 0.6,
}


def smoothed(rules: dict, times: list[float], rows: list[list[float]]) -> list[list[float]]:
    """Filtered, centred logits of all frames."""
    out, value, speed = [], [], [0.0] * 7
    for k, row in enumerate(rows):
        middle = sum(row) / 7
        centred = [v - middle for v in row]
        if k == 0 or rules["filter"] == "none":
            value = centred
        else:
            dt = max(1e-6, times[k] - times[k - 1])
            if rules["filter"] == "ema":
                share = 1 - math.exp(-dt / rules["time_constant"])
            else:
                tau = 1 / (2 * math.pi * rules["speed_cutoff"])
                a = 1 / (1 + tau / dt)
                speed = [a * (c - v) / dt + (1 - a) * s for c, v, s in zip(centred, value, speed, strict=True)]
                cutoff = rules["cutoff"] + rules["beta"] * sum(abs(s) for s in speed) / 7
                share = 1 / (1 + 1 / (2 * math.pi * cutoff) / dt)
            value = [share * c + (1 - share) * v for c, v in zip(centred, value, strict=True)]
        out.append(value)
    return out


def wanted(p: list[float], shown: int | None, rules: dict, need: list[float]) -> int | None:
    """The label that one frame asks for."""
    best = p.index(max(p))
    if shown is None:
        return best if p[best] >= need[best] else None
    if best != shown and p[best] >= need[best] and p[best] >= p[shown] + rules["hysteresis"]:
        return best
    return shown if p[shown] + rules["release"] >= need[shown] else None


def decided(rules: dict, times: list[float], probabilities: list[list[float]], need: list[float]) -> list[int | None]:
    """Labels of all frames: what was wanted in each frame since `dwell` ago, found by looking back."""
    shown = wanted(probabilities[0], None, rules, need)
    out, asked, lost_from = [shown], [shown], None
    first = 0  # the first frame that may count for a change
    for k in range(1, len(times)):
        asked.append(wanted(probabilities[k], shown, rules, need))
        if asked[k] == shown:
            lost_from, first = None, k + 1
        else:
            if lost_from is None:
                lost_from = k
            run = k
            while run - 1 >= max(first, lost_from if shown is not None else first) and asked[run - 1] == asked[k]:
                run -= 1
            if times[k] - times[run] >= rules["dwell"]:
                shown, lost_from, first = asked[k], None, k + 1
            elif shown is not None and times[k] - times[lost_from] >= max(rules["hold"], rules["dwell"]):
                shown, lost_from = None, k
        out.append(shown)
    return out


def softmax(row: list[float]) -> list[float]:
    """Probabilities of one row."""
    top = max(row)
    powers = [math.exp(v - top) for v in row]
    return [v / sum(powers) for v in powers]


def replay(rules: dict, thresholds: list[float], times: list[float], logits: list[list[float]]) -> tuple[list, list]:
    """Smoothed probabilities and labels (names or None) of a whole trace."""
    probabilities = [softmax(row) for row in smoothed(rules, times, logits)]
    shown = decided(rules, times, probabilities, thresholds)
    return probabilities, [None if k is None else LABELS[k] for k in shown]


def _logits(rng: random.Random, classes: list[int | None], noise: float, height: float = 3.0) -> list[list[float]]:
    return [[round(rng.gauss(0, noise) + height * (c == k) - 1, 4) for k in range(7)] for c in classes]


def _times(rng: random.Random, n: int, rate: float, jitter: float = 0.0) -> list[float]:
    return [round(k / rate + rng.uniform(0, jitter), 6) for k in range(n)]


def make_traces() -> list[dict]:
    """Inputs of all traces with the oracle's answers."""
    rng = random.Random(15)
    plain = [0.0] * 7
    sure = [0.4, 0.7, 0.6, 0.4, 0.4, 0.6, 0.4]
    steps = [5] * 30 + [3] * 40 + [4] * 30
    rivals = [3] * 20 + [k % 2 * 4 + 1 for k in range(60)]
    gap = [k / 25 + (0.9 if k > 40 else 0) for k in range(90)]
    cases = [
        ("steps", {}, plain, _times(rng, 100, 25), _logits(rng, steps, 0.4)),
        (
            "noise, thresholds, variable frame rate",
            {},
            [0.35] * 7,
            _times(rng, 120, 24, 0.03),
            _logits(rng, [(2, 4, 5)[k // 14 % 3] for k in range(120)], 1.4, 2.0),
        ),
        ("one odd frame", {}, plain, _times(rng, 60, 30), _logits(rng, [3] * 30 + [1] + [3] * 29, 0.2)),
        (
            "unsure, then sure, then unsure",
            {},
            [0.6] * 7,
            _times(rng, 90, 30),
            _logits(rng, [None] * 30 + [6] * 30 + [None] * 30, 0.3),
        ),
        (
            "rivals take turns",
            {"filter": "none", "dwell": 0.3, "hold": 0.8},
            plain,
            _times(rng, 80, 30),
            _logits(rng, rivals, 0.1, 4.0),
        ),
        (
            "a gap, and one time twice",
            {},
            sure,
            gap[:50] + [gap[49]] + gap[50:89],
            _logits(rng, [0] * 40 + [6] * 50, 0.8),
        ),
        ("EMA", {"filter": "ema"}, sure, _times(rng, 100, 25, 0.02), _logits(rng, steps, 0.9)),
        ("no filter", {"filter": "none"}, sure, _times(rng, 100, 25), _logits(rng, steps, 1.0)),
        (
            "no dwell, no hysteresis",
            {"dwell": 0.0, "hysteresis": 0.0, "release": 0.0, "hold": 0.0},
            sure,
            _times(rng, 80, 25),
            _logits(rng, [k // 9 % 7 for k in range(80)], 0.8),
        ),
        (
            "slow camera",
            {"cutoff": 0.3, "beta": 0.05},
            plain,
            _times(rng, 40, 6, 0.05),
            _logits(rng, [2] * 14 + [6] * 26, 1.0),
        ),
    ]
    traces = []
    for name, changes, thresholds, times, logits in cases:
        rules = BASE | changes
        probabilities, labels = replay(rules, thresholds, times, logits)
        rounded = [[round(v, 6) for v in row] for row in probabilities]
        traces.append(
            {
                "name": name,
                "rules": rules,
                "thresholds": thresholds,
                "times": times,
                "logits": logits,
                "probabilities": rounded,
                "labels": labels,
            }
        )
    return traces


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    content = {"format": 1, "labels": LABELS, "traces": make_traces()}
    FILE.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
