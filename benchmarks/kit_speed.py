"""How fast the kit is: five models of 20,000 images from logits to a selection; and the fit of T beside netcal's.

    python benchmarks/kit_speed.py --out docs/results/kit_speed.json

Counted: five temperatures with intervals, all pairs and triples in both pools with searched weights that must
beat equal ones, their temperatures, and 1,000 bootstrap draws of the basic metrics of all of them with the
selection. Beside it, by themselves: the choice among temperature, vector and Dirichlet scaling, the smooth ECE's
interval, and netcal's temperature on the same rows in the same run.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import combinations
from pathlib import Path

import numpy as np

from mien.core.artifacts.run import environment
from mien.evaluate.bootstrap import smooth_ece_resampled
from mien.evaluate.estimators import calib_rows
from mien.evaluate.metrics import nll_rows, softmax
from mien.evaluate.pooling import fit_pool, pooled_logits
from mien.evaluate.scaling import choose
from mien.evaluate.selection import Candidate, select
from mien.evaluate.temperature import fit_temperature

POOLS = ("probability", "logit")


def models(n: int, seed: int, count: int = 5) -> tuple[list[np.ndarray], np.ndarray]:
    """Over-confident members with errors of their own and in common."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1.8, (n, 7))
    labels = (softmax(truth).cumsum(1) > rng.random((n, 1))).argmax(1)
    common = rng.normal(0, 0.5, (n, 7))
    return [(1 + i / 2) * (truth + common + rng.normal(0, 0.6 + 0.2 * i, (n, 7))) for i in range(count)], labels


def everything(n: int) -> dict[str, float]:
    """Seconds of each part of the way from logits to a selection."""
    calib, labels = models(n, 0)
    val, val_labels = models(n, 1)
    marks = [time.perf_counter()]
    rows = [calib_rows(z, labels, split="calib") for z in calib]
    own = [fit_temperature(r.part("temperature")).value for r in rows]
    marks.append(time.perf_counter())
    candidates = []
    for size in (1, 2, 3):
        for group in combinations(range(len(calib)), size):
            for pool in POOLS if size > 1 else POOLS[:1]:
                t = [own[i] for i in group]
                fitted = fit_pool([rows[i] for i in group], t, pool)
                z = pooled_logits([val[i] for i in group], fitted.weights, t, pool) / fitted.temperature.value
                candidates.append(Candidate("+".join(map(str, group)) + pool, softmax(z), 1))
    marks.append(time.perf_counter())
    chosen = select(candidates, val_labels, resamples=1000)
    marks.append(time.perf_counter())
    parts = dict(zip(("temperatures", "pools", "bootstrap and selection"), np.diff(marks).tolist(), strict=True))
    return parts | {"total": marks[-1] - marks[0], "candidates": len(candidates), "selected": chosen.name}


def beside(n: int) -> dict[str, float]:
    """What is timed apart, and netcal's fit of T on the same rows."""
    (z, *_), labels = models(n, 0)
    rows = calib_rows(z, labels, split="calib")
    marks = [time.perf_counter()]
    ours = fit_temperature(rows, resamples=0).value
    marks.append(time.perf_counter())
    fit_temperature(rows, resamples=200)
    marks.append(time.perf_counter())
    choose(rows, ours)
    marks.append(time.perf_counter())
    smooth_ece_resampled(softmax(z / ours), labels, resamples=200)
    marks.append(time.perf_counter())
    from mien.nn.torchvision_cure import import_timm

    import_timm()  # netcal imports torchvision
    from netcal.scaling import TemperatureScaling

    p = softmax(z)
    marks.append(time.perf_counter())
    theirs = TemperatureScaling(method="mle")
    theirs.fit(p, labels)
    marks.append(time.perf_counter())
    q = theirs.transform(p)
    out = dict(
        zip(
            (
                "fit of T",
                "fit of T with its interval",
                "choice of scaling",
                "smooth ECE, 200 draws",
                "import of netcal",
                "netcal's fit of T",
            ),
            np.diff(marks).tolist(),
            strict=True,
        )
    )
    return out | {
        "T": ours,
        "nll": float(nll_rows(softmax(z / ours), labels).mean()),
        "netcal_nll": float(nll_rows(np.asarray(q, dtype=float), labels).mean()),
    }


def main() -> None:
    """Time it a few times and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    runs = [everything(args.pictures) for _ in range(args.rounds)]
    apart = [beside(args.pictures) for _ in range(args.rounds)]
    document = {
        "models": 5,
        "pictures": args.pictures,
        "rounds": runs,
        "apart": apart,
        "median_total_s": float(np.median([r["total"] for r in runs])),
        "environment": environment(("numpy", "scipy", "netcal", "torch")),
    }
    print(json.dumps(document, indent=1))
    args.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
