"""What FER2013's copies across its official splits are worth to a recogniser that is scored on them.

    export MIEN_DATA=/data      # with the ImageNet starts that studies/fer2013.toml names
    python benchmarks/leak.py --fer2013 FILE --work FOLDER --out leak.json [--jobs N]
    python benchmarks/leak.py --work docs/results/leak --out docs/results/leak.json     # from the predictions alone

The MobileNets of the study `fer2013` are trained once more, with the same settings, on Training without regard to the
official test (PrivateTest): images that have a copy there stay in. Copies of val (PublicTest), on which the epoch is
chosen, are left out as ever, and a part is calib. Their twins, trained without copies of test, are the published ones:
`docs/results/fer2013`.

Both are scored on the official test's rows: all; those that show an image of which an identical or near copy was
trained on; those whose copy stands in Training and was not trained on (left out with copies of val, or calib); and
those without a copy in Training (fer2013_copies.csv). Differences are paired over the rows that both have predictions
of, with intervals that resample whole groups of copies; they know nothing of other seeds. The pool of the three
networks has equal weights, as the published study selected.

`--work` keeps the index, the runs, and `logits/NAME.npz` (rows of the official test in the file's order), with
`logits/rows.npz` all that scoring needs: where they are there, nothing is trained, and FILE is not read.
`docs/results/leak` holds those of the published figures.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fer2013_copies import DIGITS
from mien.core.artifacts.base import write_json
from mien.core.artifacts.calibration import read_calibration
from mien.core.artifacts.index import read_index
from mien.core.artifacts.predictions import predictions_path, read_predictions
from mien.core.artifacts.run import environment, read_run
from mien.core.config import TrainConfig, resolve
from mien.core.config.base import Origins
from mien.core.config.index import IndexConfig
from mien.core.config.judge import CalibrateConfig, PredictConfig
from mien.core.config.study import load_study, seeded, shipped_studies
from mien.evaluate.metrics import log_softmax, metrics, softmax
from mien.evaluate.paired import Compared, paired
from mien.evaluate.pooling import pooled_logits
from mien.evaluate.scaling import Scaling
from mien.stages import calibrate, index, predict, train
from peers import faces_of, name_of

TEACHERS = ("v1", "v1_112", "v2")
SHOWN: tuple[Literal["accuracy", "macro_f1", "nll"], ...] = ("accuracy", "macro_f1", "nll")
DIFFERENCES: tuple[Compared, ...] = ("accuracy", "macro_f1")
RESULTS = Path(__file__).parents[1] / "docs" / "results"
Floats = NDArray[np.float64]


def settings(name: str) -> tuple[TrainConfig, Origins]:
    """A network's settings as the published study has them."""
    study = load_study(shipped_studies() / "fer2013.toml")
    (teacher,) = [t for t in study.teachers if t.name == name]
    return resolve(TrainConfig, ("study", seeded(teacher.settings, study.seed)))


def published(name: str) -> Path:
    """The run of the same settings that was trained without copies of test."""
    return RESULTS / "fer2013" / "teachers" / name


def leaky_index(table: Path, work: Path) -> Path:
    """The index of Training and PublicTest alone, so that no copy in PrivateTest takes an image out of train."""
    part = work / "without_private_test.csv"
    if not part.exists():
        work.mkdir(parents=True, exist_ok=True)
        begun = part.with_suffix(".begun")
        with table.open(encoding="utf-8") as lines, begun.open("w", encoding="utf-8") as kept:
            kept.writelines(line for line in lines if "PrivateTest" not in line)
        begun.replace(part)
    index.run(IndexConfig(source=(f"fer2013={part}",), size=48, test_fraction=0.0), work / "index")
    return work / "index"


def train_one(name: str, table: Path, work: Path) -> None:
    """Train, calibrate, and write calibrated log-probabilities of every row of the official test."""
    from mien.nn.inference import load_network
    from mien.nn.predict import predict_logits

    config, origin = settings(name)
    folder, run = work / "index", work / "runs" / name
    train.run(config, origin, folder, run)
    for split in ("val", "calib"):
        predict.run(run, folder, split, PredictConfig())
    calibrate.run(run, CalibrateConfig(method="temperature"))
    faces, _ = faces_of(table, "test")
    logits = predict_logits(load_network(read_run(run)), faces[..., None], np.arange(len(faces)))
    (work / "logits").mkdir(exist_ok=True)
    np.savez_compressed(
        work / "logits" / f"{name}.npz",
        log_probabilities=calibrated(run, logits, read_run(run).weights_hash).astype(np.float32),
    )


def calibrated(run: Path, logits: Floats, weights_hash: str) -> Floats:
    """Log-probabilities (n, 7) by the run's calibration."""
    fitted = read_calibration(run / "calibration.json", weights_hash=weights_hash)
    return log_softmax(Scaling(fitted.method, np.array(fitted.matrix), np.array(fitted.bias)).apply(logits))


def clean(name: str, digits: list[str]) -> Floats:
    """The published twin's calibrated log-probabilities of the rows with these image ids; NaN where it has none."""
    run = published(name)
    found = read_predictions(predictions_path(run, "test"), allow_test=True)
    row = {image[:DIGITS]: i for i, image in enumerate(found.image_ids.tolist())}
    logs = calibrated(run, found.logits, found.meta["weights_hash"])
    return np.stack([logs[row[d]] if d in row else np.full(logs.shape[1], np.nan) for d in digits])


def compare(
    leaky: Floats, twin: Floats, sets: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]], groups: NDArray[np.str_]
) -> dict[str, Any]:
    """{set: rows, figures of both, and their paired difference}, with and without copies of test in training."""
    out: dict[str, Any] = {}
    for name, (rows, labels) in sets.items():
        known = np.isfinite(twin[rows]).all(1)
        both, truth = rows[known], labels[known]
        p, q = softmax(leaky[both]), softmax(twin[both])
        found = paired(p, q, truth, groups=groups[both])
        a, b, every = metrics(p, truth), metrics(q, truth), metrics(softmax(leaky[rows]), labels)
        out[name] = {
            "rows": len(rows),
            "rows_in_both": len(both),
            "all_rows_with_copies": {key: every[key] for key in SHOWN},
            "with_copies": {key: a[key] for key in SHOWN},
            "without": {key: b[key] for key in SHOWN},
            "difference": {key: {"value": found["delta"][key], "ci95": found["ci95"][key]} for key in DIFFERENCES},
        }
    return out


def write_rows(table: Path, work: Path) -> None:
    """Labels, image ids and groups of the official test's rows, and the closest copy that was trained on."""
    faces, labels = faces_of(table, "test")
    digits = [name_of(face) for face in faces]
    leaky = read_index(work / "index")
    trained = [image[:DIGITS] for image in leaky.image_ids[leaky.rows("train")].tolist()]
    with (RESULTS / "fer2013_copies.csv").open(encoding="utf-8") as lines:
        table_of_copies = list(csv.DictReader(lines))
    group = {line["image_id"]: line["group"] for line in table_of_copies}
    in_training = {line["image_id"]: line["training"] for line in table_of_copies if line["training"]}
    images, groups = set(trained), {group[image] for image in trained if image in group}

    def copy_of(image: str) -> str:
        if image in images:
            return "identical"
        if group.get(image) in groups:
            return "near"
        return "none" if in_training.get(image, "none") == "none" else "not trained on"

    (work / "logits").mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        work / "logits" / "rows.npz",
        labels=labels.astype(np.int8),
        image_ids=digits,
        groups=[group.get(image, image) for image in digits],
        copies=[copy_of(image) for image in digits],
    )


def report(work: Path) -> dict[str, Any]:
    """Everything that the output holds."""
    rows = np.load(work / "logits" / "rows.npz")
    labels, copies = rows["labels"].astype(np.int64), rows["copies"]
    of = {"all": np.ones(len(labels), dtype=bool), "trained on": np.isin(copies, ["identical", "near"])}
    of |= {kind: copies == kind for kind in ("identical", "near", "not trained on", "none")}
    sets = {kind: (np.flatnonzero(held), labels[held]) for kind, held in of.items()}
    leaky = {n: np.load(work / "logits" / f"{n}.npz")["log_probabilities"].astype(np.float64) for n in TEACHERS}
    twins = {name: clean(name, rows["image_ids"].tolist()) for name in TEACHERS}
    for one in (leaky, twins):
        members = [one[name] for name in TEACHERS]
        one["pool"] = pooled_logits(
            members, np.full(len(members), 1 / len(members)), [1.0] * len(members), "probability"
        )
    return {"networks": {name: compare(leaky[name], twins[name], sets, rows["groups"]) for name in leaky}}


def main() -> None:
    """Train what is missing, then score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fer2013", type=Path, help="fer2013.csv with its official splits, where networks are missing")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        train_one(given.one, given.fer2013, given.work)
        return
    missing = [n for n in TEACHERS if not (given.work / "logits" / f"{n}.npz").exists()]
    if missing or not (given.work / "logits" / "rows.npz").exists():
        if given.fer2013 is None:
            parser.error(f"{given.work} lacks predictions of {', '.join(missing) or 'rows'}: --fer2013 is needed")
        leaky_index(given.fer2013, given.work)
        write_rows(given.fer2013, given.work)
    if missing:
        base = [sys.executable, __file__, "--fer2013", str(given.fer2013), "--work", str(given.work), "--one"]
        with ThreadPoolExecutor(given.jobs) as pool:
            list(pool.map(lambda name: subprocess.run([*base, name], check=True), missing))
    if given.out:
        found = report(given.work)
        write_json(given.out, {**found, "environment": environment()})
        for name, one in found["networks"].items():
            print(name, {s: [round(v[k]["accuracy"], 4) for k in ("with_copies", "without")] for s, v in one.items()})


if __name__ == "__main__":
    main()
