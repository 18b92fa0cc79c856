"""Which rows make up a step: a pure function of (seed, step, rank), so that resume is exact."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


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
            order = self._orders[epoch] = self._draw(epoch)
            self._orders.pop(epoch - 2, None)
        return order

    def _draw(self, epoch: int) -> NDArray[np.int64]:
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
