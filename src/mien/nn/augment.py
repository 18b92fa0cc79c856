"""Augmentation in batches, on the device. Randomness comes from a generator that the step seeds.

With every strength at zero the pixels come back bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """Strengths; see the training flags of the same names."""

    crop_min: float = 1.0
    rotate: float = 0.0
    flip: bool = False
    jitter: float = 0.0
    erase: float = 0.0

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Augment pictures (b, c, s, s) with values 0-255; uint8 stays uint8 when nothing is to do."""
        if self.flip:
            mirrored = torch.rand(len(x), generator=generator) < 0.5
            x = torch.where(mirrored.to(x.device).view(-1, 1, 1, 1), x.flip(3), x)
        if self.crop_min < 1 or self.rotate > 0:
            x = self._affine(x.float(), generator)
        if self.jitter > 0:
            x = self._jitter(x.float(), generator)
        if self.erase > 0:
            x = self._erase(x, generator)
        return x

    def _affine(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Random resized crop and rotation in one resampling; edges are replicated."""
        n = len(x)
        r = torch.rand(n, 5, generator=generator)
        area = self.crop_min + (1 - self.crop_min) * r[:, 0]
        ratio = torch.exp((r[:, 1] - 0.5) * 0.4)
        sx, sy = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        dx, dy = (2 * r[:, 2] - 1) * (1 - sx), (2 * r[:, 3] - 1) * (1 - sy)
        angle = (2 * r[:, 4] - 1) * self.rotate * torch.pi / 180
        cos, sin = torch.cos(angle), torch.sin(angle)
        theta = torch.stack([torch.stack([sx * cos, -sy * sin, dx], 1), torch.stack([sx * sin, sy * cos, dy], 1)], 1)
        grid = F.affine_grid(theta.to(x.device), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _jitter(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Brightness and contrast, each changed by up to `jitter`."""
        r = (2 * torch.rand(len(x), 2, generator=generator) - 1).to(x.device) * self.jitter
        mean = x.mean((1, 2, 3), keepdim=True)
        contrast = (x - mean) * (1 + r[:, 0]).view(-1, 1, 1, 1) + mean
        return (contrast * (1 + r[:, 1]).view(-1, 1, 1, 1)).clamp(0, 255)

    def _erase(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Random erasing (Zhong et al. 2020, arXiv 1708.04896) with mid-grey, 2-20 % of the area."""
        n, _, h, w = x.shape
        r = torch.rand(n, 5, generator=generator)
        area, ratio = 0.02 + 0.18 * r[:, 1], torch.exp((2 * r[:, 2] - 1) * 1.1)
        eh, ew = ((area * ratio).sqrt() * h).clamp(1, h), ((area / ratio).sqrt() * w).clamp(1, w)
        top, left = r[:, 3] * (h - eh), r[:, 4] * (w - ew)
        ys, xs = torch.arange(h).view(1, h, 1), torch.arange(w).view(1, 1, w)
        inside = (
            (ys >= top.view(-1, 1, 1))
            & (ys < (top + eh).view(-1, 1, 1))
            & (xs >= left.view(-1, 1, 1))
            & (xs < (left + ew).view(-1, 1, 1))
        )
        inside &= (r[:, 0] < self.erase).view(-1, 1, 1)
        return torch.where(inside.unsqueeze(1).to(x.device), torch.full_like(x, 127), x)


def mixup(x: Tensor, target: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """MixUp (Zhang et al. 2018, arXiv 1710.09412) of pictures (b, c, s, s) and shares (b, k).

    One share a batch, drawn from Beta(alpha, alpha).
    """
    if alpha <= 0:
        return x, target
    share = _beta(alpha, generator)
    order = torch.randperm(len(x), generator=generator).to(x.device)
    x = x.float()
    return share * x + (1 - share) * x[order], share * target + (1 - share) * target[order]


def _beta(alpha: float, generator: torch.Generator) -> float:
    """One draw of Beta(alpha, alpha) by Jöhnk's algorithm (1964), from the generator alone."""
    while True:
        u, v = (float(torch.rand((), generator=generator, dtype=torch.float64)) ** (1 / alpha) for _ in range(2))
        if 0 < u + v <= 1:
            return float(u / (u + v))
