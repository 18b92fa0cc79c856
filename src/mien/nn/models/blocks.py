"""Networks and parts of our own: the small CNN, the hybrid of CNN and attention, CBAM-lite."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn

from mien.core.errors import UsageError
from mien.nn.torchvision_cure import import_timm

Matcher = Mapping[str, str | Sequence[tuple[str, tuple[int] | None]]]
"""How parameters fall into blocks, in timm's form: patterns of their names, some with a fixed number of the block."""


class StageInfo(TypedDict):
    """What timm's models say of a stage: where it is, its channels, and how much smaller its map is than the image."""

    module: str
    num_chs: int
    reduction: int


def conv_stages(width: int) -> nn.ModuleList:
    """Three stages of 3×3 convolution, batch norm, ReLU and halving; channels width, 2·width, 4·width."""
    stages, channels = nn.ModuleList(), 3
    for level in range(3):
        out = width << level
        conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        stages.append(nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU(True), nn.MaxPool2d(2)))
        channels = out
    return stages


def stage_info(width: int) -> list[StageInfo]:
    """What timm's models say of their stages, of these three."""
    return [{"module": f"stages.{i}", "num_chs": width << i, "reduction": 2 << i} for i in range(3)]


class SmallCnn(nn.Module):
    """The report's earliest prototype: three convolution blocks (its "naive CNN")."""

    def __init__(self, width: int = 32, drop: float = 0.0) -> None:
        super().__init__()
        self.stages = conv_stages(width)
        self.drop = nn.Dropout(drop)
        self.num_features = 4 * width
        self.feature_info = stage_info(width)

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map (b, d, h, w) of images (b, 3, 8h, 8w)."""
        for stage in self.stages:
            x = stage(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (b, d) of images (b, 3, h, w)."""
        pooled: Tensor = self.drop(self.forward_features(x).mean((2, 3)))
        return pooled

    def group_matcher(self, coarse: bool = False) -> Matcher:
        """How parameters fall into blocks, in timm's form."""
        return {"stem": r"^nothing", "blocks": r"^stages\.(\d+)"}


class Hybrid(nn.Module):
    """The small CNN's three stages, then a transformer over their map: local texture first, the whole face after.

    Positions enter by a depth-wise 3×3 convolution (Chu et al. 2023, "Conditional positional
    encodings", arXiv 2102.10882), so that any input size works; blocks are timm's ViT blocks. Early
    convolutions are what lets a transformer learn stably from little data (Xiao et al. 2021, arXiv
    2106.14881).
    """

    def __init__(
        self, width: int = 48, depth: int = 4, heads: int = 4, drop: float = 0.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        import_timm()
        from timm.models.vision_transformer import Block  # noqa: PLC0415  (after the cure)

        dim = self.num_features = 4 * width
        self.stages = conv_stages(width)
        self.position = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.ModuleList(
            Block(dim, heads, mlp_ratio=3.0, qkv_bias=True, init_values=0.1, drop_path=rate) for rate in rates
        )
        self.norm = nn.LayerNorm(dim)
        self.drop = nn.Dropout(drop)
        self.feature_info = stage_info(width)

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map (b, d, h, w)."""
        for stage in self.stages:
            x = stage(x)
        x = x + self.position(x)
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        features: Tensor = tokens.transpose(1, 2).reshape(x.shape)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (b, d) of images (b, 3, h, w)."""
        pooled: Tensor = self.drop(self.forward_features(x).mean((2, 3)))
        return pooled

    def group_matcher(self, coarse: bool = False) -> Matcher:
        """How parameters fall into blocks, in timm's form."""
        return {"stem": r"^stages|position", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}


class CbamLite(nn.Module):
    """Channel, then spatial attention (Woo et al. 2018, "CBAM", arXiv 1807.06521, section 3), light.

    One bottleneck serves mean and maximum together, where the paper runs it twice; both gates start
    at 1, so that a pretrained network starts as it was.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(4, channels // reduction)
        self.down, self.up = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)
        for parameter in (*self.up.parameters(), *self.spatial.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """The weighted map, same shape (b, c, h, w)."""
        pooled = x.mean((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True)
        x = x * (2 * torch.sigmoid(self.up(torch.relu(self.down(pooled)))))
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * (2 * torch.sigmoid(self.spatial(summary)))


def add_attention(network: nn.Module, name: str) -> None:
    """Put a CBAM-lite behind every stage of a CNN, in place."""
    added = 0
    stages: Iterable[StageInfo] = getattr(network, "feature_info", [])
    for entry in stages:
        place, _, last = entry["module"].rpartition(".")
        stage = network.get_submodule(entry["module"])
        if last.startswith(("stem", "conv", "bn", "act")) or hasattr(network, "cls_token"):
            continue
        gate = CbamLite(int(entry["num_chs"]))
        inner = stage if isinstance(stage, nn.Sequential) else getattr(stage, "blocks", None)
        if isinstance(inner, nn.Sequential):
            inner.add_module("cbam", gate)
        else:
            setattr(network.get_submodule(place), last, nn.Sequential(OrderedDict(stage=stage, cbam=gate)))
        added += 1
    if not added:
        raise UsageError(
            f"--attention cbam with {name}.",
            rule="It works on feature maps of a CNN's stages.",
            fix="Leave it out, or take a CNN.",
        )
