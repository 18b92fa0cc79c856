"""RandAugment (Cubuk et al. 2020, arXiv 1909.13719) in batches: each image goes through operations of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mien.nn.augment.image_ops import equalize, to_grey, upload, warp
from mien.nn.augment.random_source import BatchRandom

# Of images (b, c, s, s), strengths (b, 1, 1, 1) from 0 to about 1, and signs of the same shape.
Operation = Callable[[Tensor, Tensor, Tensor], Tensor]


def _autocontrast(x: Tensor, m: Tensor, sign: Tensor) -> Tensor:
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) * 255 / (high - low).clamp_min(1), x)


def _posterize(x: Tensor, m: Tensor, sign: Tensor) -> Tensor:
    step = 2.0 ** (4 * m).clamp(0, 7).floor()
    return (x / step).floor() * step


def _solarize(x: Tensor, m: Tensor, sign: Tensor) -> Tensor:
    return torch.where(x > 256 * (1 - 0.5 * m), 255 - x, x)


def _brightness(x: Tensor, m: Tensor, sign: Tensor) -> Tensor:
    return x * (1 + 0.9 * sign * m)


def _contrast(x: Tensor, m: Tensor, sign: Tensor) -> Tensor:
    mean = to_grey(x).mean((2, 3), keepdim=True)
    return (x - mean) * (1 + 0.9 * sign * m) + mean


def _sharpness(x: Tensor, m: Tensor, sign: Tensor) -> Tensor:
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return blurred + (x - blurred) * (1 + 0.9 * sign * m)


def _warped(entries: Callable[[Tensor], dict[tuple[int, int], Tensor]]) -> Operation:
    """A geometric operation from the entries of its 2×3 matrix that differ from the identity."""

    def operation(x: Tensor, m: Tensor, sign: Tensor) -> Tensor:
        theta = torch.eye(2, 3, device=x.device).repeat(len(x), 1, 1)
        for (row, column), value in entries((sign * m).flatten()).items():
            theta[:, row, column] = value
        return warp(x, theta)

    return operation


def _rotation(a: Tensor) -> dict[tuple[int, int], Tensor]:
    angle = a * (torch.pi / 6)
    return {(0, 0): angle.cos(), (0, 1): -angle.sin(), (1, 0): angle.sin(), (1, 1): angle.cos()}


OPERATIONS: dict[str, Operation] = {
    "identity": lambda x, m, sign: x,
    "autocontrast": _autocontrast,
    "equalize": lambda x, m, sign: equalize(x),
    "posterize": _posterize,
    "solarize": _solarize,
    "brightness": _brightness,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "rotate": _warped(_rotation),
    "shear_x": _warped(lambda a: {(0, 1): 0.3 * a}),
    "shear_y": _warped(lambda a: {(1, 0): 0.3 * a}),
    "translate_x": _warped(lambda a: {(0, 2): 0.3 * a}),
    "translate_y": _warped(lambda a: {(1, 2): 0.3 * a}),
}


def rand_augment(x: Tensor, uniform: BatchRandom, rounds: int, strength: Tensor) -> Tensor:
    """`rounds` random operations on each of the images (b, c, s, s), values 0-255, at strengths (b,)."""
    operations = list(OPERATIONS.values())
    for _ in range(rounds):
        u = uniform.on_host(2)
        which = (u[:, 0] * len(operations)).long().clamp(max=len(operations) - 1)
        sign = upload(torch.where(u[:, 1] < 0.5, -1.0, 1.0), x.device)
        x = x.clone()
        for number in sorted(set(which.tolist())):
            rows = upload((which == number).nonzero()[:, 0], x.device)
            m, s = (v[rows].view(-1, 1, 1, 1) for v in (strength, sign))
            x[rows] = operations[number](x[rows], m, s).clamp(0, 255)
    return x
