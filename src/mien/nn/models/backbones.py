"""All backbones, timm's and our own, as embeddings of normalised images."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core.config.train_groups import ALIASES, OURS, NetworkSettings, check_backbone
from mien.core.errors import UsageError
from mien.nn.models.blocks import Hybrid, SmallCnn, add_attention
from mien.nn.torchvision_cure import import_timm

BF16_GAINS = ("resnet", "convnext", "vit", "cnn", "hybrid")
CHANNELS_LAST = ("resnet", "convnext", "mobilenet", "efficientnet", "cnn")
LEAST_GRID = 2  # the last stage's map; at 1×1 there is nothing left to pool over


def gains_by_bf16(backbone: str) -> bool:
    """Whether this family was measured to be faster in bfloat16 on processors that compute in it."""
    return ALIASES.get(backbone, backbone).startswith(BF16_GAINS)


def likes_channels_last(backbone: str, device: torch.device, precision: str) -> bool:
    """Whether channels last is the faster memory format.

    On processors the families were measured; CUDA's half-precision convolutions want it for all CNNs.
    """
    fits = ALIASES.get(backbone, backbone).startswith(CHANNELS_LAST)
    return fits and (device.type == "cpu" or (device.type == "cuda" and precision != "no"))


def make_backbone(config: NetworkSettings, img_size: int, weights: dict[str, Tensor] | None = None) -> nn.Module:
    """A network that gives embeddings (b, num_features) of (b, 3, img_size, img_size).

    `weights` are a state in timm's form for the unchanged architecture; they are fitted to the input
    size, the patches and the stem. Raises `UsageError` where the size does not suit the backbone.
    """
    name, stem = config.backbone, config.stem
    network = bare_backbone(config, img_size, weights)
    if stem == "small" or (stem == "auto" and _grid(network, img_size) < LEAST_GRID and _has_small_stem(network, name)):
        _shrink_stem(network, name)
    if config.attention == "cbam":
        add_attention(network, name)
    _check_size(network, name, img_size)
    return network


def bare_backbone(config: NetworkSettings, img_size: int, weights: dict[str, Tensor] | None = None) -> nn.Module:
    """The architecture as its authors made it, before stem and attention."""
    if config.backbone not in OURS:
        return _timm(config, img_size, weights)
    network = _builtin(config)
    if weights is not None:
        network.load_state_dict(weights)
    return network


def _builtin(config: NetworkSettings) -> nn.Module:
    if config.backbone == "cnn":
        return SmallCnn(drop=config.drop_rate)
    return Hybrid(drop=config.drop_rate, drop_path=config.drop_path)


def _timm(config: NetworkSettings, img_size: int, weights: dict[str, Tensor] | None) -> nn.Module:
    timm, name = import_timm(), config.backbone
    check_backbone(name, timm.list_models())
    timm_name = ALIASES.get(name, name)
    options: dict[str, object] = {"num_classes": 0, "drop_rate": config.drop_rate}
    if config.drop_path:
        options["drop_path_rate"] = config.drop_path
    timm_config = timm.get_pretrained_cfg(timm_name, allow_unregistered=True)
    if timm_config is not None and timm_config.fixed_input_size:
        options["img_size"] = img_size
    if timm_name.startswith(("vit_", "deit")):
        patch = config.patch_size or (16 if img_size >= 160 else 8)
        if img_size % patch:
            raise UsageError(
                f"{name} at {img_size} px.",
                rule=f"Its patches of {patch} px must fit.",
                fix=f"Use --img-size {max(patch, img_size // patch * patch)}, or another --patch-size.",
            )
        options |= {"img_size": img_size, "patch_size": patch}
    elif config.patch_size is not None:
        raise UsageError(f"--patch-size with {name}.", rule="ViTs alone have patches.", fix="Leave it out.")
    if weights is not None:
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": weights}}
    try:
        return timm.create_model(timm_name, **options)
    except (TypeError, AssertionError, ValueError) as error:
        raise UsageError(
            f"{name} cannot be made with "
            f"{', '.join(f'{k} {v}' for k, v in options.items() if k != 'pretrained_cfg_overlay')}: {error}.",
            fix="Leave the flag that it names out, or take another backbone.",
        ) from None


def _shape_of(network: nn.Module, img_size: int) -> torch.Size:
    """What the last stage gives for one image; computed on shapes alone."""
    shadow = copy.deepcopy(network).to("meta").eval()
    with torch.no_grad():
        features: Tensor = shadow.forward_features(torch.zeros(1, 3, img_size, img_size, device="meta"))  # type: ignore[operator]
    return features.shape


def _grid(network: nn.Module, img_size: int) -> int:
    """Side of a CNN's last map; for networks that give tokens, a side that is always enough."""
    shape = _shape_of(network, img_size)
    if len(shape) != 4:
        return LEAST_GRID
    side = shape[1:3] if shape[1] == shape[2] and shape[3] != shape[2] else shape[2:]  # timm's NHWC families
    return int(min(side))


def _check_size(network: nn.Module, name: str, img_size: int) -> None:
    try:
        grid = _grid(network, img_size)
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise UsageError(
            f"{name} at {img_size} px: {str(error).splitlines()[0]}",
            rule="Every stage of the backbone must be able to take the image.",
            fix="Use a larger --img-size, a multiple of 32.",
        ) from None
    if grid < LEAST_GRID:
        larger = next((s for s in range(img_size, 513, 8) if _grid(network, s) >= LEAST_GRID), 512)
        raise UsageError(
            f"{name} at {img_size} px: its last stage would see {grid}x{grid}.",
            rule=f"At least {LEAST_GRID}x{LEAST_GRID} must be left to pool over.",
            fix=f"Use --img-size {larger}" + (" or --stem small." if _has_small_stem(network, name) else "."),
        )


def _has_small_stem(network: nn.Module, name: str) -> bool:
    return name not in OURS and (
        hasattr(network, "conv_stem")
        or (hasattr(network, "conv1") and hasattr(network, "maxpool"))
        or name.startswith("convnext")
    )


def _shrink_stem(network: nn.Module, name: str) -> None:
    """Remove the first downsampling, so that a 48 px face is not 1×1 at the last stage.

    ResNet: no max-pooling and a 3×3 first convolution (He et al. 2016 on CIFAR, section 4.2; stride
    2 is kept). MobileNetV3 and EfficientNet: stride 1 in the first convolution. ConvNeXt: patches of
    2. Kernels are resampled, so that pretrained ones keep what they see.
    """
    if not _has_small_stem(network, name):
        raise UsageError(f"No small stem is known for {name}.", fix="Use --stem native.")
    if hasattr(network, "conv_stem"):
        if isinstance(network.conv_stem, nn.Conv2d):
            network.conv_stem.stride = (1, 1)
    elif hasattr(network, "conv1"):
        network.maxpool = nn.Identity()
        if isinstance(network.conv1, nn.Conv2d):
            network.conv1 = _resampled(network.conv1, 3, padding=1, stride=2)
    elif isinstance(network.stem, nn.Sequential) and isinstance(network.stem[0], nn.Conv2d):
        network.stem[0] = _resampled(network.stem[0], 2, padding=0, stride=2)


def _resampled(conv: nn.Conv2d, size: int, *, padding: int, stride: int) -> nn.Conv2d:
    """The convolution with a smaller kernel that gives the same answer to a plain surface."""
    out = nn.Conv2d(conv.in_channels, conv.out_channels, size, stride, padding, bias=conv.bias is not None)
    with torch.no_grad():
        kernel = F.interpolate(conv.weight, (size, size), mode="bilinear", antialias=True, align_corners=False)
        kernel = kernel * (conv.kernel_size[0] / size) ** 2
        lost = conv.weight.sum((2, 3), keepdim=True) - kernel.sum((2, 3), keepdim=True)
        out.weight.copy_(kernel + lost / size**2)
        if conv.bias is not None and out.bias is not None:
            out.bias.copy_(conv.bias)
    return out
