"""All that an exact resume needs, out of a trainer's parts and back into them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien.core.errors import ArtifactError
from mien.nn.training.optimizers import MovingAverage

_PREFIX = "lesson."  # of a training's own tensors: states of earlier versions have it


def pack(objective: nn.Module, optimizer: torch.optim.Optimizer, ema: MovingAverage | None) -> dict[str, Tensor]:
    """Weights, moving average and moments under names of their own."""
    tensors = {f"{_PREFIX}{k}": v for k, v in objective.state_dict().items()}
    if ema is not None:
        tensors |= {f"ema.{k}": v for k, v in ema.state.items()}
    for number, entry in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{k}": v for k, v in entry.items() if isinstance(v, Tensor)}
    return tensors


def unpack(
    tensors: dict[str, Tensor],
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: MovingAverage | None,
    where: str,
) -> None:
    """Put a packed state back, in place; `where` names it in errors."""
    try:
        objective.load_state_dict(_under(tensors, _PREFIX))
        if ema is not None:
            for key, value in _under(tensors, "ema.").items():
                ema.state[key].copy_(value)
    except (RuntimeError, KeyError) as error:
        raise ArtifactError(
            f"{where} does not fit the network of its own settings: {str(error).splitlines()[0]}",
            fix="Remove the run and train again.",
        ) from None
    state = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in _under(tensors, "optimizer.").items():
        number, name = key.split(".", 1)
        parameter = parameters[int(number)]
        # Fused kernels walk raw memory: moments must have their parameter's strides (channels last).
        fitting = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
        entries.setdefault(int(number), {})[name] = fitting
    state["state"] = entries
    optimizer.load_state_dict(state)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
