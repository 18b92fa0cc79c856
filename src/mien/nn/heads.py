"""Heads from embeddings to scaled logits. They compute in fp32 at least; a margin exists in training only."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LinearHead(nn.Module):
    """The plain softmax head."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(features, classes)

    def forward(self, x: Tensor, target: Tensor | None = None, margin: float = 0.0) -> Tensor:
        """Logits (b, k) of embeddings (b, d); `target` and `margin` mean nothing here."""
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.fc(x.to(torch.promote_types(x.dtype, torch.float32)))
            return logits


class ArcFaceHead(nn.Module):
    """ArcFace (Deng et al. 2019, arXiv 1801.07698, eq. 3): s·cos(θ + m) for the target class.

    Under soft or mixed targets the margined and the plain logit are mixed by each class's share of
    the target, so that a one-hot target gives ArcFace and a share of 0 leaves the plain cosine.
    Where θ + m would pass π the target falls on as cos θ - m sin m (the authors' code).
    """

    def __init__(self, features: int, classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        nn.init.xavier_uniform_(self.weight)
        self.scale = scale

    def forward(self, x: Tensor, target: Tensor | None = None, margin: float = 0.0) -> Tensor:
        """Scaled logits (b, k) of embeddings (b, d); `target` (b, k) are shares that sum to 1."""
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.promote_types(x.dtype, torch.float32)
            cosine = F.linear(F.normalize(x.to(dtype)), F.normalize(self.weight.to(dtype)))
            if target is None or margin == 0.0:
                return self.scale * cosine
            sine = (1 - cosine.square()).clamp_min(1e-12).sqrt()
            shifted = cosine * math.cos(margin) - sine * math.sin(margin)
            beyond = cosine <= -math.cos(margin)
            shifted = torch.where(beyond, cosine - margin * math.sin(margin), shifted)
            return self.scale * (cosine + target * (shifted - cosine))


def make_head(name: str, features: int, classes: int, *, scale: float) -> LinearHead | ArcFaceHead:
    """The head of this name: linear or arcface."""
    if name == "linear":
        return LinearHead(features, classes)
    if name == "arcface":
        return ArcFaceHead(features, classes, scale)
    raise ValueError(f"no head {name!r}")


def margin_at(epoch: float, *, margin: float, plain: float, ramp: float) -> float:
    """ArcFace's margin at a (fractional) epoch: 0 for `plain` epochs, then a linear ramp to `margin`."""
    if epoch < plain:
        return 0.0
    return margin if ramp <= 0 else margin * min(1.0, (epoch - plain) / ramp)
