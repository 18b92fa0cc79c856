"""Frames a second of `mien video` over a folder, beside as many independent `mien live` processes as it has workers.

    python benchmarks/videos.py --video VIDEO --out docs/results/videos.json

The folder holds one video several times under different names. `mien live` logs its table and draws nothing; each
process works through its share of the folder. Both are timed as a whole, start and tables included, in turn, several
times.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mien.core.artifacts.run import environment

MIEN = [sys.executable, "-m", "mien"]


def seconds(commands: list[list[str]]) -> float:
    """Wall time of shell-free command lines that run side by side."""
    began = time.perf_counter()
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for command in commands]
    if any(process.wait() for process in running):
        raise SystemExit(f"one of {commands} failed")
    return time.perf_counter() - began


def live(videos: list[Path], out: Path, workers: int) -> list[list[str]]:
    """A process a worker, which runs `mien live` on its share of the videos, one after the other, and starts once."""
    program = (
        "import sys; from mien.cli import run\n"
        "for k, name in enumerate(sys.argv[2:]):\n"
        "    assert run(['live', '--input', name, '--log', f'{sys.argv[1]}_{k}.parquet', '--json']) == 0"
    )
    return [[sys.executable, "-c", program, str(out / str(k)), *map(str, videos[k::workers])] for k in range(workers)]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    workers = len(os.sched_getaffinity(0))
    os.environ["OMP_NUM_THREADS"] = "1"
    taken: dict[str, list[float]] = {"video": [], "live": []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "videos"
        folder.mkdir()
        videos = [folder / f"{k:02d}{options.video.suffix}" for k in range(options.videos)]
        for path in videos:
            path.write_bytes(options.video.read_bytes())
        for repeat in range(options.repeats):
            out = Path(place) / f"video{repeat}"
            taken["video"].append(seconds([[*MIEN, "video", str(folder), "--out", str(out), "--json"]]))
            logs = Path(place) / f"live{repeat}"
            logs.mkdir()
            taken["live"].append(seconds(live(videos, logs, workers)))
        frames = sum(json.loads(path.read_text())["frames"] for path in out.rglob("summary.json"))
    ratios = [b / a for a, b in zip(taken["video"], taken["live"], strict=True)]
    result = {
        "videos": options.videos,
        "frames": frames,
        "workers": workers,
        "seconds": {name: [round(value, 1) for value in values] for name, values in taken.items()},
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "load": os.getloadavg(),
        "environment": environment(("onnxruntime", "opencv-python-headless", "numpy")),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
