"""A run: what `mien train` and `mien distill` leave.

`config.json` (each value with its origin), `metrics.jsonl` (a line an epoch), `best.safetensors`,
`last/` (what an exact resume needs) and `environment.json`.
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NotRequired, TypedDict

from mien.core.artifacts import base
from mien.core.artifacts.index import Index
from mien.core.artifacts.metrics import EpochScores
from mien.core.artifacts.suspects import read_suspects
from mien.core.config.base import Origins, expand
from mien.core.config.train import TrainConfig
from mien.core.errors import ArtifactError, InputError
from mien.core.geometry import Crop
from mien.core.progress import FIRST

KIND, VERSION = "run", 2
FIX = "Make one with `mien train --index DIR --out RUN`."
WEIGHTS = "best.safetensors"


class TrainedOn(TypedDict):
    """The index of a run: its content hash, sources and their terms."""

    content: str
    sources: list[str]
    licenses: list[str]


StartedFrom = TypedDict("StartedFrom", {"from": str, "sha256": NotRequired[str], "license": str})
"""The weights that a training started from, and their terms."""


class Teaching(TypedDict):
    """The teacher's confidence less its accuracy on train and on calib, and the temperature at which it teaches."""

    train_gap: float
    calib_gap: float
    teaching_temperature: float


class TaughtBy(Teaching):
    """A student's teacher; `selection` is the way from the student's folder to the selection's file."""

    name: str
    weights_hash: str
    selection_hash: str
    selection: str


class RunConfig(TypedDict):
    """`config.json` of a run; priors are class shares (7,), null: not known."""

    settings: Origins
    index: TrainedOn
    crop: Crop
    parameters: int
    started_from: StartedFrom | None
    balanced_sampling: bool
    training_prior: list[float] | None
    predicts_prior: list[float] | None
    train_rows: int
    teacher: NotRequired[TaughtBy]


class TrainingEvent(TypedDict):
    """Something that happened in a training: a collapse, a loss that was not finite, an exhausted patience."""

    kind: str
    step: int
    epoch: float
    text: str


class Epoch(TypedDict):
    """A line of `metrics.jsonl`.

    `val` is there where the epoch ended with a validation, `val_raw` are the scores of the weights before averaging.
    """

    epoch: int
    step: int
    lr: float
    margin: float
    train_loss: float
    train_accuracy: float
    val_raw: NotRequired[EpochScores]
    val: NotRequired[EpochScores]


class TrainingResult(TypedDict):
    """What a training says of itself."""

    best_epoch: int
    best_val_macro_f1: float
    steps: int
    precision: str
    seconds: float
    device: str
    processes: int
    events: list[TrainingEvent]


class Environment(TypedDict):
    """Where a figure was taken; `packages` are versions by name."""

    python: str
    platform: str
    machine: str
    processor: str
    packages: dict[str, str]


class RunEnvironment(Environment):
    """`environment.json` of a run."""

    training: TrainingResult


class BestEpoch(TypedDict):
    """The epoch whose weights were kept."""

    best_epoch: int
    best_val_macro_f1: float


class RunManifest(base.Manifest):
    """`manifest.json` of a run."""

    best: BestEpoch
    events: list[TrainingEvent]


_CONFIG = base.JsonArtifact[RunConfig]("config.json", "run configuration", FIX)
_ENVIRONMENT = base.JsonArtifact[RunEnvironment]("environment.json", "training environment", FIX)


@dataclass(frozen=True)
class Run:
    """A complete run, read."""

    folder: Path
    manifest: RunManifest
    config: RunConfig

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def weights(self) -> Path:
        """The weights that val chose."""
        return self.folder / WEIGHTS

    @property
    def weights_hash(self) -> str:
        """sha256 of the weights: what predictions and calibrations are tied to."""
        return self.manifest["files"][WEIGHTS]["sha256"]

    @property
    def terms(self) -> list[str]:
        """The terms of the data, and of the weights that training started from."""
        started = self.config["started_from"]
        more = [] if started is None else [f"starting weights {started['from']}: {started['license']}"]
        return [*self.config["index"]["licenses"], *more]

    @property
    def environment(self) -> RunEnvironment:
        """Where and how the training ran."""
        return _ENVIRONMENT.read(self.folder)

    @property
    def backbone(self) -> str:
        """The backbone's name."""
        return str(self.settings["backbone"])

    @property
    def settings(self) -> dict[str, object]:
        """The training settings, without their origins."""
        return {key: entry["value"] for key, entry in self.config["settings"].items()}


def read_run(folder: Path) -> Run:
    """Open a finished run and verify its weights."""
    manifest = base.read_manifest(folder, kind=KIND, version=VERSION, fix=FIX)
    base.check_file(folder, manifest, WEIGHTS)
    return Run(folder, manifest, _CONFIG.read(folder))


def holds_training(folder: Path) -> bool:
    """Whether a folder holds a run that is finished, or a training that has saved a state."""
    return (folder / base.MANIFEST).is_file() or (folder / "last" / "state.json").is_file()


def check_index(run: Run, index: Index) -> None:
    """Raise unless `index` is the one that the run learned on: in another one its train rows may be test rows."""
    if run.config["index"]["content"] == index.content_hash:
        return
    if run.config["crop"] != index.crop.document():
        message = f"{run.folder} was trained on crops {run.config['crop']}, {index.folder} has {index.crop.document()}."
    else:
        message = f"{run.folder} was trained on another index than {index.folder}."
    raise InputError(
        message,
        rule=(
            "A run is predicted, judged and exported with its own index: elsewhere its train images may stand in test."
        ),
        fix="Name the index it was trained on, or train again.",
    )


def run_of(weights: Path) -> Run | None:
    """The finished run whose weights these are, None for any other file."""
    manifest = weights.parent / base.MANIFEST
    if weights.name != WEIGHTS or not manifest.is_file():
        return None
    return read_run(weights.parent) if base.read_json(manifest, kind="manifest").get("kind") == KIND else None


def starting_point(config: TrainConfig, index: Index) -> dict[str, str]:
    """The hashes of what a training starts from and whose labels it doubts, as a fingerprint's inputs.

    A run of ours must have learned on the same index: on another, its train images may be val or test here.
    """
    hashes = {}
    if config.suspects is not None:
        hashes["suspects"] = read_suspects(Path(expand(config.suspects)), index=index.content_hash).hash
    return hashes | _starting_weights(config, index)


def _starting_weights(config: TrainConfig, index: Index) -> dict[str, str]:
    if config.init_from is not None:
        earlier = read_run(Path(expand(config.init_from)))
        check_index(earlier, index)
        return {"init_from": earlier.weights_hash}
    if config.pretrained in ("none", "timm"):
        return {} if config.pretrained == "none" else {"pretrained": "timm"}
    path = Path(expand(config.pretrained))
    run = read_run(path) if path.is_dir() else run_of(path) if path.is_file() else None
    if run is not None:
        if run.config["index"]["content"] != index.content_hash:
            raise InputError(
                f"--pretrained {path} is a run that learned on another index than {index.folder}.",
                rule="Its train images may stand in val or test here.",
                fix=(
                    "Build one index of all sources; or, if you know that they share no image, name a copy of its "
                    "best.safetensors outside the run."
                ),
            )
        return {"pretrained": run.weights_hash}
    return {"pretrained": base.sha256_file(path) if path.is_file() else config.pretrained}


def with_stated_terms(run: Run, config: TrainConfig, origin: Origins) -> Run:
    """A finished run with the terms of its starting weights as stated now, in its files too; nothing is trained.

    Of several processes the first one writes. Killed in the middle, it is an unfinished training of the same
    fingerprint, which the same command finishes.
    """
    started_from, terms = run.config["started_from"], _stated_terms(config)
    if started_from is None or terms is None or started_from["license"] == terms or not FIRST:
        return run
    key = "pretrained_license"
    settings = {**run.config["settings"], key: origin[key]}
    document: RunConfig = {**run.config, "settings": settings, "started_from": {**started_from, "license": terms}}
    path, manifest = run.folder / _CONFIG.file, run.folder / base.MANIFEST
    base.write_json(run.folder / base.STARTED, {"kind": KIND, "fingerprint": run.manifest["fingerprint"]})
    manifest.unlink()
    _CONFIG.write(run.folder, document)
    entry: base.FileEntry = {"sha256": base.sha256_file(path), "bytes": path.stat().st_size}
    base.write_json(manifest, {**run.manifest, "files": {**run.manifest["files"], path.name: entry}})
    (run.folder / base.STARTED).unlink()
    return read_run(run.folder)


def _stated_terms(config: TrainConfig) -> str | None:
    """The terms of what a training starts from, where its settings or an earlier run state them."""
    if config.init_from is None and config.pretrained in ("none", "timm"):
        return None
    if config.init_from is None and config.pretrained_license is not None:
        return config.pretrained_license
    path = Path(expand(config.init_from or config.pretrained))
    earlier = read_run(path) if path.is_dir() else run_of(path)
    return None if earlier is None else "; ".join(earlier.terms)


def read_metrics(folder: Path) -> list[Epoch]:
    """The lines of `metrics.jsonl`, one an epoch."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise ArtifactError(f"No {path}.", fix=FIX)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def validated_epochs(history: list[Epoch]) -> list[Epoch]:
    """The epochs of a history that ended with a validation."""
    return [line for line in history if "val" in line]


def best_epoch(history: list[Epoch]) -> Epoch:
    """The first epoch with the highest val macro-F1: the one whose weights are kept."""
    return max(validated_epochs(history), key=lambda line: (line["val"]["macro_f1"], -line["epoch"]))


def begin_run(folder: Path, fingerprint: str, config: RunConfig) -> None:
    """Take a folder for a run and write its `config.json`; one that was begun with the same settings goes on."""
    base.claim(folder, kind=KIND, fingerprint=fingerprint)
    _CONFIG.write(folder, config)


def finish_run(folder: Path, fingerprint: str, result: TrainingResult) -> None:
    """Write `environment.json` with the `result` of the training, then the manifest, which completes the run."""
    _ENVIRONMENT.write(folder, {**environment(), "training": result})
    files = [_CONFIG.file, "metrics.jsonl", WEIGHTS, _ENVIRONMENT.file]
    best: BestEpoch = {"best_epoch": result["best_epoch"], "best_val_macro_f1": result["best_val_macro_f1"]}
    meta = {"best": best, "events": result["events"]}
    base.write_manifest(folder, kind=KIND, version=VERSION, fingerprint=fingerprint, files=files, meta=meta)


def write_metrics(folder: Path, lines: list[Epoch]) -> None:
    """Rewrite `metrics.jsonl`; whole, so that a resumed run never doubles a line."""
    base.write_text(folder / "metrics.jsonl", "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


def environment(packages: tuple[str, ...] = ("torch", "timm", "accelerate", "numpy", "onnxruntime")) -> Environment:
    """Where a figure was taken: platform, processor, Python and package versions."""
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "packages": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
