"""Optimisers, the learning-rate schedule and the moving average of weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mien.core.config.train import TrainConfig


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser with weight decay on matrices only (not on biases, norms and scales)."""
    decay = [p for p in network.parameters() if p.ndim >= 2]
    rest = [p for p in network.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)
    if config.optimizer == "adamw-safe":
        return torch.optim.AdamW(groups, lr=config.lr, foreach=False, fused=False)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def lr_at(epoch: float, config: TrainConfig) -> float:
    """Learning rate at a fractional epoch: linear warm-up, then cosine to `min_lr` or constant."""
    if epoch < config.warmup_epochs:
        return config.lr * max(epoch, 1e-3) / config.warmup_epochs
    if config.scheduler == "constant":
        return config.lr
    span = max(1e-9, config.epochs - config.warmup_epochs)
    share = min(1.0, (epoch - config.warmup_epochs) / span)
    return config.min_lr + 0.5 * (config.lr - config.min_lr) * (1 + math.cos(math.pi * share))


class MovingAverage:
    """Exponential moving average of all floating-point state, warmed up as (1 + step) / (10 + step).

    The warm-up is that of TensorFlow's ExponentialMovingAverage(num_updates).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state: dict[str, Tensor] = {k: v.detach().clone() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the network's present state."""
        decay = min(self.decay, (1 + step) / (10 + step))
        mine, theirs = [], []
        for key, value in network.state_dict().items():
            if value.dtype.is_floating_point:
                mine.append(self.state[key])
                theirs.append(value)
            else:
                self.state[key].copy_(value)
        torch._foreach_lerp_(mine, theirs, 1 - decay)
