"""Labels in doubt: found where they are planted, folds that keep groups together."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import faces
from mien.evaluate.metrics import softmax
from mien.evaluate.noise import find_suspects, spread_groups


def test_planted_noise_is_found_and_mended():
    z, truth = faces.simulated(3000, seed=1, skill=8.0)
    rng = np.random.default_rng(0)
    planted = rng.random(3000) < 0.1
    labels = np.where(planted, (truth + rng.integers(1, 7, 3000)) % 7, truth)
    found = find_suspects(softmax(z), labels)
    hit = found["suspect"] & planted
    assert hit.sum() / found["suspect"].sum() > 0.7
    assert hit.sum() / planted.sum() > 0.7
    assert (found["suggested"][hit] == truth[hit]).mean() > 0.8
    assert found["quality"] == pytest.approx(softmax(z)[np.arange(3000), labels], abs=1e-12)


def test_folds_keep_groups_together_and_spread_classes():
    rng = np.random.default_rng(0)
    groups = np.array([f"g{i}" for i in rng.integers(0, 400, 900)])
    labels = rng.integers(0, 7, 900)
    fold = spread_groups(groups, labels, 5, seed=3)
    for name in np.unique(groups):
        assert len(set(fold[groups == name])) == 1
    single = spread_groups(np.array([f"g{i}" for i in range(900)]), labels, 5, seed=3)
    for c in range(7):
        counts = np.bincount(single[labels == c], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert (spread_groups(groups, labels, 5, seed=3) == fold).all()
