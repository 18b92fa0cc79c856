"""MixUp, CutMix and their alternation. Neighbours in the (shuffled) batch are mixed with each other.

Pairs (0, 1), (2, 3) … stay together however the batch is spread over devices, so a run's images do not
depend on their number. One share and one rectangle a batch, from the step's generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def partners(x: Tensor) -> Tensor:
    """Each row's neighbour: rows 1, 0, 3, 2, …; a last odd row stays with itself."""
    order = torch.arange(len(x), device=x.device) ^ 1
    return x[order.clamp(max=len(x) - 1)]


def mixup(x: Tensor, target: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """MixUp (Zhang et al. 2018, arXiv 1710.09412, eq. 1) of images (b, c, s, s) and targets (b, k)."""
    x = x.float()
    return share * x + (1 - share) * partners(x), share * target + (1 - share) * partners(target)


def cutmix(x: Tensor, target: Tensor, share: float, centre_y: float, centre_x: float) -> tuple[Tensor, Tensor]:
    """CutMix (Yun et al. 2019, arXiv 1905.04899, eq. 1-2): 1 - `share` of the area comes from the partner.

    Its centre lies at (`centre_y`, `centre_x`), fractions of height and width; what falls outside is cut off, and
    the targets follow the area that was really replaced.
    """
    height, width = x.shape[2:]
    side = (1 - share) ** 0.5
    top, bottom = (round(min(max(centre_y * height + d * side * height / 2, 0), height)) for d in (-1, 1))
    left, right = (round(min(max(centre_x * width + d * side * width / 2, 0), width)) for d in (-1, 1))
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    x = x.clone()
    x[:, :, top:bottom, left:right] = partners(x[:, :, top:bottom, left:right].clone())
    return x, kept * target + (1 - kept) * partners(target)


def mix(
    x: Tensor, target: Tensor, *, kind: str, alpha: float, probability: float, step: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mix a batch with this `probability`; `mixcut` takes MixUp on even steps and CutMix on odd ones."""
    chance, centre_y, centre_x = torch.rand(3, generator=generator).tolist()
    if kind == "none" or chance >= probability:
        return x, target
    share = beta(alpha, generator)
    if kind == "mixup" or (kind == "mixcut" and step % 2 == 0):
        return mixup(x, target, share)
    return cutmix(x, target, share, centre_y, centre_x)


def beta(alpha: float, generator: torch.Generator) -> float:
    """One draw of Beta(alpha, alpha), from the generator alone.

    Jöhnk (1964) for alpha up to 1, in logarithms, since u^(1/alpha) underflows for small alpha;
    above, the ratio of two gamma draws by Marsaglia and Tsang (2000), where Jöhnk rejects too often.
    """
    if alpha > 1:
        a, b = _gamma(alpha, generator), _gamma(alpha, generator)
        return a / (a + b)
    while True:
        u, v = (math.log(max(_uniform(generator), 1e-300)) / alpha for _ in range(2))
        total = max(u, v) + math.log1p(math.exp(-abs(u - v)))
        if total <= 0:
            return math.exp(u - total)


def _gamma(shape: float, generator: torch.Generator) -> float:
    d = shape - 1 / 3
    c = 1 / math.sqrt(9 * d)
    while True:
        normal = float(torch.randn((), generator=generator, dtype=torch.float64))
        v = (1 + c * normal) ** 3
        if v > 0 and math.log(max(_uniform(generator), 1e-300)) < 0.5 * normal**2 + d - d * v + d * math.log(v):
            return d * v


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator, dtype=torch.float64))
