"""Logits of a network on packed pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mien.core.artifacts.pixels import PixelRows
from mien.nn.batches import to_tensor


@torch.inference_mode()
def predict_logits(
    network: nn.Module, pixels: PixelRows, rows: NDArray[np.int64], *,
    batch_size: int = 256, device: torch.device | None = None, bf16: bool = False, advance: Callable[[int], None] = lambda n: None,
) -> NDArray[np.float64]:  # fmt: skip
    """Scaled logits (n, 7) in float64 of the pictures `rows`, in their order.

    In fp32 unless `bf16`, which is for looks at val during training.
    """
    device = device or next(network.parameters()).device
    network.eval()
    out = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            out.append(network(to_tensor(pixels, part, device)).float().cpu().numpy().astype(np.float64))
        advance(len(part))
    return np.concatenate(out)
