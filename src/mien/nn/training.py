"""One training from request to finished run folder; what `train` and `distill` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mien.core.artifacts import base
from mien.core.artifacts.index import Index
from mien.core.artifacts.run import KIND, VERSION, Run, environment, read_run
from mien.core.config.train import ALIASES, TrainConfig, check_backbone
from mien.core.errors import UsageError
from mien.nn.backbones import make_network, parameter_count
from mien.nn.batches import training_prior
from mien.nn.loop import Score, Teacher, Trainer
from mien.nn.torchvision_cure import import_timm


def train_run(
    config: TrainConfig, origin: dict[str, dict[str, Any]], index: Index, out: Path, mark: str,
    *, score: Score, teacher: Callable[[], Teacher] | None = None, extra: dict[str, Any] | None = None,
) -> Run:  # fmt: skip
    """Train in `out`, or go on there; `teacher` is called when training really starts.

    Everything that can be wrong with the request is checked before `out` is touched.
    """
    base.claimable(out, kind=KIND, fingerprint=mark)
    labels = index.labels[index.rows("train")]
    if config.batch_size > len(labels):
        raise UsageError(
            f"--batch-size {config.batch_size} with {len(labels)} train rows.", rule="A batch fits into train."
        )
    check_name(config.backbone)
    network = make_network(config.model_dump(), crop_size=index.crop.size, color=index.crop.color)
    base.claim(out, kind=KIND, fingerprint=mark)
    document = {
        "settings": origin, "index": {"content": index.content_hash, "sources": index.sources, "licenses": index.license_terms},
        "crop": index.crop.model_dump(), "parameters": parameter_count(network),
        "training_prior": training_prior(labels, balanced=config.balanced_sampling), "train_rows": len(labels), **(extra or {}),
    }  # fmt: skip
    base.write_json(out / "config.json", document)
    del network
    result = Trainer(config, index, out, score=score, teacher=teacher() if teacher else None).run()
    base.write_json(out / "environment.json", {**environment(), "training": result})
    files = ["config.json", "metrics.jsonl", "best.safetensors", "environment.json"]
    base.write_manifest(
        out,
        kind=KIND,
        version=VERSION,
        fingerprint=mark,
        files=files,
        meta={"best": {k: result[k] for k in ("best_epoch", "best_val_macro_f1")}},
    )
    return read_run(out)


def check_name(backbone: str) -> None:
    """Raise a `UsageError` with the nearest name for a backbone that nobody knows."""
    if backbone not in ALIASES:
        timm: Any = import_timm()
        check_backbone(backbone, timm.list_models())
