"""Class shares that change: which ones probabilities assume, corrections for others, estimates without labels.

Saerens, Latinne and Decaestecker 2002, Neural Computation 14(1), sections 2.2 and 2.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mien.core.artifacts.calibration_rows import CalibrationRows
from mien.core.errors import InputError
from mien.evaluate.calibration_error import Floats, Ints
from mien.evaluate.metrics import log_softmax, nll_rows, softmax
from mien.evaluate.scaling import Scaling

MARGIN = 2.0  # of log-likelihood: what a later candidate must be better by
LEVEL = 0.01  # of the test by which labelled rows reject the class shares that a map is said to assume


def check_prior(prior: Floats, k: int) -> Floats:
    """Class shares as an array, or an `InputError` saying what they lack."""
    shares = np.asarray(prior, dtype=np.float64)
    if shares.shape != (k,) or not np.isfinite(shares).all() or shares.min() <= 0 or abs(shares.sum() - 1) > 1e-6:
        raise InputError(f"Class shares {shares.tolist()}.", rule=f"{k} positive numbers that sum to 1.")
    return shares


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


@dataclass(frozen=True)
class Assumed:
    """The class shares (k,) that calibrated probabilities assume, and how that is known."""

    shares: Floats
    why: str


def class_shares(labels: Ints, k: int) -> Floats:
    """Shares (k,) of the classes among `labels`; one row is added, spread over all classes, so that none is 0."""
    counts = np.bincount(labels, minlength=k) + 1 / k
    return np.asarray(counts / counts.sum())


def assumed_by(scaling: Scaling, rows: CalibrationRows, prior: Floats, declared: list[float] | None) -> Assumed:
    """The class shares (k,) that a map which was fitted on `rows` assumes.

    Biases (vector, Dirichlet) make them those of the rows. A temperature leaves those of the model: the ones that it
    declares; where it declares none, `prior` (the shares asked for, so that nothing is to correct), those of the rows,
    or uniform ones.
    """
    k = rows.logits.shape[1]
    row_shares = {"those of calib": class_shares(rows.labels, k)}
    if scaling.method not in ("temperature", "sweep"):
        candidates = row_shares
    elif declared is not None:
        candidates = {"those that the model declares": np.array(declared)}
    else:
        candidates = {"those asked for": prior, **row_shares, "uniform ones": np.full(k, 1 / k)}
    return assumed_shares(scaling.apply(rows.logits), rows.labels, candidates)


def assumed_shares(logits: Floats, labels: Ints, candidates: dict[str, Floats]) -> Assumed:
    """The class shares that softmax(logits) assumes, from labelled rows: one of `candidates`, or an estimate.

    A model that assumes the shares a is calibrated on rows with the shares q once log q - log a is added to its logits
    (Saerens et al. 2002, eq. 2.4). So a follows from the offsets that maximise the likelihood of the rows, but with the
    noise of few rows. It is used only where the rows reject the first of the candidates, {name: shares (k,)}, that no
    other is clearly likelier than (likelihood ratio, 1 %).
    """
    from scipy.special import chdtrc  # noqa: PLC0415  (a tenth of a second to import)

    k = logits.shape[1]
    row_shares = class_shares(labels, k)
    offsets = {name: np.log(row_shares) - np.log(check_prior(shares, k)) for name, shares in candidates.items()}
    losses = {name: float(nll_rows(softmax(logits + offset), labels).sum()) for name, offset in offsets.items()}
    best = next(name for name in losses if losses[name] <= min(losses.values()) + MARGIN)
    fitted = _fit_offsets(logits, labels, offsets[best])
    gain = losses[best] - float(nll_rows(softmax(logits + fitted), labels).sum())
    p = float(chdtrc(k - 1, 2 * max(gain, 0.0)))
    if p >= LEVEL:
        return Assumed(np.asarray(candidates[best]), f"{best} (likelihood ratio of other shares: p = {p:.2g})")
    return Assumed(
        softmax((np.log(row_shares) - fitted)[None])[0], f"estimated on calib, which rejects {best} (p = {p:.2g})"
    )


def _fit_offsets(logits: Floats, labels: Ints, start: Floats) -> Floats:
    """Offsets (k,) of the logits that minimise the NLL and a ridge around `start` (worth a quarter row): Newton."""
    (n, k), target = logits.shape, np.eye(logits.shape[1])[labels].mean(0)
    offsets, ridge = start - start.mean(), 0.25 / n
    centre = offsets.copy()

    def loss(point: Floats) -> float:
        fit = -log_softmax(logits + point)[np.arange(n), labels].mean()
        return float(fit + 0.5 * ridge * ((point - centre) ** 2).sum())

    for _ in range(50):
        p = softmax(logits + offsets)
        gradient = p.mean(0) - target + ridge * (offsets - centre)
        hessian = np.diag(p.mean(0)) - p.T @ p / n + ridge * np.eye(k)
        step = np.linalg.solve(hessian, gradient)
        while loss(offsets - step) > loss(offsets) and np.abs(step).max() > 1e-9:
            step /= 2
        offsets = offsets - step
        if np.abs(step).max() < 1e-8:
            break
    return np.asarray(offsets)
