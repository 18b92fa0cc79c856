"""Do the judges' statistics hold? On simulated members whose truth is known.

    python benchmarks/simulation.py --out docs/results/simulation.json
    python benchmarks/simulation.py --only prior gaps intervals --repeats 100 --out docs/results/calibration.json

Members see the true log-probabilities of 7 classes through noise of their own and noise they share, and are
over-confident. Calib has 2,000 or 20,000 rows; the held-out NLL is taken on 10,000 others. The raw grid is the
report's: the weights in tenths with the best macro-F1 on all of calib, then a temperature.

`prior`: a model that learned other class shares than calib has is calibrated and told the shares of 5,000 other rows.
`gaps`: mean confidence less accuracy on 5,000 other rows, of pools of members with each map, and the gap that remains
at the best temperature for those rows themselves; three times the repeats. `intervals`: how often the interval of the
calibration error holds the true one; ten times the repeats, since a share of 95 % needs them.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path

import numpy as np

from mien.core.artifacts.run import environment
from mien.core.progress import meter
from mien.evaluate.calibration_error import BINS, bin_of, ece_interval
from mien.evaluate.estimators import calib_rows
from mien.evaluate.metrics import log_softmax, nll_rows, softmax
from mien.evaluate.pooling import fit_pool, pooled_logits, tempered
from mien.evaluate.priors import assumed_by
from mien.evaluate.scaling import by_temperature, choose, fit_dirichlet, fit_vector
from mien.evaluate.temperature import minimum
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
        "equal": nll(equal.weights, equal.temperature.value),
        "ours": nll(ours.weights, ours.temperature.value),
        "grid": nll(grid, minimum(combine(whole, grid, pool), labels[inside])),
        "searched": float(ours.weighting != "equal"),
    }


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
        "chosen": choice.scaling.method,
        "temperature": float(nll_rows(softmax(held / t), truth).mean()),
        "ours": float(nll_rows(softmax(choice.scaling.apply(held)), truth).mean()),
    }


UNIFORM = np.full(7, 1 / 7)
CALIB = np.array([0.138, 0.015, 0.142, 0.25, 0.173, 0.168, 0.114])  # about FER2013's
OTHER = np.array([0.05, 0.3, 0.2, 0.1, 0.05, 0.1, 0.2])
SHARES = {"uniform": UNIFORM, "calib's": CALIB, "others": OTHER}
FITS = {
    "temperature": lambda rows: by_temperature(minimum(rows.logits, rows.labels)),
    "vector": fit_vector,
    "dirichlet": fit_dirichlet,
}


def learned(n: int, shares: np.ndarray, prior: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Over-confident logits (n, 7) of the best model that assumes the class shares `prior`; labels with `shares`."""
    centres = np.random.default_rng(5).normal(0, 1, (7, 6))
    centres *= 1.9 / np.linalg.norm(centres, axis=1, keepdims=True)
    labels = rng.choice(7, n, p=shares)
    return 1.8 * log_softmax((centres[labels] + rng.normal(0, 1, (n, 6))) @ centres.T + np.log(prior)), labels


def one_prior(n: int, method: str, prior: np.ndarray, declared: bool, seed: int) -> dict[str, list[float]]:
    """NLL and accuracy on rows with each of `SHARES`: as calibrated, and told those shares."""
    rng, found = np.random.default_rng([seed, n]), {}
    rows = calib_rows(*learned(n, CALIB, prior, rng), head="linear").part("temperature")
    fitted = FITS[method](rows)
    for name, target in SHARES.items():
        logits, labels = learned(5000, target, prior, rng)
        assumed = assumed_by(fitted, rows, target, prior.tolist() if declared else None).shares
        p = [softmax(m.apply(logits)) for m in (fitted, fitted.with_prior(assumed, target))]
        found[name] = [float(nll_rows(q, labels).mean()) for q in p] + [
            float((q.argmax(1) == labels).mean()) for q in p
        ]
    return found


def one_gap(n: int, method: str, pool: str, seed: int) -> tuple[float, float]:
    """Mean confidence less accuracy of a pool of three on other rows: as fitted, and at their best temperature."""
    logits, labels = members(n + 5000, "three alike", np.random.default_rng([seed, n]))
    rows = [calib_rows(z[:n], labels[:n]) for z in logits]
    maps = [FITS[method](r.part("temperature")) for r in rows]
    own = [r.with_logits(m.apply(r.logits)) for m, r in zip(maps, rows, strict=True)]
    found = fit_pool(own, [1.0] * 3, pool, resamples=0, seed=0)
    held = [m.apply(z[n:]) for m, z in zip(maps, logits, strict=True)]
    joined, truth = pooled_logits(held, found.weights, [1.0] * 3, pool), labels[n:]
    accuracy = float((joined.argmax(1) == truth).mean())
    fitted, best = (float(softmax(joined / t).max(1).mean()) for t in (found.temperature.value, minimum(joined, truth)))
    return fitted - accuracy, best - accuracy


def priors(rows: list[int], repeats: int) -> list[dict[str, object]]:
    """Every map and prior, declared or not, told each of the shares."""
    cases = [("temperature", True), ("temperature", False), ("vector", False), ("dirichlet", False)]
    out: list[dict[str, object]] = []
    for n in rows:
        for (method, declared), (name, prior) in product(cases, SHARES.items()):
            found = [one_prior(n, method, prior, declared, seed) for seed in range(repeats)]
            for target in SHARES:
                v = np.array([f[target] for f in found])
                out.append(
                    {
                        "rows": n,
                        "map": method,
                        "model_assumes": name,
                        "declared": declared,
                        "true_shares": target,
                        "told_less_untold": against(v[:, 1], v[:, 0]),
                        "accuracy_untold": float(v[:, 2].mean()),
                        "accuracy_told": float(v[:, 3].mean()),
                    }
                )
                print(json.dumps(out[-1]))
    return out


def gaps(rows: list[int], repeats: int) -> list[dict[str, object]]:
    """Held-out gaps of pools."""
    out: list[dict[str, object]] = []
    for n, method, pool in product(rows, FITS, ("probability", "logit")):
        found = np.array([one_gap(n, method, pool, seed) for seed in range(repeats)])
        out.append(
            {
                "rows": n,
                "maps": method,
                "pool": pool,
                "gap": float(found[:, 0].mean()),
                "se": float(found[:, 0].std(ddof=1) / np.sqrt(repeats)),
                "gap_at_best": float(found[:, 1].mean()),
            }
        )
        print(json.dumps(out[-1]))
    return out


def intervals(repeats: int) -> list[dict[str, object]]:
    """How often the interval of the calibration error holds the true error, over over-confidence and rows."""
    out: list[dict[str, object]] = []
    for sharpness, n in product((1.0, 1.1, 1.25, 1.5), (1000, 3500)):
        rng, ends, gap = np.random.default_rng([n, 11]), [], np.zeros(BINS)
        for _ in range(repeats):
            truth = rng.normal(0, 1.5, (n, 7))
            right, p = softmax(truth), softmax(sharpness * truth)
            labels, top = (right.cumsum(1) > rng.random((n, 1))).argmax(1), p.argmax(1)
            gap += np.bincount(bin_of(p.max(1)), (p - right)[np.arange(n), top], BINS)
            ends.append(ece_interval(p, labels, np.arange(n)))
        low, high = np.array(ends).T
        error = float(np.abs(gap).sum() / (n * repeats))
        covered = float(((low <= error) & (error <= high)).mean())
        out.append(
            {
                "over_confidence": sharpness,
                "rows": n,
                "error": error,
                "covered": covered,
                "width": float((high - low).mean()),
            }
        )
        print(json.dumps(out[-1]))
    return out


def against(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Mean difference over repeats (negative: the first is better), its standard error, and the worst repeat."""
    gap = first - second
    return {"mean": float(gap.mean()), "se": float(gap.std(ddof=1) / np.sqrt(len(gap))), "worst": float(gap.max())}


def main() -> None:
    """Run the parts that are asked for and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--only", nargs="+", choices=("weights", "prior", "gaps", "intervals"), default=["weights"])
    args = parser.parse_args()
    started = time.perf_counter()
    parts = {
        "weights": lambda: weights_and_maps(args.rows, args.repeats),
        "prior": lambda: {"prior": priors([1000, 2400], args.repeats)},
        "gaps": lambda: {"gaps": gaps([1000, 2400], 3 * args.repeats)},
        "intervals": lambda: {"intervals": intervals(10 * args.repeats)},
    }
    document: dict[str, object] = {"repeats": args.repeats}
    for name in args.only:
        document |= parts[name]()
    document |= {"seconds": round(time.perf_counter() - started), "environment": environment(("numpy", "scipy"))}
    args.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def weights_and_maps(rows: list[int], repeats: int) -> dict[str, object]:
    """What searches for weights and richer maps gain."""
    pools: list[dict[str, object]] = []
    maps: list[dict[str, object]] = []
    with meter("simulation", len(rows) * (2 * len(MEMBERS) + len(MAPS)) * repeats) as progress:
        for n in rows:
            for kind in MEMBERS:
                for pool in ("probability", "logit"):
                    found = []
                    for seed in range(repeats):
                        found.append(one_pool(n, kind, pool, np.random.default_rng([seed, n])))
                        progress.advance()
                    v = {key: np.array([f[key] for f in found]) for key in found[0]}
                    pools.append(
                        {
                            "rows": n,
                            "members": kind,
                            "pool": pool,
                            "nll_equal": float(v["equal"].mean()),
                            "searched": float(v["searched"].mean()),
                            "ours_less_equal": against(v["ours"], v["equal"]),
                            "ours_less_grid": against(v["ours"], v["grid"]),
                            "grid_less_equal": against(v["grid"], v["equal"]),
                        }
                    )
                    print(json.dumps(pools[-1]))
            for kind in MAPS:
                found = []
                for seed in range(repeats):
                    found.append(one_map(n, kind, np.random.default_rng([seed, n, 7])))
                    progress.advance()
                chosen = {
                    m: sum(f["chosen"] == m for f in found) / len(found) for m in ("temperature", "vector", "dirichlet")
                }
                gap = against(*(np.array([f[key] for f in found]) for key in ("ours", "temperature")))
                maps.append({"rows": n, "planted": kind, "chosen": chosen, "ours_less_temperature": gap})
                print(json.dumps(maps[-1]))
    return {"held_out": HELD, "pools": pools, "maps": maps}


if __name__ == "__main__":
    main()
