"""How long a network takes for one picture, as it is trained: eager torch, fp32."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from mien.nn.network import Network


def measure(network: Network, size: int, *, runs: int = 60, warmup: int = 10) -> dict[str, Any]:
    """Milliseconds of one uint8 crop of `size` pixels: median and 95th percentile of `runs`."""
    picture = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    times = []
    with torch.inference_mode():
        for _ in range(runs + warmup):
            start = time.perf_counter()
            network(picture)
            times.append(1000 * (time.perf_counter() - start))
    p50, p95 = np.percentile(times[warmup:], [50, 95])
    return {
        "engine": "torch eager fp32", "batch": 1, "threads": torch.get_num_threads(), "input": network.preprocess.img_size,
        "p50_ms": float(p50), "p95_ms": float(p95),
    }  # fmt: skip
