"""The batches of a training: rows, pixels, augmentation, targets and mixing of each step, this process's share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mien.core.artifacts.index import Index
from mien.core.config.train import TrainConfig
from mien.core.errors import UsageError
from mien.core.labels import LABELS, MINORITY
from mien.nn.augment import Augmentation, Draws
from mien.nn.batches import Feeder, Sampler, part_of, step_seed
from mien.nn.doubt import TrainRows
from mien.nn.image_ops import upload
from mien.nn.losses import smooth
from mien.nn.mixing import mix


class Feed:
    """Gives every step's pictures and targets: a pure function of (settings, seed, step, share)."""

    def __init__(
        self, config: TrainConfig, index: Index, taught: TrainRows, device: torch.device, *, rank: int, world: int
    ) -> None:
        _check_share(config, world)
        self.config, self.device, self.rank, self.world = config, device, rank, world
        rows, labels = taught.rows, taught.labels
        self.targets = torch.from_numpy(taught.targets).to(device)
        self.sampler = Sampler(labels, config.batch_size, config.seed, config.balanced, taught.chance)
        minority = np.isin(labels, [LABELS.index(name) for name in MINORITY])
        self.boost = torch.from_numpy(np.where(minority, config.minority_boost, 1.0).astype(np.float32))
        strengths: dict[str, Any] = {key: getattr(config, key) for key in Augmentation.__dataclass_fields__}
        self.augment = Augmentation(**strengths)
        self.feeder = Feeder(index.pixels, rows, device, self._rows, config.epochs * self.sampler.steps_per_epoch)

    def _rows(self, step: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        return self.sampler.rows(step, rank=self.rank, world=self.world)

    def __call__(self, step: int, mixing: float) -> tuple[Tensor, Tensor]:
        """Augmented pictures (b, c, s, s) and targets (b, 7) of this process, mixed with probability `mixing`."""
        config, size = self.config, min(self.config.batch_size, len(self.targets))
        generator = torch.Generator().manual_seed(step_seed(config.seed, step))
        rows = self._rows(step)
        draws = Draws(generator, size, part_of(size, self.rank, self.world), self.device)
        x = self.augment(self.feeder.take(step), draws, self.boost[rows])
        target = smooth(self.targets[upload(torch.from_numpy(rows), self.device)], config.label_smoothing)
        if config.mixing == "none":
            return x, target
        return mix(
            x, target, kind=config.mixing, alpha=config.mix_alpha, probability=mixing, step=step, generator=generator
        )

    def close(self) -> None:
        """Stop reading ahead."""
        self.feeder.close()


def _check_share(config: TrainConfig, world: int) -> None:
    parts = world * config.accumulate
    each = parts * (2 if config.mixing != "none" else 1)
    if config.batch_size % each and parts > 1:
        raise UsageError(
            f"--batch-size {config.batch_size} over {world} processes in {config.accumulate} parts.",
            rule="Every part holds equally many pictures"
            + (", and whole pairs where they are mixed." if config.mixing != "none" else "."),
            fix=f"Use a multiple of {each}.",
        )
