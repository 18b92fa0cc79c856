"""Choosing one candidate on val by the report's order, with differences that noise explains set aside.

Order: macro-F1, minority-F1, ECE, accuracy (the report, section 7), then NLL, a proper score that
tells apart what the counts cannot, then the fewest parameters. At each criterion the candidates that
are not significantly worse than the leader survive: the paired bootstrap interval of the difference,
at 5 % divided by the number of comparisons (Bonferroni), must not lie wholly on the worse side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mien.core.labels import INDEX, LABELS, MINORITY
from mien.evaluate.bootstrap import HIGHER_IS_BETTER, interval, resampled, unbiased
from mien.evaluate.metrics import Floats, Ints, metrics

ORDER = ("macro_f1", "minority_f1", "ece", "accuracy", "nll")


@dataclass(frozen=True)
class Candidate:
    """A model or ensemble: calibrated probabilities (n, k) on val, and its size."""

    name: str
    probabilities: Floats
    parameters: int


@dataclass(frozen=True)
class Selection:
    """The chosen name and, a line a criterion, why."""

    name: str
    why: list[str]


def select(candidates: list[Candidate], labels: Ints, *, resamples: int = 1000, seed: int = 0) -> Selection:
    """Select by the order of this module; `labels` are val's."""
    values = {c.name: metrics(c.probabilities, labels) for c in candidates}
    draws = {
        c.name: {
            key: unbiased(key, drawn, values[c.name].get(key, 0.0))
            for key, drawn in resampled(c.probabilities, labels, resamples=resamples, seed=seed).items()
        }
        for c in candidates
    }
    left = [c.name for c in candidates]
    why: list[str] = []
    for criterion in ORDER:
        if len(left) == 1:
            break
        sign = 1.0 if HIGHER_IS_BETTER[criterion] else -1.0
        leader = max(left, key=lambda name: sign * values[name][criterion])
        alpha = 0.05 / (len(left) - 1)
        worse = {
            name: interval(sign * (draws[leader][criterion] - draws[name][criterion]), alpha)
            for name in left
            if name != leader
        }
        out = [name for name, (low, _) in worse.items() if low > 0]
        left = [name for name in left if name not in out]
        lost = f"; significantly worse: {', '.join(out)}" if out else "; none is significantly worse"
        why.append(f"{criterion}: {leader} leads with {values[leader][criterion]:.4f}{lost}")
    if len(left) > 1:
        sizes = {c.name: c.parameters for c in candidates}
        smallest = min(sizes[name] for name in left)
        left = [name for name in left if sizes[name] == smallest]
        best = min(left, key=lambda name: values[name]["nll"])
        why.append(
            f"fewest parameters of the survivors: {smallest:,}"
            + (f"; of these the lowest NLL: {best}" if len(left) > 1 else "")
        )
        left = [best]
    return Selection(left[0], why)


def baselines(val: Ints, labels: Ints) -> dict[str, dict[str, float]]:
    """Two rivals that every table shows, from class counts alone.

    chance guesses each of k classes equally often: its F1 of a class with share p is in expectation
    2p/k / (p + 1/k). the other always answers val's commonest class (train may be capped or balanced).
    """
    k = len(LABELS)
    share = np.bincount(labels, minlength=k) / len(labels)
    common = int(np.bincount(val, minlength=k).argmax())
    hit = float(share[common])
    f1_chance = 2 * share / k / (share + 1 / k)
    f1_major = np.where(np.arange(k) == common, 2 * hit / (1 + hit), 0.0)
    rows = {"chance": (1 / k, f1_chance), f"always {LABELS[common]}": (hit, f1_major)}
    few = [INDEX[name] for name in MINORITY]
    return {
        name: {"accuracy": accuracy, "macro_f1": float(f1.mean()), "minority_f1": float(f1[few].mean())}
        for name, (accuracy, f1) in rows.items()
    }
