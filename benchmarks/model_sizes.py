"""What accuracy costs: evaluated runs as float and int8 files, their figures beside milliseconds and megabytes.

    python benchmarks/model_sizes.py RUN … --index INDEX --out docs/results/model_sizes.json

Each run becomes an ONNX file in single precision and one in int8, with a calibration of its own, as `mien export`
makes them. *test* is what `evaluation.json` says of the float model: nothing is opened here. The two precisions are
compared on val, in the figure beside --out too; `refused` is why `mien export --int8` would not write the file. Times
are of one image on one thread of onnxruntime; all files take turns, an image each.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from matplotlib.figure import Figure

from mien.core.artifacts.base import write_json
from mien.core.artifacts.calibration import read_calibration
from mien.core.artifacts.evaluation import read_evaluation
from mien.core.artifacts.index import Index, read_index
from mien.core.artifacts.run import check_index, environment, read_run
from mien.core.errors import MienError
from mien.evaluate.quantization import check_int8
from mien.nn.export import Calibrated, to_onnx
from mien.nn.inference import load_network
from mien.report.figures import COLOURS, MARKERS, Chart
from mien.stages.export import card_of, quantized_model

METRICS = ("n", "accuracy", "macro_f1", "nll", "ece", "ece_floor")
INTERVALS = ("accuracy", "macro_f1")


def files(folder: Path, index: Index) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A run's figures, and its model files by precision."""
    trained = read_run(folder)
    check_index(trained, index)
    calibration = read_calibration(folder / "calibration.json", weights_hash=trained.weights_hash)
    card = card_of(trained, calibration, index)
    proto = to_onnx(Calibrated(load_network(trained), calibration.matrix, calibration.bias).eval(), card)
    small, compared = quantized_model(proto, card, calibration, index, folder)
    try:
        check_int8(compared)
        refused = ""
    except MienError as error:
        refused = error.seen
    test = read_evaluation(folder)["test"]
    found = {
        "backbone": trained.backbone,
        "img_size": trained.config["settings"]["img_size"]["value"],
        "parameters": trained.config["parameters"],
        "test": {name: dict(test)[name] for name in METRICS} | {"ci95": {k: test["ci95"][k] for k in INTERVALS}},
        "val": compared,
        "refused": refused,
    }
    return found, {"fp32": proto.SerializeToString(), "int8": small.SerializeToString()}


def timed(models: dict[tuple[str, str], bytes], side: int, rounds: int) -> dict[tuple[str, str], dict[str, float]]:
    """Milliseconds an image of each file, median and 95th percentile, all by turns."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    sessions = {
        key: onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        for key, data in models.items()
    }
    crop = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in sessions}
    for turn in range(rounds + 20):
        for key, session in sessions.items():
            started = time.perf_counter()
            session.run(None, {"crops": crop})
            if turn >= 20:
                taken[key].append(1000 * (time.perf_counter() - started))
    return {
        key: {"p50_ms": float(np.percentile(t, 50)), "p95_ms": float(np.percentile(t, 95))} for key, t in taken.items()
    }


def drawn(models: dict[str, dict[str, tuple[float, float]]]) -> Chart:
    """Accuracy over milliseconds an image, {model: {precision: (ms, accuracy)}}; a line joins a model's precisions."""
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axis, markers = figure.subplots(), dict[str, str]()
    for colour, (name, points) in zip(COLOURS, models.items(), strict=False):
        axis.plot(*zip(*points.values(), strict=True), color=colour, lw=1, label=name)
        for precision, point in points.items():
            axis.plot(*point, markers.setdefault(precision, MARKERS[len(markers)]), color=colour, ms=6)
    for precision, marker in markers.items():
        axis.plot([], [], marker, color="0.4", label=precision)
    axis.set(xlabel="milliseconds an image, one thread", ylabel="accuracy on val", xlim=(0, None))
    axis.legend(frameon=False, fontsize=8)
    return Chart(figure)


def main() -> None:
    """Export, compare, time, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="evaluated runs with weights")
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=300, help="timed images a file")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    index, found, models = read_index(given.index), {}, {}
    for name, _, folder in (text.partition("=") for text in given.runs):
        found[name], made = files(Path(folder), index)
        models |= {(name, precision): data for precision, data in made.items()}
    for (name, precision), times in timed(models, index.crop.size, given.rounds).items():
        found[name][precision] = times | {"bytes": len(models[name, precision])}
    points = {
        name: {p: (m[p]["p50_ms"], m["val"][key]["accuracy"]) for p, key in (("fp32", "float"), ("int8", "int8"))}
        for name, m in found.items()
    }
    given.out.with_suffix(".png").write_bytes(drawn(points).png())
    write_json(given.out, {"threads": 1, "rounds": given.rounds, "models": found, "environment": environment()})


if __name__ == "__main__":
    main()
