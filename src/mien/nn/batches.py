"""Which rows make up a step: a pure function of (seed, step, rank), so that resume is exact."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

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
    """Rows of each step. `labels` are those of the train rows; positions into them come out.

    `chance` (n,) is how likely an epoch is to draw each row; the places of those left out go to others.
    """

    labels: NDArray[np.int64]
    batch_size: int
    seed: int
    balanced: bool
    chance: NDArray[np.float64] | None = None
    _orders: dict[int, NDArray[np.int64]] = field(default_factory=dict, repr=False, compare=False)

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
        return batch[part_of(size, rank, world)]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        # The reading thread may be an epoch ahead: orders are kept by epoch, never replaced.
        order = self._orders.get(epoch)
        if order is None:
            order = self._orders[epoch] = self._drawn(epoch)
            self._orders.pop(epoch - 2, None)
        return order

    def _drawn(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, epoch, 7])
        drawn = np.ones(len(self.labels), dtype=bool)
        if self.chance is not None:
            drawn = np.random.default_rng([self.seed, epoch, 8]).random(len(self.labels)) < self.chance
        if not self.balanced:
            return _filled(rng.permutation(len(self.labels)), drawn)
        # Every class equally often: whole shuffled passes over a class's rows, then a shuffled rest.
        per_class = -(-len(self.labels) // len(np.unique(self.labels)))
        parts = []
        for c in np.unique(self.labels):
            rows = np.flatnonzero((self.labels == c) & drawn)
            rows = rows if len(rows) else np.flatnonzero(self.labels == c)
            passes = [rng.permutation(rows) for _ in range(-(-per_class // len(rows)))]
            parts.append(np.concatenate(passes)[:per_class])
        return rng.permutation(np.concatenate(parts))[: len(self.labels)]


def _filled(order: NDArray[np.int64], drawn: NDArray[np.bool_]) -> NDArray[np.int64]:
    """An order with the rows that are not drawn replaced by further passes over those that are."""
    kept = order[drawn[order]]
    return np.resize(kept, len(order)) if len(kept) else order


def part_of(size: int, number: int, parts: int) -> slice:
    """The `number`-th of equal, connected parts of a batch."""
    return slice(number * size // parts, (number + 1) * size // parts)


def shown_prior(
    targets: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    balanced: bool,
    chance: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """The class shares (7,) that training shows: of targets (n, 7), each row as often as `Sampler` draws it."""
    weight = np.ones(len(labels)) if chance is None else chance
    # Where nothing may be drawn, the sampler draws everything: of all rows, or, balanced, of a class.
    group = labels if balanced else np.zeros_like(labels)
    weight = np.where(np.bincount(group, weight, minlength=N_CLASSES)[group] > 0, weight, 1.0)
    if balanced:
        weight = weight / np.bincount(labels, weight, minlength=N_CLASSES)[labels]
    prior = (weight[:, None] * targets).sum(0)
    out: NDArray[np.float64] = prior / prior.sum()
    return out


def assumed_prior(shown: NDArray[np.float64], loss: str, tau: float) -> NDArray[np.float64]:
    """The class shares that the trained logits assume: shown^(1 - tau) where the loss adjusts by tau."""
    power = {"balanced_softmax": 0.0, "logit_adjusted": 1.0 - tau}.get(loss, 1.0)
    prior = shown**power
    out: NDArray[np.float64] = prior / prior.sum()
    return out


class Feeder:
    """Packed pixels of the steps to come, as uint8 (b, c, s, s) on the device.

    On an accelerator the whole train split is moved there once, when it takes at most `RESIDENT` of
    the free memory; otherwise a thread reads ahead.
    """

    RESIDENT, AHEAD = 0.4, 2

    def __init__(
        self,
        pixels: PixelRows,
        rows: NDArray[np.int64],
        device: torch.device,
        positions: Callable[[int], NDArray[np.int64]],
        total: int,
    ) -> None:
        self._pixels, self._rows, self._device, self._positions, self._total = pixels, rows, device, positions, total
        self._coming: dict[int, Future[Tensor]] = {}
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="feeder")
        size = len(rows) * int(np.prod(pixels.shape[1:]))
        self.resident: Tensor | None = None
        if device.type == "cuda" and size <= self.RESIDENT * torch.cuda.mem_get_info(device)[0]:
            self.resident = self._upload(rows)

    def take(self, step: int) -> Tensor:
        """The pictures of `step`, in the sampler's order."""
        if self.resident is not None:
            chosen = torch.from_numpy(self._positions(step)).to(self._device, non_blocking=True)
            return self.resident[chosen].permute(0, 3, 1, 2)
        for number in range(step, min(self._total, step + 1 + self.AHEAD)):
            if number not in self._coming:
                self._coming[number] = self._readers.submit(self._read, number)
        return self._coming.pop(step).result().to(self._device, non_blocking=True).permute(0, 3, 1, 2)

    def close(self) -> None:
        """Stop reading ahead."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    def _read(self, step: int) -> Tensor:
        block = torch.from_numpy(np.ascontiguousarray(self._pixels[self._rows[self._positions(step)]]))
        return block.pin_memory() if self._device.type == "cuda" else block

    def _upload(self, rows: NDArray[np.int64]) -> Tensor:
        out = torch.empty((len(rows), *self._pixels.shape[1:]), dtype=torch.uint8, device=self._device)
        for start in range(0, len(rows), 4096):
            block = torch.from_numpy(np.ascontiguousarray(self._pixels[rows[start : start + 4096]]))
            out[start : start + len(block)].copy_(block)
        return out


def to_tensor(pixels: PixelRows, rows: NDArray[np.int64], device: torch.device) -> Tensor:
    """Packed pixels of `rows` as uint8 (b, c, s, s) on the device."""
    return torch.from_numpy(np.ascontiguousarray(pixels[rows])).to(device, non_blocking=True).permute(0, 3, 1, 2)
