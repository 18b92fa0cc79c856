"""Logits of a network on packed pixels."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mien.core.artifacts.pixels import PixelRows
from mien.nn.devices import compute_device
from mien.nn.training.pixel_loader import to_tensor


def predict_logits(
    network: nn.Module,
    pixels: PixelRows,
    rows: NDArray[np.int64],
    *,
    batch_size: int = 256,
    device: torch.device | None = None,
    bf16: bool = False,
    advance: Callable[[int], None] = lambda n: None,
) -> NDArray[np.float64]:
    """Scaled logits (n, 7) in float64, in CPU memory, of the images `rows`, in their order.

    The network is moved to `device`, by default to the one that this process computes on, and stays there. It computes
    in fp32 unless `bf16`, which is for validation during training.
    """
    device = device or compute_device()
    network.to(device).eval()  # outside inference mode: weights that are moved inside it can be trained no more
    out = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        with torch.inference_mode(), _full_fp32(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = network(to_tensor(pixels, part, device)).float()
        out.append(logits.cpu().numpy().astype(np.float64))  # widened last: mps has no float64
        advance(len(part))
    return np.concatenate(out)


def _full_fp32() -> AbstractContextManager[None]:
    """Without TF32, which cuDNN's convolutions use by default and whose mantissa has 10 of fp32's 23 bits."""
    cudnn = torch.backends.cudnn
    flags: AbstractContextManager[None] = cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    )
    return flags
