"""Do searches for weights and richer calibrations pay? On simulated members whose truth is known.

    python benchmarks/simulation.py --out docs/results/simulation.json

Members see the true log-probabilities of 7 classes through noise of their own and noise they share, and are
over-confident. Calib has 2,000 or 20,000 rows; the held-out NLL is taken on 10,000 others. The raw grid is the
report's: the weights in tenths with the best macro-F1 on all of calib, then a temperature.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from mien.core.artifacts.run import environment
from mien.core.progress import meter
from mien.evaluate.calibration import minimum
from mien.evaluate.estimators import calib_rows
from mien.evaluate.metrics import log_softmax, nll_rows, softmax
from mien.evaluate.pooling import fit_pool, tempered
from mien.evaluate.scaling import choose
from mien.evaluate.weights import combine, search_grid

HELD = 10_000
# own noise of each member, noise shared by all, over-confidence of each
MEMBERS = {
    "three alike": ((1.0, 1.0, 1.0), 0.5, (2.0, 2.0, 2.0)),
    "one better": ((0.6, 1.5, 1.5), 0.5, (2.0, 3.0, 1.5)),
    "one useless": ((1.0, 1.0, 6.0), 0.5, (2.0, 2.0, 4.0)),
    "two copies and one other": ((1.0, 1.0, 1.0), 0.0, (3.0, 3.0, 1.5)),
}
MAPS = {
    "none": (np.eye(7), np.zeros(7)),
    "scales and biases of classes": (np.diag([0.6, 1.5, 1, 1, 0.7, 1.4, 1]), np.array([0.7, -0.7, 0, 0, 0.3, 0, -0.3])),
    "classes that are taken for each other": (np.eye(7) + 0.4 * np.roll(np.eye(7), 1, 1), np.zeros(7)),
}


def members(n: int, kind: str, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """Logits of each member (n, 7), and labels drawn from the truth."""
    noise, shared, sharp = MEMBERS[kind]
    truth = rng.normal(0, 1.8, (n, 7))
    labels = (softmax(truth).cumsum(1) > rng.random((n, 1))).argmax(1)
    common = rng.normal(0, 1, (n, 7))
    own = [rng.normal(0, 1, (n, 7)) for _ in noise]
    if kind == "two copies and one other":
        own[1] = 0.95 * own[0] + np.sqrt(1 - 0.95**2) * own[1]
    return [s * (truth + shared * common + a * e) for s, a, e in zip(sharp, noise, own, strict=True)], labels


def one_pool(n: int, kind: str, pool: str, rng: np.random.Generator) -> dict[str, float]:
    """Held-out NLL of equal weights, our choice and the raw grid."""
    logits, labels = members(n + HELD, kind, rng)
    inside, outside = slice(0, n), slice(n, None)
    rows = [calib_rows(z[inside], labels[inside], split="calib") for z in logits]
    own = [minimum(r.part("temperature").logits, r.part("temperature").labels) for r in rows]
    logs = tempered([z[outside] for z in logits], own)

    def nll(weights: np.ndarray, temperature: float) -> float:
        return float(nll_rows(softmax(combine(logs, weights, pool) / temperature), labels[outside]).mean())

    ours = fit_pool(rows, own, pool, resamples=0, seed=0)
    equal = fit_pool(rows, own, pool, searches=(), resamples=0, seed=0)
    whole = tempered([z[inside] for z in logits], own)
    grid = search_grid(whole, labels[inside], pool)
    return {
        "equal": nll(equal.weights, equal.temperature.value), "ours": nll(ours.weights, ours.temperature.value),
        "grid": nll(grid, minimum(combine(whole, grid, pool), labels[inside])), "searched": float(ours.weighting != "equal"),
    }  # fmt: skip


def one_map(n: int, kind: str, rng: np.random.Generator) -> dict[str, float | str]:
    """Held-out NLL of temperature scaling and of the map that was chosen."""
    matrix, bias = MAPS[kind]
    z = 2 * log_softmax(rng.normal(0, 1.6, (n + HELD, 7)))
    p = softmax(z / 2 @ matrix.T + bias)
    labels = (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)
    rows = calib_rows(z[:n], labels[:n], split="calib").part("temperature")
    t = minimum(rows.logits, rows.labels)
    choice = choose(rows, t)
    held, truth = z[n:], labels[n:]
    return {
        "chosen": choice.scaling.method, "temperature": float(nll_rows(softmax(held / t), truth).mean()),
        "ours": float(nll_rows(softmax(choice.scaling.apply(held)), truth).mean()),
    }  # fmt: skip


def against(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Mean difference over repeats (negative: the first is better), its standard error, and the worst repeat."""
    gap = first - second
    return {"mean": float(gap.mean()), "se": float(gap.std(ddof=1) / np.sqrt(len(gap))), "worst": float(gap.max())}


def main() -> None:
    """Run all settings and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 20_000])
    args = parser.parse_args()
    started, pools, maps = time.perf_counter(), [], []
    with meter("simulation", len(args.rows) * (2 * len(MEMBERS) + len(MAPS)) * args.repeats) as progress:
        for n in args.rows:
            for kind in MEMBERS:
                for pool in ("probability", "logit"):
                    found = []
                    for seed in range(args.repeats):
                        found.append(one_pool(n, kind, pool, np.random.default_rng([seed, n])))
                        progress.advance()
                    v = {key: np.array([f[key] for f in found]) for key in found[0]}
                    pools.append({
                        "rows": n, "members": kind, "pool": pool, "nll_equal": float(v["equal"].mean()), "searched": float(v["searched"].mean()),
                        "ours_less_equal": against(v["ours"], v["equal"]), "ours_less_grid": against(v["ours"], v["grid"]), "grid_less_equal": against(v["grid"], v["equal"]),
                    })  # fmt: skip
                    print(json.dumps(pools[-1]))
            for kind in MAPS:
                found = []
                for seed in range(args.repeats):
                    found.append(one_map(n, kind, np.random.default_rng([seed, n, 7])))
                    progress.advance()
                chosen = {m: sum(f["chosen"] == m for f in found) / len(found) for m in ("temperature", "vector", "dirichlet")}  # fmt: skip
                gap = against(*(np.array([f[key] for f in found]) for key in ("ours", "temperature")))
                maps.append({"rows": n, "planted": kind, "chosen": chosen, "ours_less_temperature": gap})
                print(json.dumps(maps[-1]))
    document = {"repeats": args.repeats, "held_out": HELD, "pools": pools, "maps": maps, "seconds": round(time.perf_counter() - started), "environment": environment(("numpy", "scipy"))}  # fmt: skip
    args.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
