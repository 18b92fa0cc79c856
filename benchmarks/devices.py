"""What two processes with half the batch each change, on CPUs through gloo.

    python benchmarks/devices.py --out docs/results/devices.json

A ViT and the small CNN (batch norm) are trained on 1,400 drawn faces for 20 epochs in fp32, once in one process and
once in two (`torchrun --nproc-per-node 2`). Given are the largest difference of an epoch's training loss and the
metrics on val of both. Two more seeds in one process show how much the seed alone changes.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

COMMON = [
    "--batch-size",
    "64",
    "--epochs",
    "20",
    "--amp",
    "no",
    "--drop-path",
    "0",
    "--drop-rate",
    "0",
    "--eval-every",
    "20",
]
NETWORKS = {"vit_tiny": ["--patch-size", "16"], "cnn": []}


def train(index: Path, out: Path, backbone: str, seed: int, processes: int) -> list[dict[str, Any]]:
    start = (
        [sys.executable]
        if processes == 1
        else [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    )
    command = [
        *start,
        "-m",
        "mien",
        "train",
        "--index",
        str(index),
        "--out",
        str(out),
        "--backbone",
        backbone,
        "--seed",
        str(seed),
        *NETWORKS[backbone],
        *COMMON,
    ]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) // processes))}
    subprocess.run(command, check=True, capture_output=True, env=os.environ | threads)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    from mien.core.artifacts.run import environment

    found = {}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        subprocess.run(
            [
                sys.executable,
                "-m",
                "mien",
                "index",
                "build",
                "--source",
                "synthetic=1400",
                "--size",
                "32",
                "--out",
                str(root / "i"),
            ],
            check=True,
            capture_output=True,
        )
        for backbone in NETWORKS:
            runs = {
                f"{p} processes, seed {s}": train(root / "i", root / f"{backbone}{p}{s}", backbone, s, p)
                for p, s in ((1, 0), (2, 0), (1, 1), (1, 2))
            }
            one, two = runs["1 processes, seed 0"], runs["2 processes, seed 0"]
            found[backbone] = {
                "largest_difference_of_an_epochs_loss": max(
                    abs(a["train_loss"] - b["train_loss"]) for a, b in zip(one, two, strict=True)
                ),
                "val": {name: lines[-1]["val"] for name, lines in runs.items()},
            }
            print(backbone, json.dumps(found[backbone], indent=1), flush=True)
    document = {
        "command": shlex.join(["python", *sys.argv]),
        "networks": found,
        "environment": environment(),
    }
    if given.out:
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
