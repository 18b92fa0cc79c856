"""Class shares that a training shows, and that its logits then assume."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mien.core.labels import N_CLASSES


def shown_prior(
    targets: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    balanced: bool,
    chance: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """The class shares (7,) that training shows: of targets (n, 7), each row as often as `Sampler` draws it."""
    weight = np.ones(len(labels)) if chance is None else chance
    # Where nothing may be drawn, the sampler draws everything: of all rows, or, balanced, of a class.
    group = labels if balanced else np.zeros_like(labels)
    weight = np.where(np.bincount(group, weight, minlength=N_CLASSES)[group] > 0, weight, 1.0)
    if balanced:
        weight = weight / np.bincount(labels, weight, minlength=N_CLASSES)[labels]
    prior = (weight[:, None] * targets).sum(0)
    out: NDArray[np.float64] = prior / prior.sum()
    return out


def assumed_prior(shares: NDArray[np.float64], loss: str, tau: float) -> NDArray[np.float64]:
    """The class shares that the trained logits assume: `shares`^(1 - tau) where the loss adjusts by tau."""
    power = {"balanced_softmax": 0.0, "logit_adjusted": 1.0 - tau}.get(loss, 1.0)
    prior = shares**power
    out: NDArray[np.float64] = prior / prior.sum()
    return out
