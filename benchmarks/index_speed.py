"""How fast an index is built from 48×48 PNG files, end to end, and the hashing beside imagehash.

    python benchmarks/index_speed.py --ferplus FOLDER --out docs/results/index_speed.json

`--ferplus` is FER+'s folder with its 35,710 PNG files. The build is the whole command in a process of its own
(start, table, reading, decoding, hashing, near-duplicates, splits, packing, audit); files are in the page
cache. The hashes are timed on the same decoded pictures in one process, one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

BUILD = (sys.executable, *["-m", "mien", "index", "build", "--json"])


def build(ferplus: str, *flags: str) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp())
    start = time.perf_counter()
    command = [*BUILD, "--source", f"ferplus={ferplus}", "--out", str(folder / "i"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    rows = json.loads(done.stdout)["source_rows"]["ferplus"]
    shutil.rmtree(folder)
    return {"pictures": rows, "seconds": round(seconds, 2), "pictures_per_second": round(rows / seconds)}


def hashing(ferplus: str) -> dict[str, float]:
    import imagehash

    from mien.data.phash import Hasher

    paths = sorted((Path(ferplus) / "FER2013Train").glob("*.png"))[:4000]
    pictures = np.stack([np.asarray(Image.open(path).convert("L")) for path in paths])
    rates = {}
    for name, kind in (("whole picture and its mirror image", "plain"), ("52 views", "crops")):
        hasher = Hasher(kind)
        best = 1e9
        for _ in range(3):
            start = time.perf_counter()
            for i in range(0, len(pictures), 1024):
                hasher(pictures[i : i + 1024])
            best = min(best, time.perf_counter() - start)
        rates[f"mien, {name}"] = round(len(pictures) / best)
    start = time.perf_counter()
    for picture in pictures[:1000]:
        imagehash.phash(Image.fromarray(picture))
    rates["imagehash.phash"] = round(1000 / (time.perf_counter() - start))
    ratio = {
        f"{k} / imagehash": round(v / rates["imagehash.phash"], 1) for k, v in rates.items() if k.startswith("mien")
    }
    return {"pictures_per_second": rates, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ferplus", required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    build(given.ferplus)  # fills the page cache
    runs = {
        "default": [build(given.ferplus) for _ in range(3)],
        "near_duplicates plain": [build(given.ferplus, "--near-duplicates", "plain")],
        "near_duplicates off": [build(given.ferplus, "--near-duplicates", "off")],
        "one process": [build(given.ferplus, "--workers", "1")],
    }
    result = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "build": runs, "hashing_one_core": hashing(given.ferplus),
    }  # fmt: skip
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
