"""A frozen, calibrated ensemble as a teacher on the device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mien.core.artifacts.pixels import PixelRows
from mien.nn.models.network import Network
from mien.nn.training.pixel_loader import to_tensor

Teacher = Callable[[Tensor], Tensor]


def ensemble_teacher(
    members: list[tuple[Network, float, Tensor, Tensor]], pool: str, temperature: float, device: torch.device
) -> Teacher:
    """A frozen ensemble as a function from crops to log-probabilities (b, 7).

    `members` are (network, weight, matrix (7, 7), bias (7,)), the last two on log-probabilities; the result is pooled
    and calibrated as `mien.evaluate.pooling` does it, so the student learns from calibrated probabilities. Networks and
    maps are moved to `device`, on which the crops must lie.
    """
    placed = [(n.to(device).eval().requires_grad_(False), w, m.to(device), b.to(device)) for n, w, m, b in members]

    @torch.inference_mode()
    def teach(x: Tensor) -> Tensor:
        logs = torch.stack([w * _member(network, x, matrix, bias, pool) for network, w, matrix, bias in placed]).sum(0)
        pooled = logs.clamp_min(1e-12).log() if pool == "probability" else logs
        return F.log_softmax(pooled / temperature, dim=1)

    return lambda x: teach(x).clone()


def _member(network: Network, x: Tensor, matrix: Tensor, bias: Tensor, pool: str) -> Tensor:
    bf16 = x.device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16 or x.device.type == "cuda"):
        logs = F.log_softmax(network(x).float(), dim=1)
    logits = logs @ matrix.to(logs).T + bias.to(logs)
    return F.softmax(logits, 1) if pool == "probability" else F.log_softmax(logits, 1)


def tempered_teacher(teacher: Teacher, temperature: float) -> Teacher:
    """The same teacher with its log-probabilities (b, 7) softened by `temperature`."""
    return teacher if temperature == 1 else lambda x: F.log_softmax(teacher(x) / temperature, dim=1)


def teacher_log_probabilities(
    teacher: Teacher, pixels: PixelRows, rows: NDArray[np.int64], device: torch.device, *, batch_size: int = 256
) -> NDArray[np.float64]:
    """What the teacher says of packed images `rows`, not augmented: log-probabilities (n, 7)."""
    parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return np.concatenate([teacher(to_tensor(pixels, part, device)).float().cpu().numpy() for part in parts]).astype(
        np.float64
    )
