"""Augmentation in batches, on the device. Every image's randomness is drawn for the whole batch.

So an image is augmented alike however the batch is spread over devices or parts. With every
strength at zero the pixels come back bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mien.nn.augment.image_ops import clahe, upload, warp
from mien.nn.augment.randaugment import rand_augment
from mien.nn.augment.random_source import BatchRandom
from mien.nn.augment.webcam import degrade


@dataclass(frozen=True)
class Augmentation:
    """Strengths; see the training flags of the same names."""

    crop_min: float = 1.0
    rotate: float = 0.0
    flip: bool = False
    jitter: float = 0.0
    clahe: float = 0.0
    randaugment: int = 0
    randaugment_magnitude: float = 5.0
    erase: float = 0.0
    degrade: float = 0.0

    def __call__(self, x: Tensor, uniform: BatchRandom, boost: Tensor | None = None) -> Tensor:
        """Augment images (b, c, s, s) with values 0-255; uint8 stays uint8 when nothing is to do.

        `boost` (b,), on the CPU, multiplies the strengths of single images (those of minority classes).
        """
        on_host = torch.ones(len(x)) if boost is None else boost
        boost = upload(on_host, x.device)
        if self.flip:
            x = torch.where((uniform(1) < 0.5).view(-1, 1, 1, 1), x.flip(3), x)
        if self.clahe > 0:
            x = self._equalize(x.float(), uniform.on_host(1)[:, 0] < self.clahe * on_host)
        if self.randaugment > 0:
            x = rand_augment(x.float(), uniform, self.randaugment, self.randaugment_magnitude / 10 * boost)
        if self.crop_min < 1 or self.rotate > 0:
            x = self._affine(x.float(), uniform(5), boost)
        if self.jitter > 0:
            x = self._jitter(x.float(), uniform(3), boost)
        if self.degrade > 0:
            x = degrade(x.float(), uniform(8), self.degrade * boost)
        if self.erase > 0:
            x = self._erase(x, uniform(5), boost)
        return x

    def _equalize(self, x: Tensor, chosen: Tensor) -> Tensor:
        rows = upload(chosen.nonzero()[:, 0], x.device)
        return x.index_copy(0, rows, clahe(x[rows])) if len(rows) else x

    def _affine(self, x: Tensor, r: Tensor, boost: Tensor) -> Tensor:
        """Random resized crop and rotation in one resampling; edges are replicated."""
        area = (1 - (1 - self.crop_min) * boost).clamp_min(0.1)
        area = area + (1 - area) * r[:, 0]
        # Wider or narrower by up to e^±0.1, where there is cropping at all.
        ratio = torch.exp((r[:, 1] - 0.5) * (0.4 if self.crop_min < 1 else 0.0))
        sx, sy = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        dx, dy = (2 * r[:, 2] - 1) * (1 - sx), (2 * r[:, 3] - 1) * (1 - sy)
        angle = (2 * r[:, 4] - 1) * self.rotate * boost * torch.pi / 180
        cos, sin = torch.cos(angle), torch.sin(angle)
        theta = torch.stack([torch.stack([sx * cos, -sy * sin, dx], 1), torch.stack([sx * sin, sy * cos, dy], 1)], 1)
        return warp(x, theta)

    def _jitter(self, x: Tensor, r: Tensor, boost: Tensor) -> Tensor:
        """Contrast, brightness and (of coloured images) saturation, each changed by up to `jitter`."""
        change = ((2 * r - 1) * (self.jitter * boost).clamp(max=1).unsqueeze(1)).view(-1, 3, 1, 1, 1)
        mean = x.mean((1, 2, 3), keepdim=True)
        x = (x - mean) * (1 + change[:, 0]) + mean
        if x.shape[1] == 3:
            grey = x.mean(1, keepdim=True)
            x = (x - grey) * (1 + change[:, 2]) + grey
        return (x * (1 + change[:, 1])).clamp(0, 255)

    def _erase(self, x: Tensor, r: Tensor, boost: Tensor) -> Tensor:
        """Random erasing (Zhong et al. 2020, arXiv 1708.04896) with mid-grey, 2-20 % of the area."""
        h, w = x.shape[2:]
        area, ratio = 0.02 + 0.18 * r[:, 1], torch.exp((2 * r[:, 2] - 1) * 1.1)
        eh, ew = ((area * ratio).sqrt() * h).clamp(1, h), ((area / ratio).sqrt() * w).clamp(1, w)
        top, left = r[:, 3] * (h - eh), r[:, 4] * (w - ew)
        ys, xs = torch.arange(h, device=x.device).view(1, h, 1), torch.arange(w, device=x.device).view(1, 1, w)
        inside = (
            (ys >= top.view(-1, 1, 1))
            & (ys < (top + eh).view(-1, 1, 1))
            & (xs >= left.view(-1, 1, 1))
            & (xs < (left + ew).view(-1, 1, 1))
        )
        inside &= (r[:, 0] < self.erase * boost).view(-1, 1, 1)
        return torch.where(inside.unsqueeze(1), torch.full_like(x, 127), x)
