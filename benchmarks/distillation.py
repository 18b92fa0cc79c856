"""What a teacher adds to a student: taught runs of a sweep beside their plain twins, on test, after calibration.

    python benchmarks/distillation.py --runs out/students/runs --plain plain --taught dkd --teacher ENSEMBLE --out FILE

Reads predictions of test that `mien evaluate` wrote and runs no network. Differences are paired by seed; intervals
join images (bootstrap over whole groups of duplicates) and seeds (Student's t), as in `mien sweep`. Retention is the
student's figure over its teacher's on the same images, with the interval of their ratio.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.base import write_json
from mien.core.artifacts.calibration import read_calibration
from mien.core.artifacts.predictions import Predictions, check_same_rows, predictions_path, read_predictions
from mien.core.artifacts.run import environment, read_metrics
from mien.evaluate.bootstrap import resampled_many
from mien.evaluate.calibration_error import ece
from mien.evaluate.comparison import compare
from mien.evaluate.metrics import metrics, softmax
from mien.evaluate.scaling import Scaling

METRICS = ("accuracy", "macro_f1", "nll")
Floats = NDArray[np.float64]


def calibrated(run: Path) -> tuple[Predictions, Floats]:
    """A run's predictions of test, and probabilities (n, 7) by its calibration."""
    test = read_predictions(predictions_path(run, "test"), allow_test=True)
    fitted = read_calibration(run / "calibration.json", weights_hash=test.meta["weights_hash"])
    return test, softmax(Scaling(fitted.method, np.array(fitted.matrix), np.array(fitted.bias)).apply(test.logits))


def difference(scores: Floats, draws: Floats) -> dict[str, Any]:
    """The second row of `scores` (2, seeds) less the first; `draws` (2, resamples) are means over seeds."""
    found = compare(scores, 0, draws)[1]
    assert found is not None
    return {"mean": found.mean, "ci95": list(found.ci95), "p": found.p, "per_seed": list(found.per_seed)}


def main() -> None:
    """Score, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="a sweep's runs: VARIANT/seed-N")
    parser.add_argument("--plain", required=True)
    parser.add_argument("--taught", required=True)
    parser.add_argument("--teacher", type=Path, required=True, help="the ensemble, with its predictions of test")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    seeds = sorted(int(run.name.removeprefix("seed-")) for run in (given.runs / given.plain).glob("seed-*"))
    folders = [[given.runs / name / f"seed-{seed}" for seed in seeds] for name in (given.plain, given.taught)]
    read = [[calibrated(folder) for folder in several] for several in folders]
    teacher = read_predictions(predictions_path(given.teacher, "test"), allow_test=True)
    first = read[0][0][0]
    check_same_rows([teacher, *(test for several in read for test, _ in several)])
    labels, of_teacher = first.labels, softmax(teacher.logits)
    everything = [p for several in read for _, p in several] + [of_teacher]
    draws = resampled_many(everything, labels, full=False, groups=first.groups)
    scored = [metrics(p, labels) for p in everything]
    document: dict[str, Any] = {
        "runs": {},
        "seeds": seeds,
        "n": len(labels),
        "teacher": {key: float(scored[-1][key]) for key in METRICS},
        "difference": {},
        "retention": {},
        "interval": (
            "95 %: squares of the images' half-width (bootstrap over groups of copies) "
            "and the seeds' (Student's t) added"
        ),
        "environment": environment(),
    }
    for v, name in enumerate((given.plain, given.taught)):
        of = slice(v * len(seeds), (v + 1) * len(seeds))
        document["runs"][name] = {
            key: {"mean": float(np.mean(values)), "per_seed": values}
            for key in METRICS
            for values in [[float(one[key]) for one in scored[of]]]
        } | {"ece": {"per_seed": [float(ece(p, labels)) for p in everything[of]]}}
        document["runs"][name]["val_macro_f1"] = {
            "per_seed": [max(line["val"]["macro_f1"] for line in read_metrics(f) if "val" in line) for f in folders[v]]
        }
    for key in METRICS:
        scores = np.array([[one[key] for one in scored[: len(seeds)]], [one[key] for one in scored[len(seeds) : -1]]])
        several = np.array([one[key] for one in draws[:-1]]).reshape(2, len(seeds), -1)
        document["difference"][key] = difference(scores, several.mean(1))
        if key != "nll":
            share = np.array([np.ones(len(seeds)), scores[1] / scored[-1][key]])
            ratios = np.array([np.ones(several.shape[2]), several[1].mean(0) / draws[-1][key]])
            found = difference(share, ratios)
            document["retention"][key] = {
                "mean": 1 + found["mean"],
                "ci95": [1 + end for end in found["ci95"]],
                "per_seed": share[1].tolist(),
            }
    write_json(given.out, document)
    print(f"{given.taught} less {given.plain}, and retention:", document["difference"], document["retention"], sep="\n")


if __name__ == "__main__":
    main()
