"""How far the quickstart's figures move with its seed, and with the code path that a processor takes.

    mkdir -p out
    for seed in 0 1 2 3 4; do
      sed "s/^seed = 0/seed = $seed/" studies/quickstart.toml > out/seed$seed.toml
      mien study out/seed$seed.toml --out out/seed$seed
    done
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
      mien study out/seed0.toml --out out/avx2
    python benchmarks/quickstart_seeds.py out/seed? --path avx2=out/avx2 --out docs/results/quickstart_seeds.json

Reads finished studies; trains nothing. `inside` says whether each figure lies in the range that the study file expects.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mien.core.artifacts.base import write_json
from mien.core.artifacts.run import environment
from mien.core.artifacts.study import read_study
from mien.core.config.study import load_study, shipped_studies
from mien.evaluate.expected import compare_expected

METRICS = ("accuracy", "macro_f1", "ece")


def figures(folder: Path) -> dict[str, Any]:
    """A finished study's figures on test, each with whether the shipped study expects it."""
    document = read_study(folder)
    selected = next(e for e in document["ensembles"] if e["name"] == document["selected"]["name"])
    student = document["student"]
    if student is None:
        raise SystemExit(f"{folder} has no student: it is no quickstart.")
    return {
        "seed": document["seed"],
        "selected": {"name": selected["name"], **{name: dict(selected["test"])[name] for name in METRICS}},
        "student": {
            **{name: dict(student["test"])[name] for name in METRICS},
            "retention_macro_f1": student["retention_macro_f1"],
            "retention_ci95": student["retention_ci95"],
        },
        "expected": compare_expected(document, load_study(shipped_studies() / "quickstart.toml").expected),
        "git": document["git"],
    }


def main() -> None:
    """Read, find the ranges, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+", help="finished quickstarts, a seed each")
    parser.add_argument("--path", action="append", default=[], metavar="NAME=FOLDER", help="one under other code paths")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    seeds = sorted((figures(folder) for folder in given.studies), key=lambda one: one["seed"])
    paths = {name: figures(Path(folder)) for name, _, folder in (text.partition("=") for text in given.path)}
    every = [*seeds, *paths.values()]
    ranges = {
        model: {
            name: [min(one[model][name] for one in every), max(one[model][name] for one in every)] for name in names
        }
        for model, names in {"selected": METRICS, "student": (*METRICS, "retention_macro_f1")}.items()
    }
    inside = all(row["inside"] for one in every for row in one["expected"])
    write_json(
        given.out,
        {"seeds": seeds, "paths": paths, "ranges": ranges, "all_inside": inside, "environment": environment()},
    )
    for model, of_model in ranges.items():
        for name, (low, high) in of_model.items():
            print(f"{model}.{name}: {low:.3f} to {high:.3f}")
    print("every figure is inside its expected range" if inside else "a figure is OUTSIDE its expected range")


if __name__ == "__main__":
    main()
