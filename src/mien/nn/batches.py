"""Which rows make up a step: a pure function of (seed, step, rank), so that resume is exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mien.core.artifacts.pixels import PixelRows
from mien.core.labels import N_CLASSES


def step_seed(seed: int, step: int, purpose: int = 0) -> int:
    """A 63-bit seed for everything random in one step."""
    return int(np.random.SeedSequence([seed, step, purpose]).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True)
class Sampler:
    """Rows of each step. `labels` are those of the train rows; positions into them come out."""

    labels: NDArray[np.int64]
    batch_size: int
    seed: int
    balanced: bool

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass; the last incomplete batch is left out unless it is the only one."""
        return max(1, len(self.labels) // self.batch_size)

    def rows(self, step: int, *, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
        """Positions for `step` (counted from 0 over the whole training), this rank's share of them."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = self._order(epoch)
        size = min(self.batch_size, len(order))
        batch = order[within * size : (within + 1) * size]
        return batch[rank::world]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, epoch, 7])
        if not self.balanced:
            return rng.permutation(len(self.labels))
        # Every class equally often: whole shuffled passes over a class's rows, then a shuffled rest.
        per_class = -(-len(self.labels) // len(np.unique(self.labels)))
        parts = []
        for c in np.unique(self.labels):
            rows = np.flatnonzero(self.labels == c)
            passes = [rng.permutation(rows) for _ in range(-(-per_class // len(rows)))]
            parts.append(np.concatenate(passes)[:per_class])
        return rng.permutation(np.concatenate(parts))[: len(self.labels)]


def training_prior(labels: NDArray[np.int64], *, balanced: bool) -> list[float]:
    """The class shares that training shows: what the model's probabilities assume."""
    counts = np.bincount(labels, minlength=N_CLASSES).astype(float)
    if balanced:
        counts = (counts > 0).astype(float)
    return [float(v) for v in counts / counts.sum()]


def to_tensor(pixels: PixelRows, rows: NDArray[np.int64], device: torch.device) -> Tensor:
    """Packed pixels of `rows` as uint8 (b, c, s, s) on the device."""
    return torch.from_numpy(np.ascontiguousarray(pixels[rows])).to(device, non_blocking=True).permute(0, 3, 1, 2)
