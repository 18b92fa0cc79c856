"""Heads from embeddings to scaled logits. They compute in fp32 at least; a margin exists in training only.

What a margin means under soft or mixed targets: a class's logit moves from the plain to the margined
one by that class's share of the target. A one-hot target gives the published head, a share of 0
leaves the plain cosine, and the logit is linear in the share between them.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core.config.train_groups import HeadSettings


class LinearHead(nn.Module):
    """The plain softmax head."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(features, classes)

    def forward(
        self, x: Tensor, target: Tensor | None = None, margin: float = 0.0, scale: float | None = None
    ) -> Tensor:
        """Logits (b, k) of embeddings (b, d); target, margin and scale mean nothing here."""
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.fc(x.to(torch.promote_types(x.dtype, torch.float32)))
            return logits


class CosineHead(nn.Module):
    """Scaled cosines between an embedding and class centres, with a margin for the target class.

    - arcface: s·cos(θ + m) (Deng et al. 2019, arXiv 1801.07698, eq. 3). Where θ + m would pass π the
      target falls on as cos θ - m sin m, as in the authors' code.
    - cosface: s·(cos θ - m) (Wang et al. 2018, arXiv 1801.09414, eq. 4).
    - `centers` > 1: a class's cosine is the largest over its sub-centres (Deng et al. 2020,
      "Sub-center ArcFace", ECCV, eq. 2).
    """

    def __init__(
        self,
        features: int,
        classes: int,
        scale: float,
        *,
        kind: Literal["arcface", "cosface"] = "arcface",
        centers: int = 1,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes * centers, features))
        nn.init.xavier_uniform_(self.weight)
        self.scale, self.kind, self.centers = scale, kind, centers

    def forward(
        self, x: Tensor, target: Tensor | None = None, margin: float = 0.0, scale: float | None = None
    ) -> Tensor:
        """Scaled logits (b, k) of embeddings (b, d).

        `target` (b, k) are shares that sum to 1; without it, or with margin 0, the plain cosines are
        scaled. `scale` stands in for the head's own while it is ramped.
        """
        scale = self.scale if scale is None else scale
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.promote_types(x.dtype, torch.float32)
            cosine = F.linear(F.normalize(x.to(dtype)), F.normalize(self.weight.to(dtype)))
            if self.centers > 1:
                cosine = cosine.view(len(x), -1, self.centers).amax(2)
            if target is None or margin == 0.0:
                return scale * cosine
            return scale * (cosine + target * (self._margined(cosine, margin) - cosine))

    def _margined(self, cosine: Tensor, margin: float) -> Tensor:
        if self.kind == "cosface":
            return cosine - margin
        sine = (1 - cosine.square()).clamp_min(1e-12).sqrt()
        shifted = cosine * math.cos(margin) - sine * math.sin(margin)
        return torch.where(cosine <= -math.cos(margin), cosine - margin * math.sin(margin), shifted)


class JointHead(nn.Module):
    """The report's pair: a linear head, which predicts, and an ArcFace head that shapes the embedding in training."""

    def __init__(self, features: int, classes: int, scale: float) -> None:
        super().__init__()
        self.linear = LinearHead(features, classes)
        self.arcface = CosineHead(features, classes, scale)

    def forward(
        self, x: Tensor, target: Tensor | None = None, margin: float = 0.0, scale: float | None = None
    ) -> Tensor:
        """Logits (b, k) of the linear head, from embeddings (b, d)."""
        logits: Tensor = self.linear(x)
        return logits

    def both(self, x: Tensor, target: Tensor, margin: float, scale: float | None) -> tuple[Tensor, Tensor]:
        """Logits of the linear head and margined logits of the ArcFace head."""
        return self.linear(x), self.arcface(x, target, margin, scale)


AnyHead = LinearHead | CosineHead | JointHead


def make_head(config: HeadSettings, features: int, classes: int) -> AnyHead:
    """The head that a run's settings name, for embeddings of `features` numbers."""
    if config.head == "linear":
        return LinearHead(features, classes)
    if config.head == "joint":
        return JointHead(features, classes, config.scale)
    if config.head == "subcenter":
        return CosineHead(features, classes, config.scale, centers=config.subcenters)
    return CosineHead(features, classes, config.scale, kind=config.head)


def ramp(epoch: float, *, start: float, length: float) -> float:
    """0 until `start`, then linearly to 1 over `length` epochs; a step for length 0."""
    if epoch < start:
        return 0.0
    return 1.0 if length <= 0 else min(1.0, (epoch - start) / length)
