"""Optimisers, layer-wise learning rates, the schedule, sharpness-aware steps and the moving average of weights."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor, nn

from mien.core.config.train_groups import OptimizerSettings
from mien.core.errors import UsageError
from mien.nn.models.blocks import Matcher


def make_optimizer(objective: nn.Module, config: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimiser over all parameters; its groups hold `lr_scale`, which the schedule multiplies in.

    Weight decay acts on matrices only: not on biases, norms and scales, not on what the backbone spares
    (a ViT's positions and tokens), nor on a center loss's centres.
    """
    backbone = objective.get_submodule("network.backbone")
    scales = layer_scales(backbone, config.layer_decay)
    spared = {f"network.backbone.{name}" for name in getattr(backbone, "no_weight_decay", set)()}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        decays = parameter.ndim >= 2 and name not in spared and not name.startswith("center.")
        groups.setdefault((scales.get(name.removeprefix("network.backbone."), 1.0), decays), []).append(parameter)
    listed = [
        {"params": parameters, "weight_decay": config.weight_decay if decays else 0.0, "lr_scale": scale}
        for (scale, decays), parameters in groups.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(listed, lr=config.lr, momentum=0.9, nesterov=True)
    if config.optimizer == "adamw-safe":
        return torch.optim.AdamW(listed, lr=config.lr, foreach=False, fused=False)
    return torch.optim.AdamW(listed, lr=config.lr, fused=True)


TAIL = (99, 99999)  # where timm's matchers put what follows the blocks


def block_of(backbone: nn.Module) -> tuple[dict[str, int], int]:
    """The block that each parameter belongs to (0 the stem, 1 … depth, depth + 1 what follows), and the depth.

    Blocks are those of timm's `group_matcher`, in its coarse form.
    """
    matcher: Matcher = backbone.group_matcher(coarse=True) if hasattr(backbone, "group_matcher") else {}  # type: ignore[operator]
    if not matcher:
        raise UsageError(
            f"{type(backbone).__name__} does not say what its blocks are.",
            rule="--layer-decay and --freeze-blocks need timm's `group_matcher`.",
            fix="Leave them out, or take another backbone.",
        )
    rules: list[tuple[str, int, int | None]] = []
    for kind, patterns in enumerate(matcher.values()):
        listed = [(patterns, None)] if isinstance(patterns, str) else patterns
        for pattern, fixed in listed:
            rules.append((pattern, kind, fixed[0] if fixed else None))
    blocks: dict[str, tuple[int, int]] = {}
    for name, _ in backbone.named_parameters():
        hit = next(((kind, _position(m, fixed)) for p, kind, fixed in rules if (m := re.match(p, name))), TAIL)
        blocks[name] = TAIL if hit[1] >= TAIL[1] else hit
    order = {key: number for number, key in enumerate(sorted({(0, 0), *blocks.values()} - {TAIL}))}
    return {name: order.get(key, len(order)) for name, key in blocks.items()}, len(order) - 1


def _position(match: re.Match[str], fixed: int | None) -> int:
    if fixed is not None:
        return fixed
    numbers = [int(g) for g in match.groups() if g is not None and g.isdigit()]
    return numbers[0] if numbers else 0


def layer_scales(backbone: nn.Module, decay: float) -> dict[str, float]:
    """Each parameter's factor of the learning rate: 1 for what follows the blocks, decay for the last, decay² before.

    Layer-wise decay: Clark et al. 2020, arXiv 2003.10555, section 3.2; numbered as BEiT and MAE do.
    """
    if decay == 1.0:
        return {}
    blocks, depth = block_of(backbone)
    return {name: decay ** (depth + 1 - number) for name, number in blocks.items()}


def lr_at(epoch: float, config: OptimizerSettings) -> float:
    """Learning rate at a fractional epoch: linear warm-up, then cosine to `min_lr` or constant.

    While the whole backbone is frozen the head learns at the peak rate; the warm-up is for what follows.
    """
    frozen_epochs = config.freeze_backbone_epochs if config.freeze_blocks == 0 else 0.0
    if epoch < frozen_epochs:
        return config.lr
    if epoch - frozen_epochs < config.warmup_epochs:
        return config.lr * max(epoch - frozen_epochs, 1e-3) / config.warmup_epochs
    if config.scheduler == "constant":
        return config.lr
    begin = frozen_epochs + config.warmup_epochs
    share = min(1.0, (epoch - begin) / max(1e-9, config.epochs - begin))
    return config.min_lr + 0.5 * (config.lr - config.min_lr) * (1 + math.cos(math.pi * share))


class SharpnessAware:
    """SAM (Foret et al. 2021, arXiv 2010.01412, algorithm 1): the gradient is taken where the loss is worst nearby."""

    def __init__(self, parameters: list[nn.Parameter], rho: float) -> None:
        self.parameters, self.rho = parameters, rho
        self._moved: list[tuple[nn.Parameter, Tensor]] = []

    @torch.no_grad()
    def climb(self) -> None:
        """Move by rho along the present gradient (eq. 2)."""
        learning = [p for p in self.parameters if p.grad is not None]
        norm = torch.stack([p.grad.float().norm() for p in learning if p.grad is not None]).norm()
        for p in learning:
            if p.grad is not None:
                self._moved.append((p, p.detach().clone()))
                p.add_(p.grad * (self.rho / (norm + 1e-12)).to(p.dtype))

    @torch.no_grad()
    def descend(self) -> None:
        """Come back to where `climb` started; bit for bit."""
        for p, before in self._moved:
            p.copy_(before)
        self._moved.clear()


class MovingAverage:
    """Exponential moving average of all floating-point state, warmed up as (1 + step) / (10 + step).

    The warm-up is that of TensorFlow's ExponentialMovingAverage(num_updates).
    """

    def __init__(self, network: nn.Module, decay: float, *, foreach: bool = True) -> None:
        self.decay, self.foreach = decay, foreach
        self.state: dict[str, Tensor] = {k: v.detach().clone() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the network's present state."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, values = [], []
        for key, value in network.state_dict().items():
            if value.dtype.is_floating_point:
                averages.append(self.state[key])
                values.append(value)
            else:
                self.state[key].copy_(value)
        if self.foreach:
            torch._foreach_lerp_(averages, values, 1 - decay)
            return
        for average, value in zip(averages, values, strict=True):
            average.lerp_(value, 1 - decay)
