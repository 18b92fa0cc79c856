"""The material of a report: artefacts of a study or of a folder of ensembles, as nodes with their sources."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mien.report.blocks import Blank, Estimate, Number, Rounding, Span, Spans
from mien.report.node import Node, combined

SPLITS = ("train", "val", "calib", "test")
WHAT = {
    "blur": "blur",
    "noise": "noise",
    "jpeg": "JPEG",
    "low_light": "low light",
    "occlude_eyes": "eyes covered",
    "occlude_mouth": "mouth covered",
    "low_resolution": "low resolution",
    "rotation": "rotation",
    "shifted_box": "shifted box",
}
HEADLINE = ("accuracy", "macro_f1", "minority_f1", "ece")


@dataclass(frozen=True)
class Material:
    """`study.json`, and by the names of runs and ensembles what lies in their folders.

    `sheet` are images (n, s, s, c) of each class where showing them is allowed (drawn faces); `problems` are files that
    could not be read, each with what was wrong and what to do.
    """

    study: Node
    histories: dict[str, Node] = field(default_factory=dict)
    evaluations: dict[str, Node] = field(default_factory=dict)
    configs: dict[str, Node] = field(default_factory=dict)
    environments: dict[str, Node] = field(default_factory=dict)
    manifests: dict[str, Node] = field(default_factory=dict)
    provenance: Node | None = None
    sheet: dict[str, NDArray[np.uint8]] | None = None
    problems: tuple[tuple[str, str], ...] = ()

    @property
    def index(self) -> Node | None:
        """The audit of the index, None for ensembles alone."""
        return self.study.get("index")

    @property
    def student(self) -> Node | None:
        """The student, None where there is none."""
        return self.study.get("student")

    @property
    def models(self) -> list[Node]:
        """The teachers, and the student where there is one."""
        return [*self.study["teachers"], *([self.student] if self.student else [])]

    @property
    def ensembles(self) -> list[Node]:
        """Every candidate of the selection, single models among them."""
        return list(self.study["ensembles"])

    @property
    def joined(self) -> list[Node]:
        """The candidates of several members."""
        return [e for e in self.ensembles if len(e.value["members"]) > 1]

    def candidate(self, name: str) -> Node:
        """A candidate by its name."""
        return next(e for e in self.ensembles if e.value["name"] == name)

    @property
    def chosen(self) -> Node:
        """The candidate that was selected."""
        return self.candidate(self.study.value["selected"]["name"])

    @property
    def best_single(self) -> Node:
        """The single model with the best macro-F1 on val."""
        return self.candidate(self.study.value["selected"]["best_single"])

    @property
    def is_synthetic(self) -> bool:
        """Whether every image was drawn."""
        return bool(self.study.value["drawn"])

    def teachers_of(self, ensemble: Node) -> list[Node]:
        """The members of an ensemble, as single models."""
        return [t for t in self.study["teachers"] if t.value["name"] in ensemble.value["members"]]

    def parameters(self, model: Node) -> Number | Blank:
        """Millions of parameters of a model, or of all members of an ensemble."""
        parts = [model] if "members" not in model.value else self.teachers_of(model)
        if any(part.value["params"] is None for part in parts):
            return Blank("not known", "mien predictions import FILE --out RUN --parameters COUNT")
        return combined("sum", [part["params"] for part in parts], Rounding(2, 1e-6))

    def size(self, model: Node) -> Number | Blank:
        """Megabytes of the weights of a model, or of all members of an ensemble."""
        parts = [model] if "members" not in model.value else self.teachers_of(model)
        if any(part.value["size_mb"] is None for part in parts):
            return Blank("not known", "mien train --index DIR --out RUN --backbone NAME")
        return combined("sum", [part["size_mb"] for part in parts], Rounding(1))

    def latency(self, model: Node) -> Number | Blank:
        """Median milliseconds of one image in PyTorch, one after the other through all members."""
        parts = [model] if "members" not in model.value else self.teachers_of(model)
        if any(part.value["latency"] is None for part in parts):
            imported = any(part.value["training"] is None for part in parts)
            command = (
                "mien train --index DIR --out RUN --backbone NAME"
                if imported
                else "mien predict RUN --index DIR --split val"
            )
            return Blank("not measured", command)
        return combined("sum", [part["latency"]["p50_ms"] for part in parts], Rounding(2))


def scores(metrics: Node, keys: tuple[str, ...] = HEADLINE) -> tuple[Number | Estimate, ...]:
    """Metrics of a metrics object, with intervals where it has them."""
    return tuple(metrics.scored(key) for key in keys)


def listed(parts: list[Span | Spans], last: str = " and ") -> Spans:
    """Several names or numbers as an enumeration."""
    out: list[Span] = []
    for i, part in enumerate(parts):
        if i:
            out.append(last if i == len(parts) - 1 else ", ")
        out += part if isinstance(part, tuple) else [part]
    return tuple(out)


def excludes_zero(ends: Node) -> bool:
    """Whether an interval excludes zero."""
    low, high = ends.value
    return bool(low > 0 or high < 0)
