"""One door to all backbones: timm's and our small CNN, as embeddings of normalised pictures."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core.config.train import ALIASES, check_backbone
from mien.core.errors import UsageError
from mien.core.labels import N_CLASSES
from mien.nn.heads import ArcFaceHead, LinearHead, make_head
from mien.nn.torchvision_cure import import_timm

# ImageNet's, as the report's; for grey pictures their mean over channels.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BF16_GAINS = ("resnet", "convnext", "vit", "cnn")
CHANNELS_LAST = ("resnet", "convnext", "mobilenet", "efficientnet", "cnn")


class SmallCnn(nn.Module):
    """The report's earliest prototype: three convolution blocks (its "naive CNN")."""

    def __init__(self, width: int = 32, drop: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for level in range(3):
            out = width << level
            layers += [
                nn.Conv2d(channels, out, 3, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(True),
                nn.MaxPool2d(2),
            ]
            channels = out
        self.layers = nn.Sequential(*layers)
        self.drop = nn.Dropout(drop)
        self.num_features = channels

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (b, d) of pictures (b, 3, h, w)."""
        pooled: Tensor = self.drop(self.layers(x).mean((2, 3)))
        return pooled


def make_backbone(name: str, *, img_size: int, stem: str, drop_rate: float, drop_path: float) -> nn.Module:
    """A network that gives embeddings (b, num_features) of (b, 3, img_size, img_size)."""
    if name == "cnn":
        return SmallCnn(drop=drop_rate)
    timm: Any = import_timm()
    check_backbone(name, timm.list_models())
    timm_name = ALIASES.get(name, name)
    options: dict[str, Any] = {"pretrained": False, "num_classes": 0, "drop_rate": drop_rate}
    if drop_path:
        options["drop_path_rate"] = drop_path
    if "img_size" in inspect.signature(timm.model_entrypoint(timm_name)).parameters or timm_name.startswith(
        ("vit", "deit")
    ):
        patch = 16 if img_size >= 160 else 8
        if img_size % patch:
            raise UsageError(
                f"{name} at {img_size} px.",
                rule=f"Its patches of {patch} px must fit.",
                fix=f"Use --img-size {img_size // patch * patch}.",
            )
        options |= {"img_size": img_size, "patch_size": patch}
    network: nn.Module = timm.create_model(timm_name, **options)
    if stem == "small":
        _widen_stem(network, timm_name)
    return network


def _widen_stem(network: Any, name: str) -> None:
    """Remove the first downsampling steps, so that a 48 px face is not 2×2 before the last stage.

    ResNet: no max-pooling and a 3×3 first convolution (He et al. 2016 on CIFAR, section 4.2; stride
    2 is kept). MobileNetV3 and EfficientNet: stride 1 in the first convolution. ConvNeXt: a patch
    stem of 2.
    """
    if name.startswith("resnet"):
        network.conv1 = nn.Conv2d(3, network.conv1.out_channels, 3, 2, 1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    elif hasattr(network, "conv_stem"):
        network.conv_stem.stride = (1, 1)
    elif name.startswith("convnext"):
        first = network.stem[0]
        network.stem[0] = nn.Conv2d(3, first.out_channels, 2, 2)
        nn.init.trunc_normal_(network.stem[0].weight, std=0.02)
    else:
        raise UsageError(f"No small stem is known for {name}.", fix="Use --stem native.")


class Preprocess(nn.Module):
    """uint8 crops to what the network sees: grey or colour, input size, normalisation.

    It is part of every exported graph, so that no caller can do it differently.
    """

    mean: Tensor
    std: Tensor
    luma: Tensor

    def __init__(self, color: str, img_size: int, crop_size: int) -> None:
        super().__init__()
        self.grey, self.img_size, self.crop_size = color == "grey", img_size, crop_size
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
        if self.grey:
            mean, std = mean.mean().expand(1, 3, 1, 1).clone(), std.mean().expand(1, 3, 1, 1).clone()
        self.register_buffer("mean", 255 * mean, persistent=False)
        self.register_buffer("std", 255 * std, persistent=False)
        self.register_buffer("luma", torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1), persistent=False)

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
    """Preprocessing, backbone and head: uint8 crops to scaled logits."""

    def __init__(self, preprocess: Preprocess, backbone: nn.Module, head: LinearHead | ArcFaceHead) -> None:
        super().__init__()
        self.preprocess, self.backbone, self.head = preprocess, backbone, head

    def forward(self, x: Tensor, target: Tensor | None = None, margin: float = 0.0) -> Tensor:
        """Logits (b, 7) of crops (b, 1 or 3, s, s)."""
        logits: Tensor = self.head(self.backbone(self.preprocess(x)), target, margin)
        return logits


def make_network(settings: dict[str, Any], *, crop_size: int, color: str) -> Network:
    """Build the network that a run's settings describe, with random weights."""
    img_size = settings["img_size"] or crop_size
    backbone = make_backbone(
        settings["backbone"],
        img_size=img_size,
        stem=settings["stem"],
        drop_rate=settings["drop_rate"],
        drop_path=settings["drop_path"],
    )
    with torch.no_grad():
        backbone.eval()
        features = backbone(torch.zeros(1, 3, img_size, img_size)).shape[1]
    head = make_head(settings["head"], features, N_CLASSES, scale=settings["scale"])
    return Network(Preprocess(color, img_size, crop_size), backbone, head)


def parameter_count(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters())
