"""How far probabilities are from frequencies. `probabilities` is (n, k), rows sum to 1; `labels` is (n,).

* ECE: 15 equal-width bins (lo, hi] of the largest probability (Guo et al. 2017, arXiv 1706.04599,
  eq. 3); the absolute gaps weighted by the bins' shares.
* class-wise ECE: the same for each class's probability, averaged over classes (Kull et al. 2019,
  arXiv 1910.12656, section 2).
* ECE floor: the mean ECE of labels resampled from the probabilities themselves: what a perfectly
  calibrated model would show at this n.
* debiased ECE: ECE less the bias that finite bins give it, each bin's accuracy taken as normal around
  what was seen (Kumar et al. 2019, arXiv 1909.10155, appendix; there for any L^p); not below 0.
* interval of the true error: the errors under which the ECE that was seen lies between its 2.5 % and 97.5 % quantiles.
* smooth ECE: residuals smoothed by a Gaussian reflected at 0 and 1, at the width that equals the
  error itself (Błasiok and Nakkiran 2023, arXiv 2309.12236, section 3): no bins, consistent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 15
_Z975 = 1.959964  # the normal distribution's 97.5 % quantile
_GRID = 2000  # cells of the smooth ECE's axis
_WIDTHS = (1e-3, 1.0)


def bin_of(confidence: Floats, bins: int = BINS) -> Ints:
    """Bin number of each confidence: bin b is (b / bins, (b + 1) / bins]; 0 falls into the first."""
    edges = np.linspace(0, 1, bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1).astype(np.int64)


def top(probabilities: Floats, labels: Ints) -> tuple[Floats, Floats]:
    """The largest probability of each row and whether its class is the label (1.0 or 0.0)."""
    return probabilities.max(1), (probabilities.argmax(1) == labels).astype(np.float64)


def binned_gap(confidence: Floats, hit: Floats, bins: int = BINS) -> float:
    """Sum over bins of |sum of (confidence - hit)| / n: the expected calibration error."""
    sums = np.bincount(bin_of(confidence, bins), weights=confidence - hit, minlength=bins)
    return float(np.abs(sums).sum() / len(hit))


def ece(probabilities: Floats, labels: Ints, bins: int = BINS) -> float:
    """Expected calibration error of the largest probability."""
    return binned_gap(*top(probabilities, labels), bins)


def ece_by_class(probabilities: Floats, labels: Ints, bins: int = BINS) -> Floats:
    """Calibration error of each class's probability, (k,)."""
    k = probabilities.shape[1]
    return np.array([binned_gap(probabilities[:, c], (labels == c).astype(np.float64), bins) for c in range(k)])


def ece_classwise(probabilities: Floats, labels: Ints, bins: int = BINS) -> float:
    """Mean over classes of the calibration error of that class's probability."""
    return float(ece_by_class(probabilities, labels, bins).mean())


def ece_floor(probabilities: Floats, bins: int = BINS, *, resamples: int = 50, seed: int = 0) -> float:
    """Mean ECE when labels are drawn from the probabilities: the floor at this n."""
    rng = np.random.default_rng(seed)
    confidence = probabilities.max(1)
    bin_numbers = bin_of(confidence, bins)
    expected = np.bincount(bin_numbers, weights=confidence, minlength=bins)
    drawn = [
        np.bincount(bin_numbers[rng.random(len(bin_numbers)) < confidence], minlength=bins) for _ in range(resamples)
    ]
    return float(np.abs(expected - np.array(drawn)).sum(1).mean() / len(bin_numbers))


def debiased_gap(count: Floats, confidence: Floats, hits: Floats) -> Floats:
    """ECE less its bias, from sums over bins (..., bins) of rows, confidences and hits.

    A bin's gap g, seen with standard error s, is on average E|N(g, s)|, the mean of a folded normal.
    """
    n = np.maximum(count, 1e-12)
    gap, rate = np.abs(confidence - hits) / n, np.clip(hits / n, 0, 1)
    error = np.sqrt(rate * (1 - rate) / n)
    bias = np.where(error > 0, _folded_mean(gap, error) - gap, 0.0)
    share = count / count.sum(-1, keepdims=True)
    return np.asarray(np.maximum(0.0, (share * (gap - bias)).sum(-1)))


def _folded_mean(gap: Floats, error: Floats) -> Floats:
    """Mean of |N(gap, error)|."""
    from scipy.special import erf  # noqa: PLC0415  (slow to import)

    safe = np.maximum(error, 1e-12)
    return np.asarray(
        safe * np.sqrt(2 / np.pi) * np.exp(-(gap**2) / (2 * safe**2)) + gap * erf(gap / (safe * np.sqrt(2)))
    )


def ece_debiased(probabilities: Floats, labels: Ints, bins: int = BINS) -> float:
    """ECE of the largest probability without the upward bias of finite bins."""
    confidence, hit = top(probabilities, labels)
    bin_numbers = bin_of(confidence, bins)
    sums = [np.bincount(bin_numbers, weights=w, minlength=bins).astype(np.float64) for w in (None, confidence, hit)]
    return float(debiased_gap(*sums))


def ece_interval(probabilities: Floats, labels: Ints, groups: Ints, bins: int = BINS) -> list[float]:
    """95 % interval [low, high] of the true binned calibration error, by inverting a test.

    The method is in Casella and Berger (2002), section 9.2.1. An error is inside unless the measured
    ECE is too large or too small for it, each at 2.5 %. The ECE is a sum over bins of absolute values of nearly normal
    gaps: its mean and variance under given true gaps follow from the folded normal. How the error is spread over bins
    is taken from the measured gaps, shrunk by their noise (empirical Bayes; Efron and Morris 1973). `groups` (n,) are
    numbers, equal for near-duplicates, by which the noise is larger than that of independent rows.
    """
    confidence, hit = top(probabilities, labels)
    bin_numbers, n = bin_of(confidence, bins), len(hit)
    count, sums, hits = (np.bincount(bin_numbers, w, bins) for w in (np.ones(n), confidence, hit))
    safe, share = np.maximum(count, 1e-12), count / n
    gap, rate = (sums - hits) / safe, (hits + sums / safe) / (safe + 1)
    residual = confidence - hit - gap[bin_numbers]
    design = max(1.0, float((np.bincount(groups, residual) ** 2).sum() / max((residual**2).sum(), 1e-12)))
    error = np.sqrt(np.clip(rate * (1 - rate), 0, None) / safe * design)
    signal = max(0.0, float((share * (gap**2 - error**2)).sum()))
    kept = signal / np.maximum(signal + error**2, 1e-12)
    spread = np.sqrt((kept * gap) ** 2 + kept * error**2 + 1e-12)
    truth = np.linspace(0, 1, 250) ** 2
    gaps = truth[:, None] * spread / (share @ spread)
    mean = _folded_mean(gaps, error)
    variance = (gaps**2 + error**2 - mean**2) @ share**2 + (gaps**2 @ share - truth**2) * design / n
    z = (share @ np.abs(gap) - mean @ share) / np.sqrt(np.maximum(variance, 1e-24))  # falls as the truth rises
    falling = np.minimum.accumulate(z)
    return [float(np.interp(-limit, -falling, truth)) for limit in (_Z975, -_Z975)]


def smooth_gap(confidence: Floats, hit: Floats) -> float:
    """Smooth calibration error of one probability and its outcome, at the width that equals it."""
    n = len(hit)
    place = np.clip(confidence, 0, 1) * _GRID
    lower = np.minimum(place.astype(np.int64), _GRID - 1)
    share, residual = place - lower, hit - confidence
    nodes = np.bincount(lower, weights=residual * (1 - share), minlength=_GRID + 1)
    nodes += np.bincount(lower + 1, weights=residual * share, minlength=_GRID + 1)
    # One period of the even extension: a Gaussian on it is the Gaussian reflected at 0 and 1.
    even = np.concatenate([nodes[:1], nodes[1:-1] / 2, nodes[-1:], nodes[-2:0:-1] / 2]) / n
    spectrum = np.fft.rfft(even)
    frequency = np.arange(len(spectrum)) / 2.0  # of a period of length 2

    def gap(width: float) -> float:
        smooth = np.fft.irfft(spectrum * np.exp(-2 * (np.pi * frequency * width) ** 2), 2 * _GRID)
        return float(np.abs(smooth).sum())

    low, high = _WIDTHS
    if gap(low) <= low:
        return gap(low)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if gap(middle) > middle else (low, middle)
        if high - low < 1e-6:
            break
    return gap((low + high) / 2)


def smooth_ece(probabilities: Floats, labels: Ints) -> float:
    """Smooth calibration error of the largest probability."""
    return smooth_gap(*top(probabilities, labels))


def reliability(probabilities: Floats, labels: Ints, bins: int = BINS) -> dict[str, list[float]]:
    """Per bin: count, mean confidence and accuracy (0 where empty), for a reliability diagram."""
    confidence, hit = top(probabilities, labels)
    where = bin_of(confidence, bins)
    count = np.bincount(where, minlength=bins).astype(np.float64)
    safe = np.maximum(count, 1)
    return {
        "count": count.tolist(),
        "confidence": (np.bincount(where, weights=confidence, minlength=bins) / safe).tolist(),
        "accuracy": (np.bincount(where, weights=hit, minlength=bins) / safe).tolist(),
    }
