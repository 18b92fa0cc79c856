"""How the memory of a build grows with the number of images.

    python benchmarks/index_memory.py --out docs/results/index_memory.json

Images of noise (32×32 PNG, so that nothing is a duplicate) are written to a temporary folder, and indexed by
the whole command with its defaults. Counted is anonymous memory (Linux: `smaps_rollup`; pages of mapped files are
left out, which the system drops when it needs them), the largest sum over all processes and the largest of the
main one, sampled 20 times a second.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from mien.core.labels import LABELS

BUILD = (sys.executable, *["-m", "mien", "index", "build", "--json"])


def images(root: Path, start: int, stop: int) -> None:
    rng = np.random.default_rng(start)
    for label in LABELS:
        (root / label).mkdir(parents=True, exist_ok=True)
    for k in range(start, stop):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(out, "PNG", compress_level=0)
        (root / LABELS[k % 7] / f"{k:07}.png").write_bytes(out.getvalue())


def anonymous(process: psutil.Process) -> int:
    """Bytes."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Anonymous:")), 0)


def build(root: Path, out: Path) -> dict[str, float]:
    command = [*BUILD, "--source", f"folder={root}", "--out", str(out)]
    start = time.perf_counter()
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    main, largest, together = psutil.Process(run.pid), 0, 0
    while run.poll() is None:
        mine = anonymous(main)
        try:
            others = [anonymous(child) for child in main.children(recursive=True)]
        except psutil.Error:
            others = []
        largest, together = max(largest, mine), max(together, mine + sum(others))
        time.sleep(0.05)
    if run.returncode:
        raise SystemExit(f"the build failed: {command}")
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "main_mib": round(largest / 2**20),
        "all_processes_mib": round(together / 2**20),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 40_000, 80_000])
    given = parser.parse_args()
    rows, folder, done = [], Path(tempfile.mkdtemp()), 0
    try:
        for size in sorted(given.sizes):
            images(folder / "f", done, size)
            done = size
            rows.append({"pictures": size, **build(folder / "f", folder / "i")})
            shutil.rmtree(folder / "i")
            print(rows[-1], flush=True)
    finally:
        shutil.rmtree(folder)
    counts, used = [r["pictures"] for r in rows], [r["main_mib"] for r in rows]
    per_row = float(np.polyfit(counts, used, 1)[0]) * 2**20
    given.out.write_text(
        json.dumps({"sizes": rows, "bytes_a_row_in_the_main_process": round(per_row)}, indent=2) + "\n"
    )
    print(f"{per_row:.0f} bytes a row in the main process")


if __name__ == "__main__":
    main()
