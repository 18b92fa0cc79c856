"""An index to a run."""

from __future__ import annotations

from pathlib import Path

from mien.core.artifacts import base
from mien.core.artifacts.index import read_index
from mien.core.artifacts.plan import is_made
from mien.core.artifacts.run import KIND, VERSION, Run, read_run, starting_point, with_stated_terms
from mien.core.config.base import Origins
from mien.core.config.train import TrainConfig
from mien.core.config.train_groups import ALIASES
from mien.evaluate.metrics import score_logits


def run(config: TrainConfig, origin: Origins, index_folder: Path, out: Path, *, replace: bool = False) -> Run:
    """Train, go on with an unfinished training, or return the finished run.

    With `replace` a run of other settings at `out` makes way (a study owns its folders). Raises `UsageError` while
    another training writes there.
    """
    index = read_index(index_folder)
    fingerprint = base.fingerprint(
        KIND,
        VERSION,
        config.identity(),
        {"index": index.content_hash, **starting_point(config, index)},
    )
    if is_made(out, fingerprint, holds="is trained already"):
        return with_stated_terms(read_run(out), config, origin)
    from mien.nn.training.run import train_run, writing  # noqa: PLC0415  (torch)

    with writing(out):
        if replace:
            base.make_way(out, fingerprint)
        return train_run(config, origin, index, out, fingerprint, score=score_logits)


def check(config: TrainConfig) -> None:
    """Raise for an unknown backbone; our own names are checked without loading torch."""
    if config.backbone not in ALIASES:
        from mien.nn.training.run import check_name  # noqa: PLC0415  (torch)

        check_name(config.backbone)
