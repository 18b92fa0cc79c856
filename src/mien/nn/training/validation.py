"""Validation during training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from numpy.typing import NDArray
from torch import Tensor

from mien.core.artifacts.index import Index
from mien.core.artifacts.metrics import EpochScores
from mien.core.labels import N_CLASSES
from mien.nn.models.network import Network
from mien.nn.predict import predict_logits

Score = Callable[[NDArray[np.float64], NDArray[np.int64]], EpochScores]


class Validation:
    """Scores weights on val; each of several processes predicts its share, and all get the result."""

    def __init__(self, accelerator: Accelerator, index: Index, score: Score, *, bf16: bool) -> None:
        self.rank, self.world, self.device = accelerator.process_index, accelerator.num_processes, accelerator.device
        self.pixels, self.rows, self.score, self.bf16 = index.pixels, index.rows("val"), score, bf16
        self.labels = index.labels[self.rows]

    def __call__(self, network: Network, weights: dict[str, Tensor] | None) -> EpochScores | None:
        """Metrics of `network` with its own weights, or with others; None when its logits are not finite."""
        present = {k: v.detach().clone() for k, v in network.state_dict().items()}
        tested = present if weights is None else weights
        if self.world > 1:  # batch norms' statistics differ between processes: the first one's count
            tested = broadcast(tested)
        network.load_state_dict(tested)
        rows = self.rows[self.rank :: self.world]
        logits = predict_logits(network, self.pixels, rows, device=self.device, bf16=self.bf16)
        network.load_state_dict(present)
        if self.world > 1:
            whole = np.empty((len(self.rows), N_CLASSES))
            for rank, part in enumerate(gather_object([logits])):
                whole[rank :: self.world] = part
            logits = whole
        return self.score(logits, self.labels) if np.isfinite(logits).all() else None
