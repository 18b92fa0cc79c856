"""Preprocessing, backbone and head as one network: uint8 crops to scaled logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core.config.train import TrainConfig
from mien.core.errors import InputError
from mien.core.labels import N_CLASSES
from mien.nn.augment.image_ops import LUMA
from mien.nn.models.backbones import bare_backbone, make_backbone
from mien.nn.models.heads import AnyHead, make_head
from mien.nn.models.pretrained import Start, check_fit

# ImageNet's, as the report's; for grey images their mean over channels.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Preprocess(nn.Module):
    """uint8 crops to what the network sees: grey or colour, input size, normalisation.

    It is part of every exported graph, so that no caller can do it differently.
    """

    mean: Tensor
    std: Tensor
    luma: Tensor

    def __init__(
        self, color: str, img_size: int, crop_size: int, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD
    ) -> None:
        super().__init__()
        self.grey, self.img_size, self.crop_size = color == "grey", img_size, crop_size
        means, stds = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
        if self.grey:
            means, stds = (v.mean().expand(1, 3, 1, 1).clone() for v in (means, stds))
        # Saved with the weights: pretrained ones bring their own.
        self.register_buffer("mean", 255 * means)
        self.register_buffer("std", 255 * stds)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 1 or 3, s, s) of values 0-255 to (b, 3, img_size, img_size), normalised."""
        x = x.float()
        if self.grey and x.shape[1] == 3:
            x = (x * self.luma).sum(1, keepdim=True)
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if self.img_size != self.crop_size:
            x = F.interpolate(x, (self.img_size, self.img_size), mode="bilinear", align_corners=False, antialias=False)
        return (x - self.mean) / self.std


class Network(nn.Module):
    """uint8 crops to scaled logits.

    `prior_shift` (7,) is added to the logits outside training: it exchanges the class shares that the
    network was trained for by those that predictions are to assume (Saerens et al. 2002, Neural
    Computation 14, eq. 2.4). It travels with the weights, so that every later stage sees the same.
    """

    prior_shift: Tensor

    def __init__(self, preprocess: Preprocess, backbone: nn.Module, head: AnyHead) -> None:
        super().__init__()
        self.preprocess, self.backbone, self.head = preprocess, backbone, head
        self.register_buffer("prior_shift", torch.zeros(N_CLASSES))

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings (b, d) of crops (b, 1 or 3, s, s)."""
        embedding: Tensor = self.backbone(self.preprocess(x))
        return embedding

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, 7) of crops (b, 1 or 3, s, s), as predictions are made."""
        logits: Tensor = self.head(self.embed(x))
        return logits + self.prior_shift


def make_network(config: TrainConfig, *, crop_size: int, color: str, start: Start | None = None) -> Network:
    """Build the network that a run's settings describe, with random weights or a backbone's to start from."""
    img_size = config.img_size or crop_size
    name = config.backbone
    if start is None:
        backbone = make_backbone(config, img_size)
    elif start.is_run:
        backbone = make_backbone(config, img_size)
        check_fit(start.state, backbone.state_dict(), start.where, name, strict=True)
        backbone.load_state_dict(start.state)
    else:
        check_fit(start.state, bare_backbone(config, img_size).state_dict(), start.where, name, strict=False)
        try:
            backbone = make_backbone(config, img_size, start.state)
        except RuntimeError as error:
            raise InputError(f"{start.where} does not fit {name}: {str(error).splitlines()[-1].strip()}") from None
    with torch.no_grad():
        backbone.eval()
        features = backbone(torch.zeros(1, 3, img_size, img_size)).shape[1]
    preprocess = Preprocess(color, img_size, crop_size)
    if start is not None and start.mean is not None and start.std is not None:
        preprocess = Preprocess(color, img_size, crop_size, start.mean, start.std)
    return Network(preprocess, backbone, make_head(config, features, N_CLASSES))


def parameter_count(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters())
