"""Random numbers of a batch's augmentation, each image's its own, however a batch is spread over processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mien.nn.augment.image_ops import upload


@dataclass
class BatchRandom:
    """Uniform numbers for a part of a batch: drawn for `total` images, given for those at `part`."""

    generator: torch.Generator
    total: int
    part: slice
    device: torch.device

    def __call__(self, count: int) -> Tensor:
        """(b, count) numbers in [0, 1) on the device; the whole batch's are drawn whatever the part."""
        return upload(self.on_host(count), self.device)

    def on_host(self, count: int) -> Tensor:
        """The same on the CPU, for decisions that would make the host wait for the device."""
        return torch.rand(self.total, count, generator=self.generator)[self.part]


@dataclass
class ViewRandom(BatchRandom):
    """The numbers of one fixed view of `total` images: an image is augmented alike in every batch.

    `tables` holds what earlier batches of the same view drew, call by call; `rows` are the images of this batch.
    """

    tables: list[Tensor]
    rows: Tensor
    calls: int = 0

    def on_host(self, count: int) -> Tensor:
        """Rows of this call's table, which the first batch of the view draws for all images."""
        if self.calls == len(self.tables):
            self.tables.append(torch.rand(self.total, count, generator=self.generator))
        self.calls += 1
        return self.tables[self.calls - 1][self.rows]


def random_for(x: Tensor, generator: torch.Generator) -> BatchRandom:
    """The random numbers of a batch that is not divided."""
    return BatchRandom(generator, len(x), slice(None), x.device)
