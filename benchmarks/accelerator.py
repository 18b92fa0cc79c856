"""One small study on the processor and on the accelerator: the same figures, and how much faster.

    python benchmarks/accelerator.py --out docs/results/accelerator.json

On drawn faces, with one seed, each device in a process of its own trains the teachers, predicts val and calib,
calibrates, joins the teachers, teaches a student and predicts with it. Two comparisons are judged:

- The processor's weights, predicted with on both devices: logits within `LOGITS` of each other (both compute in fp32).
- Each model's accuracy on val and on calib: within `ERRORS` standard errors of a difference of two independent shares.
  Trainings on two devices round differently (bf16 on one and fp32 on the other, often) and so end in other weights.

The ratio of speed is the processor's seconds over the accelerator's, of all trainings, of teaching the student and of
all predictions, with what a device needs to get started. It exits with 0 when both comparisons hold, 1 when one does
not, and 2 without an accelerator. `--device cpu` compares the processor with itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOGITS, ERRORS = 1e-3, 3.0
SPLITS = ("val", "calib")


class Clock:
    """Seconds by kind of work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, kind: str, work: Callable[[], Any]) -> None:
        begin = time.perf_counter()
        work()
        self.seconds[kind] = self.seconds.get(kind, 0.0) + time.perf_counter() - begin


def study(given: argparse.Namespace, root: Path) -> dict[str, Any]:
    """The study on this process's device; returns seconds and figures by run."""
    from mien.core.config import DistillConfig, EnsembleConfig, TrainConfig, resolve
    from mien.core.config.judge import CalibrateConfig, PredictConfig
    from mien.nn.devices import compute_device
    from mien.stages import calibrate, distill, ensemble, predict, train

    clock, index, runs = Clock(), given.folder / "index", []
    common = {"epochs": given.epochs, "batch_size": given.batch_size, "head": "linear", "seed": 0}

    def predicted(run: Path) -> Path:
        for split in SPLITS:
            clock("predict", lambda split=split: predict.run(run, index, split, PredictConfig()))
        return run

    for backbone in given.backbones:
        config, origin = resolve(TrainConfig, ("benchmark", common | {"backbone": backbone}))
        clock("train", lambda c=config, o=origin, b=backbone: train.run(c, o, index, root / b))
        runs.append(predicted(root / backbone))
        calibrate.run(runs[-1], CalibrateConfig(method="temperature"))
    ensemble.run(runs, root / "ensembles", EnsembleConfig(resamples=200))
    config, origin = resolve(DistillConfig, ("benchmark", common | {"backbone": given.student}))
    clock("distill", lambda: distill.run(config, origin, root / "ensembles", index, root / "student"))
    runs.append(predicted(root / "student"))
    return {
        "device": str(compute_device()),
        "seconds": {kind: round(spent, 2) for kind, spent in clock.seconds.items()},
        "figures": {run.name: {split: figures(run, split) for split in SPLITS} for run in runs},
    }


def figures(run: Path, split: str) -> dict[str, Any]:
    """A run's scores on one split."""
    from mien.core.artifacts.predictions import predictions_path, read_predictions
    from mien.evaluate.metrics import metrics, softmax

    found = read_predictions(predictions_path(run, split))
    scored = metrics(softmax(found.logits), found.labels)
    return {"n": len(found.labels), **{key: scored[key] for key in ("accuracy", "macro_f1", "nll")}}


def same_weights(given: argparse.Namespace, reference: Path) -> dict[str, float]:
    """Largest difference of a val logit, with the reference's weights, from the predictions of the reference."""
    import numpy as np

    from mien.core.artifacts.index import read_index
    from mien.core.artifacts.predictions import predictions_path, read_predictions
    from mien.core.artifacts.run import read_run
    from mien.nn.inference import predict_split

    index, out = read_index(given.folder / "index"), {}
    for name in [*given.backbones, "student"]:
        before = read_predictions(predictions_path(reference / name, "val")).logits
        now = predict_split(read_run(reference / name), index, "val", 256).logits
        out[name] = float(np.abs(now - before).max())
    return out


def worker(given: argparse.Namespace) -> None:
    """In a process of its own: the study in FOLDER/ROLE, and the processor's weights on this device."""
    found = study(given, given.folder / given.worker)
    if given.worker == "other":
        found["same_weights"] = same_weights(given, given.folder / "processor")
    (given.folder / f"{given.worker}.json").write_text(json.dumps(found), encoding="utf-8")


def start(given: argparse.Namespace, folder: Path, role: str) -> dict[str, Any]:
    """Run a worker and read what it found."""
    options = ["--epochs", str(given.epochs), "--batch-size", str(given.batch_size), "--student", given.student]
    command = [sys.executable, __file__, "--worker", role, "--folder", str(folder), *options]
    environment = dict(os.environ)
    if role == "processor" or given.device == "cpu":
        environment["ACCELERATE_USE_CPU"] = "true"
    subprocess.run([*command, "--backbones", *given.backbones], check=True, env=environment)
    found: dict[str, Any] = json.loads((folder / f"{role}.json").read_text(encoding="utf-8"))
    return found


def compare(processor: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Differences of the figures, each with what is tolerated, and the ratios of speed."""
    differences = []
    for name, splits in processor["figures"].items():
        for split, mine in splits.items():
            theirs = other["figures"][name][split]
            spread = sum(s["accuracy"] * (1 - s["accuracy"]) / s["n"] for s in (mine, theirs)) ** 0.5
            entry = {key: theirs[key] - mine[key] for key in ("accuracy", "macro_f1", "nll")}
            differences.append({"run": name, "split": split, **entry, "tolerated_accuracy": ERRORS * spread})
    close = max(other["same_weights"].values()) <= LOGITS
    holds = all(abs(d["accuracy"]) <= d["tolerated_accuracy"] for d in differences)
    ratios = {kind: round(spent / other["seconds"][kind], 2) for kind, spent in processor["seconds"].items()}
    return {
        "same_weights_largest_logit_difference": other["same_weights"],
        "tolerated_logit_difference": LOGITS,
        "differences": differences,
        "within_tolerance": close and holds,
        "times_as_fast": ratios,
    }


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", choices=("accelerator", "cpu"), default="accelerator")
    parser.add_argument("--faces", type=int, default=2800)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--backbones", nargs="+", default=["cnn", "resnet18"])
    parser.add_argument("--student", default="mobilenetv3_small")
    parser.add_argument("--worker", choices=("processor", "other"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given)
        return 0
    from mien.nn.devices import on_cpu

    if given.device != "cpu" and on_cpu():
        print(
            "No accelerator is here, or ACCELERATE_USE_CPU hides it. --device cpu compares the processor with itself."
        )
        return 2
    from mien.core.artifacts.run import environment
    from mien.core.config.index import IndexConfig
    from mien.stages import index

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        index.run(IndexConfig(source=(f"synthetic={given.faces}",), size=given.size), folder / "index")
        processor, other = start(given, folder, "processor"), start(given, folder, "other")
    document = {
        "command": " ".join(["python", "benchmarks/accelerator.py", *sys.argv[1:]]),
        **compare(processor, other),
        "processor": processor,
        "other": other,
        "environment": environment(),
    }
    if given.out:
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: document[key] for key in ("within_tolerance", "times_as_fast")}, indent=1))
    return 0 if document["within_tolerance"] else 1


if __name__ == "__main__":
    sys.exit(main())
