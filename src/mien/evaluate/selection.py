"""Choosing one candidate on val by the report's order, with differences that noise explains set aside.

Order (the report, section 7): macro-F1, minority-F1, ECE, accuracy, then NLL, a proper score that resolves what counts
cannot (docs/decisions/0003), then stability over seeds, parameters, latency. At each criterion those that are not
significantly worse than the leader survive, and the next one decides among them. The first five are compared by the
paired bootstrap, for all candidates at once: a lead must exceed the 95 % quantile of the studentised range (as in the
model confidence set: Hansen, Lunde and Nason 2011, section 3.1). Stability compares variances over seeds by an F test
(Bonferroni). Of those left in the end the lowest NLL wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.metrics import Figure
from mien.core.artifacts.study import BaselineScores
from mien.core.labels import INDEX, LABELS, MINORITY
from mien.evaluate.bootstrap import HIGHER_IS_BETTER, resampled_many, unbiased
from mien.evaluate.calibration_error import Floats, Ints
from mien.evaluate.metrics import metrics

SCORED: tuple[Figure, ...] = ("macro_f1", "minority_f1", "ece", "accuracy", "nll")
LEVEL = 0.05
_NAMED = 6  # candidates in a sentence
SLACK = {
    "parameters": 1.1,
    "latency": 1.5,
}  # within this factor of the least is as good; a latency is a noisy measurement


@dataclass(frozen=True)
class Candidate:
    """A model or ensemble: calibrated probabilities (n, k) on val, what it costs, and its reruns.

    `seeds`: val macro-F1 of trainings that differ by their seed alone, this one among them; for an ensemble
    those of its least stable member.
    """

    name: str
    probabilities: Floats
    parameters: int | None
    latency_ms: float | None = None
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Selection:
    """The chosen name and, a line a criterion, why."""

    name: str
    why: list[str]


def select(
    candidates: Sequence[Candidate],
    labels: Ints,
    *,
    resamples: int = 1000,
    seed: int = 0,
    groups: NDArray[np.str_] | None = None,
) -> Selection:
    """Select by the order of this module; `labels` (n,) and near-duplicate `groups` (n,) are val's."""
    values = {c.name: metrics(c.probabilities, labels) for c in candidates}
    drawn = resampled_many(
        [c.probabilities for c in candidates], labels, resamples=resamples, seed=seed, full=False, groups=groups
    )
    draws = {c.name: d for c, d in zip(candidates, drawn, strict=True)}
    remaining, why = list(candidates), list[str]()
    for criterion in SCORED:
        if len(remaining) == 1:
            break
        sign = 1.0 if HIGHER_IS_BETTER[criterion] else -1.0
        points = np.array([sign * values[c.name][criterion] for c in remaining])
        rows = np.array(
            [sign * unbiased(criterion, draws[c.name][criterion], values[c.name][criterion]) for c in remaining]
        )
        leader = int(points.argmax())
        out = _worse(points, rows, leader)
        why.append(
            f"{criterion}: {remaining[leader].name} leads with "
            f"{values[remaining[leader].name][criterion]:.4f}{_verdict(remaining, out)}"
        )
        remaining = [c for c, dropped in zip(remaining, out, strict=True) if not dropped]
    for rule in (_by_stability, _by_parameters, _by_latency):
        if len(remaining) > 1:
            remaining, text = rule(remaining)
            why.append(text)
    if len(remaining) > 1:
        remaining = [min(remaining, key=lambda c: values[c.name]["nll"])]
        why.append(f"nll, to settle it: {remaining[0].name} has the lowest, {values[remaining[0].name]['nll']:.4f}")
    return Selection(remaining[0].name, why or ["there is no other candidate"])


def _verdict(candidates: Sequence[Candidate], out: Sequence[bool]) -> str:
    worse = [c.name for c, lost in zip(candidates, out, strict=True) if lost]
    if not worse:
        return "; no candidate is significantly worse"
    kept = len(candidates) - len(worse)
    return f"; significantly worse: {_names(worse)}; {kept} {'is' if kept == 1 else 'are'} left"


def _names(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _worse(points: Floats, draws: Floats, leader: int) -> list[bool]:
    """Which candidates are significantly worse than the leader.

    The leader is partly chance: a lead counts when it exceeds, in standard errors, the largest difference of any two
    candidates that chance alone would show.
    """
    noise = draws - points[:, None]
    largest = np.zeros(draws.shape[1])
    for row in noise:
        gaps = row - noise
        error = gaps.std(1)
        differs = error > 1e-12
        if differs.any():
            largest = np.maximum(largest, (np.abs(gaps[differs]) / error[differs, None]).max(0))
    critical = float(np.quantile(largest, 1 - LEVEL))
    lead, error = points[leader] - points, (noise[leader] - noise).std(1)
    return [bool(e > 1e-12 and gap > critical * e) for gap, e in zip(lead, error, strict=True)]


def _by_stability(candidates: list[Candidate]) -> tuple[list[Candidate], str]:
    unknown = [c.name for c in candidates if len(c.seeds) < 2]
    if unknown:
        return (
            candidates,
            f"stability over seeds: not known of {_names(unknown)} (fewer than two seeds); passed over",
        )
    from scipy.stats import f  # noqa: PLC0415  (a second to import)

    spread = [float(np.std(c.seeds, ddof=1)) for c in candidates]
    best = int(np.argmin(spread))

    def p(i: int) -> float:
        ratio = (spread[i] / max(spread[best], 1e-12)) ** 2
        return float(f.sf(ratio, len(candidates[i].seeds) - 1, len(candidates[best].seeds) - 1))

    out = [i != best and p(i) < LEVEL / (len(candidates) - 1) for i in range(len(candidates))]
    kept = [c for c, dropped in zip(candidates, out, strict=True) if not dropped]
    return (
        kept,
        f"stability over seeds: {candidates[best].name} leads with a standard deviation of "
        f"{spread[best]:.4f}{_verdict(candidates, out)}",
    )


def _by_parameters(candidates: list[Candidate]) -> tuple[list[Candidate], str]:
    return _least(candidates, {c.name: c.parameters for c in candidates}, "parameters")


def _by_latency(candidates: list[Candidate]) -> tuple[list[Candidate], str]:
    return _least(candidates, {c.name: c.latency_ms for c in candidates}, "latency")


def _least(candidates: list[Candidate], costs: dict[str, float | None], what: str) -> tuple[list[Candidate], str]:
    measured = {name: value for name, value in costs.items() if value is not None}
    if len(measured) < len(costs):
        return candidates, f"{what}: not known of {_names([n for n in costs if n not in measured])}; passed over"
    least = min(measured.values())
    kept = [c for c in candidates if measured[c.name] <= SLACK[what] * least]
    return kept, f"{what}: within {SLACK[what]:g} times the least: {_names([c.name for c in kept])}"


def baselines(val: Ints, labels: Ints) -> dict[str, BaselineScores]:
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
