"""One training from request to finished run folder; what `train` and `distill` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from mien.core.artifacts import base
from mien.core.artifacts.checkpoint import load_weights
from mien.core.artifacts.index import Index
from mien.core.artifacts.lock import only_writer
from mien.core.artifacts.run import KIND, Run, RunConfig, StartedFrom, TaughtBy, begin_run, finish_run, read_run
from mien.core.config.base import Origins, expand
from mien.core.config.train import TrainConfig
from mien.core.config.train_groups import ALIASES, check_backbone
from mien.core.errors import InputError, UsageError
from mien.core.labels import LABELS, N_CLASSES
from mien.core.progress import warn
from mien.nn.devices import processes
from mien.nn.distillation.teacher import Teacher
from mien.nn.models.network import Network, make_network, parameter_count
from mien.nn.models.pretrained import load_pretrained
from mien.nn.torchvision_cure import import_timm
from mien.nn.training.priors import assumed_prior, shown_prior
from mien.nn.training.train_rows import TrainRows, train_rows
from mien.nn.training.trainer import Trainer
from mien.nn.training.validation import Score


def train_run(
    config: TrainConfig,
    origin: Origins,
    index: Index,
    out: Path,
    fingerprint: str,
    *,
    score: Score,
    teacher: Callable[[], Teacher] | None = None,
    views: Path | None = None,
    taught_by: TaughtBy | None = None,
) -> Run:
    """Train in `out`, or go on there; `teacher` is called after all checks, and only where it is needed.

    `views` is where a teacher's log-probabilities of augmented views are kept.

    Everything that can be wrong with the request is checked before `out` is touched. Of several
    processes (`accelerate launch`, torchrun) the first one alone writes. The caller holds `writing(out)`.
    """
    together = processes()
    for text in config.oddities(
        {key for key, entry in origin.items() if entry["from"] not in ("built-in", "recipe", "run")}
    ):
        warn(text)
    base.claimable(out, kind=KIND, fingerprint=fingerprint)
    train = train_rows(config, index)
    check_request(config, index, train)
    torch.manual_seed(config.seed)
    network, started_from = _start(config, index)
    training_prior, predicts_prior = _set_priors(network, config, index, train)
    document: RunConfig = {
        "settings": origin,
        "index": {"content": index.content_hash, "sources": index.sources, "licenses": index.license_terms},
        "crop": index.crop.document(),
        "parameters": parameter_count(network),
        "started_from": started_from,
        "balanced_sampling": config.balanced,
        "training_prior": training_prior,
        "predicts_prior": predicts_prior,
        "train_rows": len(train.rows),
    }
    if taught_by is not None:
        document["teacher"] = taught_by
    trainer = Trainer(config, index, out, network, train, score=score, teacher=teacher, views=views)
    together.wait_for_everyone()
    if together.is_main_process:
        begin_run(out, fingerprint, document)
    together.wait_for_everyone()
    result = trainer.run()
    if together.is_main_process:
        finish_run(out, fingerprint, result)
    together.wait_for_everyone()
    return read_run(out)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Keep other trainings from `out`; of several processes of one training the first holds the lock.

    Raises `UsageError` where another training writes there.
    """
    with only_writer(out) if processes().is_main_process else nullcontext():
        yield


def check_request(config: TrainConfig, index: Index, train: TrainRows) -> None:
    """Raise for what this index cannot give this training."""
    labels, val = train.labels, index.labels[index.rows("val")]
    fix = "See what the index holds with `mien index audit`, and build one with more sources or other shares."
    if not len(val):
        raise InputError(f"{index.folder} has no val images.", rule="val chooses the epoch.", fix=fix)
    lacking = [name for number, name in enumerate(LABELS) if number not in labels]
    if lacking:
        raise InputError(
            f"{index.folder} has no train image of: {', '.join(lacking)}.",
            rule="Each of the seven classes must be shown.",
            fix=fix,
        )
    unseen = [name for number, name in enumerate(LABELS) if number not in val]
    if unseen:
        warn(f"val has no image of {', '.join(unseen)}: macro-F1 counts such a class as 0 when it is predicted")
    if config.batch_size > len(labels):
        raise UsageError(
            f"--batch-size {config.batch_size} with {len(labels)} train rows.", rule="A batch fits into train."
        )
    if config.soft_votes and not _has_votes(index):
        raise InputError(
            f"--soft-votes, but {index.folder} has no annotators' votes.",
            rule="FER+ brings them.",
            fix="Add the source ferplus=FOLDER, or leave the flag out.",
        )
    if config.tracker in ("mlflow", "wandb") and find_spec(config.tracker) is None:
        raise UsageError(
            f"--tracker {config.tracker} needs the package {config.tracker}.", fix=f"pip install {config.tracker}"
        )
    check_name(config.backbone)


def _has_votes(index: Index) -> bool:
    """Whether any train row's votes are more than its label."""
    rows = index.rows("train")
    return bool((index.votes[rows] != np.eye(N_CLASSES, dtype=np.float32)[index.labels[rows]]).any())


def _start(config: TrainConfig, index: Index) -> tuple[Network, StartedFrom | None]:
    """The network with the weights it starts from, and where these come from."""
    crop, start = index.crop, load_pretrained(config)
    network = make_network(config, crop_size=crop.size, color=crop.color, start=start)
    if config.init_from is None:
        return network, None if start is None else start.origin
    earlier = read_run(Path(expand(config.init_from)))
    try:
        network.load_state_dict(load_weights(earlier.weights))
    except RuntimeError as error:
        raise UsageError(
            f"--init-from {earlier.folder}: {str(error).splitlines()[-1].strip()}",
            rule="A run is polished with the same backbone, stem and head.",
            fix=(
                f"Give its settings: --backbone {earlier.settings['backbone']} --head {earlier.settings['head']} "
                f"--stem {earlier.settings['stem']}."
            ),
        ) from None
    return network, {"from": f"run {earlier.name}", "sha256": earlier.weights_hash, "license": "; ".join(earlier.terms)}


def _set_priors(
    network: Network, config: TrainConfig, index: Index, train: TrainRows
) -> tuple[list[float] | None, list[float] | None]:
    """Put the shift between priors into the network; returns the class shares trained for and predicted with.

    Both are None, unknown, under hard-example mining: which classes the largest losses belong to is known only after
    training.
    """
    if config.hard_share < 1:
        return None, None
    natural = np.bincount(index.labels[index.rows("train")], minlength=N_CLASSES).astype(np.float64)
    shares = shown_prior(train.targets, train.labels, balanced=config.balanced, chance=train.chance)
    trained = assumed_prior(shares, config.loss, config.logit_adjust_tau)
    predicted = {
        "trained": trained,
        "natural": natural / natural.sum(),
        "uniform": np.full(N_CLASSES, 1 / N_CLASSES),
    }[config.predict_prior]
    network.prior_shift.copy_(torch.from_numpy(np.log(predicted) - np.log(trained)))
    return trained.tolist(), predicted.tolist()


def check_name(backbone: str) -> None:
    """Raise a `UsageError` with the nearest name for a backbone that nobody knows."""
    if backbone not in ALIASES:
        check_backbone(backbone, import_timm().list_models())
