"""The figures that evaluations, calibrations, selections and studies hold: what `mien.evaluate` computes, as JSON."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

Figure = Literal[
    "accuracy",
    "macro_f1",
    "macro_f1_present",
    "minority_f1",
    "ece",
    "ece_floor",
    "ece_debiased",
    "smooth_ece",
    "ece_classwise",
    "brier",
    "nll",
    "mean_confidence",
    "signed_gap",
]
"""A figure of `Metrics` that is one number."""
Intervals = dict[str, list[float]]
"""95 % intervals [low, high] by the figure's name; those of classes are called `f1_happy`, `ece_happy`."""


class Metrics(TypedDict):
    """Figures of the seven classes, defined in `mien.evaluate.metrics`; classes are keys of `per_class_…`."""

    n: int
    accuracy: float
    macro_f1: float
    macro_f1_present: float
    minority_f1: float
    per_class_f1: dict[str, float]
    ece: float
    ece_floor: float
    ece_debiased: float
    smooth_ece: float
    ece_classwise: float
    per_class_ece: dict[str, float]
    brier: float
    nll: float
    mean_confidence: float
    signed_gap: float
    confusion: list[list[int]]


class MetricsWithIntervals(Metrics):
    """Figures with their 95 % intervals."""

    ci95: Intervals


class MetricsAsDistributed(Metrics):
    """Figures on the official test rows as their source distributes them; the index dropped the rows `left_out`."""

    left_out: int


class EpochScores(TypedDict):
    """What an epoch is judged by on val."""

    accuracy: float
    macro_f1: float
    minority_f1: float
    nll: float
    ece: float
    per_class_f1: dict[str, float]


class McNemar(TypedDict):
    """Rows that only one of two models has right, and the exact two-sided p."""

    only_first: int
    only_second: int
    p: float


class PairedDifference(TypedDict):
    """Two models on the same rows: differences, first minus second, by the figure's name."""

    delta: dict[str, float]
    ci95: Intervals
    mcnemar: McNemar


class Change(TypedDict):
    """A paired difference from the images without the corruption."""

    value: float
    ci95: list[float]


class CorruptionScores(TypedDict):
    """Figures under one strength of a corruption."""

    strength: int
    accuracy: float
    macro_f1: float
    ece: float
    nll: float
    mean_confidence: float
    change: dict[str, Change]


class GroupScores(TypedDict):
    """Figures of the images that have one value of an attribute; of too few images there is `n` alone."""

    n: int
    classes: NotRequired[list[str]]
    accuracy: NotRequired[float]
    macro_f1_present: NotRequired[float]
    ece: NotRequired[float]
    nll: NotRequired[float]
    mean_confidence: NotRequired[float]
    ci95: NotRequired[Intervals]


class AttributeScores(TypedDict):
    """Figures of each value of an attribute, and the largest less the smallest accuracy (null for one value)."""

    groups: dict[str, GroupScores]
    accuracy_gap: float | None


class Reliability(TypedDict):
    """Before and after calibration; each a column a quantity, a row a bin."""

    before: dict[str, list[float]]
    after: dict[str, list[float]]


FalsePositives = TypedDict(
    "FalsePositives",
    {
        "class": str,
        "threshold": float,
        "bound": float | None,
        "rate_unthresholded": float,
        "rate": float,
        "ci95": list[float],
        "holds": bool,
    },
)
"""A class's false-positive rate among answered rows, with its 95 % interval; `bound` is what was asked for."""


class ConformalCoverage(TypedDict):
    """How often conformal sets of one kind hold the label, against `target`; `expected` is where chance may put it."""

    kind: str
    target: float
    coverage: float
    expected: list[float] | None
    mean_size: float
    one_class: float
    empty: float
    by_class: dict[str, float]


class Abstention(TypedDict):
    """What thresholds and conformal sets do on rows that they were not fitted on."""

    threshold: float
    coverage: float
    accuracy_answered: float | None
    aurc: float
    accuracy_at_80: float
    curve: dict[str, list[float]]
    false_positives: list[FalsePositives]
    conformal: list[ConformalCoverage]


class Percentiles(TypedDict):
    """Milliseconds: median and percentiles of repeated runs."""

    p50_ms: float
    p95_ms: float
    p99_ms: NotRequired[float]


class Latency(Percentiles):
    """What one image takes."""

    engine: str
    batch: int
    threads: int
    input: int


class ContenderLatency(Percentiles):
    """What one image takes a model in an engine; the turns' medians, least and largest, are the spread."""

    model: str
    engine: str
    threads: int
    p50_of_turns_ms: list[float]
