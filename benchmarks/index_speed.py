"""How fast an index is built from 48×48 PNG files, end to end, and the hashing beside imagehash.

    python benchmarks/index_speed.py --ferplus FOLDER --out docs/results/index_speed.json
    python benchmarks/index_speed.py --ferplus FOLDER --out speedup.json --against CHECKOUT [--rounds 5] [--workers 1]

With `--against`, builds of this source and of another checkout's take turns, `--rounds` of each, and nothing else is
measured: the medians and ranges of wall time and of processor time, and the other's divided by this one's, round by
round. `--ferplus` is FER+'s folder with its 35,710 PNG files. The build is the whole command in a process of its own
(start, table, reading, decoding, hashing, near-duplicates, splits, packing, audit); files are in the page
cache. The hashes are timed on the same decoded images in one process, one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

BUILD = (sys.executable, *["-m", "mien", "index", "build", "--json"])


def build(ferplus: str, *flags: str, source: Path | None = None) -> dict[str, float]:
    """One build in a process of its own, by this installation or by the source of another checkout."""
    folder = Path(tempfile.mkdtemp())
    command = [*BUILD, "--source", f"ferplus={ferplus}", "--out", str(folder / "i"), *flags]
    environment = os.environ | ({} if source is None else {"PYTHONPATH": str(source / "src")})
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = json.loads(done.stdout)["source_rows"]["ferplus"]
    shutil.rmtree(folder)
    return {
        "pictures": rows,
        "seconds": round(seconds, 2),
        "pictures_per_second": round(rows / seconds),
        "processor_seconds": round(sum(after[:2]) - sum(before[:2]), 2),
    }


def compare(ferplus: str, against: Path, rounds: int, *flags: str) -> dict[str, Any]:
    """Builds of both sources in turns, this one first in every second round."""
    here, runs = Path(__file__).parents[1], {"this": list[dict[str, float]](), "against": list[dict[str, float]]()}
    sources = {"this": here, "against": against}
    for number in range(rounds):
        for name in list(sources)[:: 1 if number % 2 else -1]:
            runs[name].append(build(ferplus, *flags, source=sources[name]))
    out: dict[str, Any] = {"runs": runs}
    for key in ("seconds", "processor_seconds"):
        ratios = [b[key] / a[key] for a, b in zip(runs["this"], runs["against"], strict=True)]
        values = {name: [run[key] for run in found] for name, found in runs.items()} | {"ratio": ratios}
        out[key] = {
            name: {"median": round(median(v), 3), "range": [round(min(v), 3), round(max(v), 3)]}
            for name, v in values.items()
        }
    return out


def hashing(ferplus: str) -> dict[str, float]:
    import imagehash

    from mien.data.duplicates.phash import Hasher

    paths = sorted((Path(ferplus) / "FER2013Train").glob("*.png"))[:4000]
    images = np.stack([np.asarray(Image.open(path).convert("L")) for path in paths])
    rates = {}
    for name, kind in (("whole picture and its mirror image", "plain"), ("52 views", "crops")):
        hasher = Hasher(kind)
        best = 1e9
        for _ in range(3):
            start = time.perf_counter()
            for i in range(0, len(images), 1024):
                hasher(images[i : i + 1024])
            best = min(best, time.perf_counter() - start)
        rates[f"mien, {name}"] = round(len(images) / best)
    start = time.perf_counter()
    for image in images[:1000]:
        imagehash.phash(Image.fromarray(image))
    rates["imagehash.phash"] = round(1000 / (time.perf_counter() - start))
    ratio = {
        f"{k} / imagehash": round(v / rates["imagehash.phash"], 1) for k, v in rates.items() if k.startswith("mien")
    }
    return {"pictures_per_second": rates, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ferplus", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--against", type=Path, help="a checkout of another revision")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", help="processes of both, with --against; by default one a core")
    given = parser.parse_args()
    build(given.ferplus)  # fills the page cache
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
    if given.against is not None:
        flags = [] if given.workers is None else ["--workers", given.workers]
        write(given.out, {"machine": machine, **compare(given.ferplus, given.against, given.rounds, *flags)})
        return
    runs = {
        "default": [build(given.ferplus) for _ in range(3)],
        "near_duplicates plain": [build(given.ferplus, "--near-duplicates", "plain")],
        "near_duplicates off": [build(given.ferplus, "--near-duplicates", "off")],
        "one process": [build(given.ferplus, "--workers", "1")],
    }
    result = {
        "machine": machine,
        "build": runs,
        "hashing_one_core": hashing(given.ferplus),
    }
    write(given.out, result)


def write(path: Path, result: dict[str, Any]) -> None:
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
