"""Class shares that change: correcting probabilities for other ones, and estimating those of unlabelled rows.

Saerens, Latinne and Decaestecker 2002, Neural Computation 14(1), sections 2.2 and 2.3.
"""

from __future__ import annotations

import numpy as np

from mien.core.errors import InputError
from mien.evaluate.calibration_error import Floats


def check_prior(prior: Floats, k: int) -> Floats:
    """Class shares as an array, or an `InputError` saying what they lack."""
    found = np.asarray(prior, dtype=np.float64)
    if found.shape != (k,) or not np.isfinite(found).all() or found.min() <= 0 or abs(found.sum() - 1) > 1e-6:
        raise InputError(f"Class shares {found.tolist()}.", rule=f"{k} positive numbers that sum to 1.")
    return found


def shift(probabilities: Floats, learned: Floats, target: Floats) -> Floats:
    """Probabilities (n, k) for rows whose class shares are `target` where the model's were `learned`."""
    k = probabilities.shape[1]
    moved = probabilities * (check_prior(target, k) / check_prior(learned, k))
    return np.asarray(moved / moved.sum(1, keepdims=True))


def estimate(probabilities: Floats, learned: Floats, *, tolerance: float = 1e-8, steps: int = 10_000) -> Floats:
    """The class shares of unlabelled rows that maximise their likelihood, by expectation-maximisation.

    `probabilities` are calibrated for rows with the shares `learned`; without calibration the estimate is biased.
    """
    start = check_prior(learned, probabilities.shape[1])
    prior = start.copy()
    for _ in range(steps):
        moved = probabilities * (prior / start)
        updated = (moved / moved.sum(1, keepdims=True)).mean(0)
        done = np.abs(updated - prior).max() < tolerance
        prior = np.maximum(updated, 1e-12)
        if done:
            break
    return np.asarray(prior / prior.sum())
