"""The batches of a training: rows, pixels, augmentation, targets and mixing of each step, this process's share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mien.core.artifacts import base
from mien.core.artifacts.index import Index
from mien.core.artifacts.teacher_views import KIND, VERSION
from mien.core.config.train import TrainConfig
from mien.core.errors import UsageError
from mien.core.labels import LABELS, MINORITY
from mien.nn.augment.augmentation import Augmentation
from mien.nn.augment.image_ops import upload
from mien.nn.augment.mixing import mix
from mien.nn.augment.random_source import BatchRandom
from mien.nn.distillation.teacher import Teacher
from mien.nn.distillation.teacher_bank import AugmentedViews, TeacherBank
from mien.nn.training.losses import smooth
from mien.nn.training.pixel_loader import PixelLoader
from mien.nn.training.sampler import Sampler, part_of, step_seed
from mien.nn.training.train_rows import TrainRows

_LEAST = 1e-12  # probability, so that its logarithm is finite


@dataclass(frozen=True)
class Batch:
    """Augmented images (b, c, s, s), targets (b, 7) and, of a bank, a teacher's log-probabilities (b, 7)."""

    images: Tensor
    target: Tensor
    teacher_log_probs: Tensor | None = None


class Batches:
    """Gives every step's images and targets: a pure function of (settings, seed, step, share)."""

    def __init__(
        self, config: TrainConfig, index: Index, train: TrainRows, device: torch.device, *, rank: int, world: int
    ) -> None:
        _check_share(config, world)
        self.config, self.device, self.rank, self.world = config, device, rank, world
        rows, labels = train.rows, train.labels
        self._index, self.rows = index, rows
        self.views: AugmentedViews | None = None
        self.bank: TeacherBank | None = None
        self.targets = torch.from_numpy(train.targets).to(device)
        self.sampler = Sampler(labels, config.batch_size, config.seed, config.balanced, train.chance)
        minority = np.isin(labels, [LABELS.index(name) for name in MINORITY])
        self.boost = torch.from_numpy(np.where(minority, config.minority_boost, 1.0).astype(np.float32))
        self.augment = Augmentation(**{key: getattr(config, key) for key in Augmentation.__dataclass_fields__})
        self.loader = PixelLoader(index.pixels, rows, device, self._rows, config.epochs * self.sampler.steps_per_epoch)

    def _rows(self, step: int) -> NDArray[np.int64]:
        return self.sampler.rows(step, rank=self.rank, world=self.world)

    def use_views(self, count: int, folder: Path, teacher: Callable[[], Teacher] | None) -> None:
        """Show `count` fixed views in turn; with a teacher its log-probabilities of each are kept below `folder`."""
        self.views = AugmentedViews(count, self.augment, self._index.pixels, self.rows, self.boost, self.device)
        if teacher is None:
            return
        described = {"augmentation": asdict(self.augment), "minority_boost": self.config.minority_boost}
        rows = hashlib.sha256(self.rows.tobytes() + np.ascontiguousarray(self.boost.numpy()).tobytes()).hexdigest()
        fingerprint = base.fingerprint(KIND, VERSION, described, {"index": self._index.content_hash, "rows": rows})
        self.bank = TeacherBank(self.views, folder / fingerprint[:16], teacher)

    def __call__(self, step: int, mixing: float) -> Batch:
        """The step's batch of this process, mixed with probability `mixing`."""
        config, size = self.config, min(self.config.batch_size, len(self.targets))
        generator = torch.Generator().manual_seed(step_seed(config.seed, step))
        rows = self._rows(step)
        teacher_log_probs: Tensor | None = None
        uniform = BatchRandom(generator, size, part_of(size, self.rank, self.world), self.device)
        if self.views is not None:
            view = self.views.of_epoch(step // self.sampler.steps_per_epoch)
            uniform = self.views.uniform(view, rows)
            teacher_log_probs = self.bank.log_probabilities(view, rows) if self.bank is not None else None
        x = self.augment(self.loader.take(step), uniform, self.boost[rows])
        target = smooth(self.targets[upload(torch.from_numpy(rows), self.device)], config.label_smoothing)
        if config.mixing == "none":
            return Batch(x, target, teacher_log_probs)
        if teacher_log_probs is None:
            return Batch(*self._mix(x, target, mixing, step, generator))
        x, joined = self._mix(x, torch.cat([target, teacher_log_probs.exp()], 1), mixing, step, generator)
        target, probabilities = joined.chunk(2, 1)
        return Batch(x, target, probabilities.clamp_min(_LEAST).log())

    def _mix(
        self, x: Tensor, target: Tensor, probability: float, step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        kind, alpha = self.config.mixing, self.config.mix_alpha
        return mix(x, target, kind=kind, alpha=alpha, probability=probability, step=step, generator=generator)

    def close(self) -> None:
        """Stop reading ahead."""
        self.loader.close()


def _check_share(config: TrainConfig, world: int) -> None:
    parts = world * config.accumulate
    each = parts * (2 if config.mixing != "none" else 1)
    if config.batch_size % each and parts > 1:
        raise UsageError(
            f"--batch-size {config.batch_size} over {world} processes in {config.accumulate} parts.",
            rule="Every part holds equally many images"
            + (", and whole pairs where they are mixed." if config.mixing != "none" else "."),
            fix=f"Use a multiple of {each}.",
        )
