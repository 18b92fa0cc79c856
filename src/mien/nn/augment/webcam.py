"""What cameras and live detection do to face crops, as an augmentation: one degradation an image, and a moved box.

In the spirit of ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261); the strengths are drawn continuously, up
to about strength 4 of `mien.evaluate.corruptions`, whose own code and random numbers are others.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from mien.nn.augment.image_ops import warp

_SIDES = (0.6, 0.45, 0.33, 0.25)  # what a small face leaves of the crop's side
_LARGEST_SHIFT = 0.1  # of the box's side; its scale changes by as much
_FIELDS = 256  # fields of noise, of which each image takes one

# ITU-T T.81, table K.1: luminance.
_QUANTISATION = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def degrade(x: Tensor, r: Tensor, probability: Tensor) -> Tensor:
    """Images (b, c, s, s), 0-255, of which each is degraded with its `probability` (b,); `r` (b, 8) is uniform.

    A degraded image's box is shifted and scaled by up to a tenth, and then one of blur, low resolution, noise, JPEG and
    low light is applied.
    """
    chosen = r[:, 0] < probability
    kind, strength = (r[:, 1] * len(_KINDS)).long(), r[:, 2]
    out = _move_box(x, r[:, 3:6])
    for number, change in enumerate(_KINDS):
        rows = (kind == number).nonzero()[:, 0]
        if len(rows):
            out = out.index_copy(0, rows, change(out[rows], strength[rows], r[rows, 6:]).to(out.dtype))
    return torch.where(chosen.view(-1, 1, 1, 1), out.clamp(0, 255), x)


def _move_box(x: Tensor, r: Tensor) -> Tensor:
    """The crop of a box whose centre and side are off by up to a tenth; edges are replicated."""
    scale = torch.exp((2 * r[:, 0] - 1) * math.log1p(_LARGEST_SHIFT))
    shift = (2 * r[:, 1:3] - 1) * 2 * _LARGEST_SHIFT  # grid coordinates span 2
    zero = torch.zeros_like(scale)
    theta = torch.stack([torch.stack([scale, zero, shift[:, 0]], 1), torch.stack([zero, scale, shift[:, 1]], 1)], 1)
    return warp(x, theta)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of images (b, c, s, s) with a `sigma` (b,) of their own, in pixels; edges are mirrored."""
    b, c, h, w = x.shape
    reach = min(math.ceil(3 * float(sigma.max())), h - 1, w - 1)
    offsets = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma.view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)
    flat = F.pad(x.reshape(1, b * c, h, w), (reach, reach, reach, reach), mode="reflect")
    flat = F.conv2d(flat, kernel.view(b * c, 1, 1, -1), groups=b * c)
    return F.conv2d(flat, kernel.view(b * c, 1, -1, 1), groups=b * c).view(b, c, h, w)


def _blur(x: Tensor, strength: Tensor, _: Tensor) -> Tensor:
    return blur(x, (0.005 + 0.045 * strength) * x.shape[3])


def _low_resolution(x: Tensor, strength: Tensor, _: Tensor) -> Tensor:
    out, kind = x, (strength * len(_SIDES)).long()
    for number, share in enumerate(_SIDES):
        rows = (kind == number).nonzero()[:, 0]
        if len(rows):
            small = F.interpolate(x[rows], size=max(4, round(share * x.shape[3])), mode="area")
            large = F.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=False)
            out = out.index_copy(0, rows, large)
    return out


@cache
def _fields(side: int) -> Tensor:
    """Standard normal fields (256, 1, side, side), the same in every process.

    Drawing noise for each image anew would cost as many random numbers as there are pixels, in every step and process.
    """
    return torch.randn(_FIELDS, 1, side, side, generator=torch.Generator().manual_seed(0))


def _grain(x: Tensor, r: Tensor) -> Tensor:
    fields = _fields(x.shape[3]).to(x.device)[(r[:, 0] * _FIELDS).long()]
    return torch.where((r[:, 1] < 0.5).view(-1, 1, 1, 1), fields, fields.flip(2))


def _noise(x: Tensor, strength: Tensor, r: Tensor) -> Tensor:
    return x + (4 + 34 * strength).view(-1, 1, 1, 1) * _grain(x, r)


def _low_light(x: Tensor, strength: Tensor, r: Tensor) -> Tensor:
    """Fewer photons: darker, with noise that grows with the root of the light."""
    light = x / 255 * (0.7 - 0.5 * strength).view(-1, 1, 1, 1)
    return 255 * (light + _grain(x, r) * (light.mean(1, keepdim=True) / 400).sqrt())


@cache
def _cosines() -> Tensor:
    """The orthonormal DCT-II of eight numbers, (8, 8)."""
    k, n = torch.arange(8.0).view(-1, 1), torch.arange(8.0)
    table = torch.cos(math.pi * (2 * n + 1) * k / 16) / 2
    table[0] /= math.sqrt(2)
    return table


def jpeg(x: Tensor, quality: Tensor) -> Tensor:
    """JPEG's loss on images (b, c, s, s), 0-255, at a `quality` (b,) of 1 to 100 as libjpeg counts it.

    Every channel is coded as luminance: exact for grey images; for coloured ones without the coarser chroma of the
    codec.
    """
    b, c, h, w = x.shape
    padded = F.pad(x, (0, -w % 8, 0, -h % 8), mode="replicate") - 128
    rows, columns = padded.shape[2] // 8, padded.shape[3] // 8
    blocks = padded.view(b, c, rows, 8, columns, 8).transpose(3, 4)
    factor = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    table = torch.tensor(_QUANTISATION, device=x.device, dtype=x.dtype)
    table = ((table * factor.view(-1, 1, 1) + 50) / 100).floor().clamp(1, 255).view(b, 1, 1, 1, 8, 8)
    dct = _cosines().to(x.device)
    kept = (dct @ blocks @ dct.T / table).round() * table
    out = (dct.T @ kept @ dct).transpose(3, 4).reshape(b, c, rows * 8, columns * 8)
    return (out[:, :, :h, :w] + 128).round().clamp(0, 255)


def _jpeg(x: Tensor, strength: Tensor, _: Tensor) -> Tensor:
    return jpeg(x, 50 - 42 * strength)


_KINDS = (_blur, _low_resolution, _noise, _jpeg, _low_light)
