"""Packed pixels to the device: all of them at once where they fit, or read ahead by a thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mien.core.artifacts.pixels import PixelRows


class PixelLoader:
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
        self._pending: dict[int, Future[Tensor]] = {}
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="pixels")
        size = len(rows) * int(np.prod(pixels.shape[1:]))
        self.resident: Tensor | None = None
        if device.type == "cuda" and size <= self.RESIDENT * torch.cuda.mem_get_info(device)[0]:
            self.resident = self._upload(rows)

    def take(self, step: int) -> Tensor:
        """The images of `step`, in the sampler's order."""
        if self.resident is not None:
            chosen = torch.from_numpy(self._positions(step)).to(self._device, non_blocking=True)
            return self.resident[chosen].permute(0, 3, 1, 2)
        for number in range(step, min(self._total, step + 1 + self.AHEAD)):
            if number not in self._pending:
                self._pending[number] = self._readers.submit(self._read, number)
        return self._pending.pop(step).result().to(self._device, non_blocking=True).permute(0, 3, 1, 2)

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
