"""Other packages that recognise expressions, and models of ours, on the same faces of FER2013 in one run.

    python benchmarks/peers.py --fer2013 FILE --ferplus FOLDER --work FOLDER --out peers.json [--model MODEL.onnx]

Each package is installed into an environment of its own below `--work` (from PyPI, weights inside; once). Each runs in
a process of its own on one thread, with its own preprocessing; the processes take turns of 50 faces in a random order,
one at a time, so that busy moments of the machine hit all alike. A face is a 48x48 crop of the official split as it is
distributed, copies included, and the crop is the face's box.

The output has accuracy, macro-F1 and ECE with 95 % intervals, for all rows, for those whose closest copy in Training
(fer2013_copies.csv) is identical, near, and none, and for the rows that have one of the seven classes under FER+'s
rules, with that label; then milliseconds a face and bytes of the weights. `fer` at its defaults widens the box by 10 px
a side; `fer_tight` does not, and `fer_keras` runs its unquantised network; `fer_onnx` is that network alone, in
onnxruntime. Our models and the best of the peers recognise the faces with FER+ labels again under each corruption of
`mien evaluate --corruptions` at strength 3.

`--split val`, the default, is PublicTest. With `--split test` a model of ours must have been judged by `mien evaluate`
before: name its run by `--run`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer2013_copies import CLOSENESS, DIGITS, read_copies
from mien.core.artifacts.base import write_json
from mien.core.artifacts.evaluation import read_evaluation
from mien.core.artifacts.run import environment, read_run
from mien.core.errors import InputError, MienError, SplitError
from mien.core.images import image_id
from mien.core.labels import INDEX
from mien.data.sources import open_source
from mien.evaluate.bootstrap import with_intervals
from mien.evaluate.corruptions import CORRUPTIONS, corrupt
from mien.runtime.recognizer import open_session

HERE = Path(__file__).parent
TURN = 50
SHOWN = ("accuracy", "macro_f1", "ece")
_FER = (
    ("--no-deps", "fer==25.10.3"),
    (
        "tensorflow-cpu>=2.18,<2.21",
        "opencv-python-headless>=4.10,<5",
        "requests",
        "setuptools<81",
        "tf2onnx",
        "onnxruntime",
    ),
)
_FACIAL = (
    ("--no-deps", "facial-emotion-recognition==0.3.4"),
    ("torch==2.13.0", "torchvision==0.28.0", "opencv-python-headless>=4.10,<5"),
)
PEERS = {
    "fer": ("fer", _FER),
    "fer_tight": ("fer", _FER),
    "fer_keras": ("fer", _FER),
    "fer_onnx": ("fer", _FER),
    "facial": ("facial", _FACIAL),
}
"""{peer: (its environment's folder, arguments of pip install, one call each)}"""
CORRUPTED = ("fer_tight", "fer_onnx")
"""Peers that are shown corrupted faces: those that are right most often on clean ones."""
STRENGTH = 3
SAYS_LABELS_ALONE = ("facial",)
"""Peers whose package gives no probabilities: they have no calibration error."""


def faces_of(table: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Every row of an official split as distributed: faces (n, 48, 48) and labels (n,)."""
    items = [item for item in open_source(f"fer2013={table}", seed=0, size=48) if item.official_split == split]
    faces = np.stack([item.image.load(min_side=48)[..., 0] for item in items])
    return faces, np.array([INDEX[str(item.label)] for item in items])


def name_of(face: NDArray[np.uint8]) -> str:
    """The first digits of a grey face's image_id."""
    return image_id(face[..., None])[:DIGITS]


def ferplus_rows(folder: Path, split: str, names: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows (m,) of the faces that FER+'s rules give one of our classes, and these labels (m,)."""
    row = {name: i for i, name in enumerate(names)}
    rows, labels = [], []
    for item in open_source(f"ferplus={folder}", seed=0, size=48):
        if item.official_split != split or item.label is None:
            continue
        name = name_of(item.image.load(min_side=48)[..., 0])
        if name not in row:
            raise InputError(
                f"{folder} has a {split} image that fer2013.csv lacks ({item.path}).",
                rule="FER+ labels its images anew.",
            )
        rows.append(row[name])
        labels.append(INDEX[item.label])
    return np.array(rows, dtype=np.int64), np.array(labels, dtype=np.int64)


def subsets(
    labels: NDArray[np.int64], names: list[str], copies: dict[str, str]
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """{set: (rows, their labels)}: all, and by the closest copy in Training."""
    closest = np.array([copies.get(name, "none") for name in names])
    out = {"all": np.arange(len(labels))} | {f"copy {kind}": np.flatnonzero(closest == kind) for kind in CLOSENESS}
    return {name: (rows, labels[rows]) for name, rows in out.items()}


def score(
    probabilities: NDArray[np.float64],
    sets: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]],
    *,
    calibrated: bool = True,
    resamples: int = 1000,
) -> dict[str, Any]:
    """{set: n, metrics, intervals} of probabilities (n, 7), which are first made to sum to 1."""
    p = probabilities / probabilities.sum(1, keepdims=True)
    out = {}
    shown = SHOWN if calibrated else SHOWN[:2]
    for name, (rows, labels) in sets.items():
        if not len(rows):
            continue
        found: dict[str, Any] = with_intervals(p[rows], labels, resamples=resamples, smooth=0)
        more = {"ece_floor": found["ece_floor"]} if calibrated else {}
        out[name] = {"n": len(rows)} | {key: found[key] for key in shown} | more
        out[name]["ci95"] = {key: found["ci95"][key] for key in shown}
    return out


def prepare(folder: Path, installs: tuple[tuple[str, ...], ...]) -> Path:
    """The Python of an environment, which is made and filled once."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = folder / "installed.txt"
    wanted = json.dumps(installs)
    if not done.is_file() or done.read_text(encoding="utf-8") != wanted:
        venv.create(folder, with_pip=True)
        for arguments in installs:
            subprocess.run([python, "-m", "pip", "install", "-q", *arguments], check=True)
        done.write_text(wanted, encoding="utf-8")
    return python


class Worker:
    """A recogniser's process."""

    def __init__(self, python: Path, maker: str, name: str, work: Path, file: Path) -> None:
        self.out = work / f"{name}.npz"
        command = [python, HERE / "peer_worker.py", maker, work / "faces.npz", self.out, file]
        self.log = (work / f"{name}.log").open("wb")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.name = name

    def wait(self) -> None:
        """Until it has answered; an answer that does not come is an error with the end of its log."""
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            log = Path(self.log.name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise MienError(f"{self.name} ended: {log[-1] if log else 'it said nothing'}", fix=f"See {self.log.name}.")

    def recognise(self, start: int, end: int) -> None:
        """Have faces recognised, and wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{start} {end}\n")
        self.process.stdin.flush()
        self.wait()

    def close(self) -> None:
        """Let it write what it has found, and end."""
        self.process.communicate()
        self.log.close()

    def finish(self) -> dict[str, Any]:
        """What it has found."""
        self.close()
        with np.load(self.out) as found:
            return {key: found[key] for key in found.files}


def in_turns(workers: list[Worker], first: int, end: int) -> None:
    """Faces through all workers, one worker at a time."""
    order = np.random.default_rng(0)
    for start in range(first, end, TURN):
        for i in order.permutation(len(workers)).tolist():
            workers[i].recognise(start, min(start + TURN, end))
        print(f"{min(start + TURN, end)} of {end}", file=sys.stderr, flush=True)


def corrupted(faces: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The faces at `rows` (m,) under each corruption in turn (kinds * m, 48, 48)."""
    shown = faces[rows][..., None]
    return np.concatenate([corrupt(shown, kind, STRENGTH)[..., 0] for kind in CORRUPTIONS])


def check_opened(models: list[Path], runs: list[Path]) -> None:
    """Refuse a model of ours whose weights `mien evaluate` has not judged on test yet."""
    judged = {read_run(run).weights_hash for run in runs if read_evaluation(run)}
    for path in models:
        card = open_session(path, 1)[1]
        if not {card.weights_hash, card.quantized_from} & judged:
            raise SplitError(
                f"{path} is none of the runs {', '.join(map(str, runs)) or '(none was named)'}.",
                rule="Test is opened by `mien evaluate`, after the selection is written.",
                fix="Evaluate its run, and name it: --run RUN.",
            )


def summary(
    found: dict[str, Any], name: str, sets: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]], count: int
) -> dict[str, Any]:
    """What one recogniser is worth on the first `count` faces, which are not corrupted, and takes for one of them."""
    p50, p95 = np.percentile(1000 * found["times"][:count], [50, 95])
    return {
        "version": str(found["version"]),
        "bytes": int(found["bytes"]),
        "ms_a_face": {"p50": float(p50), "p95": float(p95)},
        "gives_probabilities": name not in SAYS_LABELS_ALONE,
        "sets": score(found["probabilities"], sets, calibrated=name not in SAYS_LABELS_ALONE),
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fer2013", type=Path, required=True)
    parser.add_argument("--ferplus", type=Path)
    parser.add_argument("--copies", type=Path, default=HERE.parent / "docs" / "results" / "fer2013_copies.csv")
    parser.add_argument("--work", type=Path, required=True, help="for environments and what they leave")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peers", nargs="*", choices=sorted(PEERS), default=list(PEERS))
    parser.add_argument("--model", type=Path, nargs="*", default=[], help="model files of ours")
    parser.add_argument("--run", type=Path, nargs="*", default=[], help="their evaluated runs, for --split test")
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--faces", type=int, help="the first so many rows alone, for a trial")
    return parser.parse_args()


def main() -> None:
    """Prepare, run in turns, score, write."""
    given = arguments()
    if given.split == "test":
        check_opened(given.model, given.run)
    faces, labels = faces_of(given.fer2013, given.split)
    names = [name_of(face) for face in faces]
    sets = subsets(labels, names, read_copies(given.copies))
    if given.ferplus:
        sets["ferplus"] = ferplus_rows(given.ferplus, given.split, names)
    count = min(given.faces or len(faces), len(faces))
    sets = {name: (rows[rows < count], of[rows < count]) for name, (rows, of) in sets.items()}
    given.work.mkdir(parents=True, exist_ok=True)
    rows, of = sets.get("ferplus", (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)))
    shown = np.concatenate([faces[:count], corrupted(faces, rows)])
    changed = {kind: (np.arange(len(rows)) + count + k * len(rows), of) for k, kind in enumerate(CORRUPTIONS)}
    np.savez(given.work / "faces.npz", faces=shown)
    workers = [
        Worker(prepare(given.work / PEERS[name][0], PEERS[name][1]), name, name, given.work, given.work / "fer.onnx")
        for name in given.peers
    ] + [Worker(Path(sys.executable), "mien", f"mien-{path.stem}", given.work, path) for path in given.model]
    for worker in workers:
        worker.wait()
    in_turns(workers, 0, count)
    sees_corrupted = [worker for worker in workers if worker.name in CORRUPTED or worker.name not in PEERS]
    in_turns(sees_corrupted, count, len(shown))
    found = {}
    for worker in workers:
        answers = worker.finish()
        found[worker.name] = summary(answers, worker.name, sets, count)
        if len(rows) and worker in sees_corrupted:
            found[worker.name]["corrupted"] = score(answers["probabilities"], changed)
    document = {"split": given.split, "rows": count, "threads": 1, "recognisers": found, "environment": environment()}
    write_json(given.out, document)
    for name, one in found.items():
        print(
            f"{name:20} {one['ms_a_face']['p50']:8.2f} ms  {one['bytes'] / 1e6:6.2f} MB  "
            + "  ".join(f"{s}: {v['accuracy']:.3f} / {v['macro_f1']:.3f}" for s, v in one["sets"].items())
        )


if __name__ == "__main__":
    main()
