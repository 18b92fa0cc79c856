"""How figures stand in tables, and what several sections ask of a study."""

from __future__ import annotations

from typing import Any

SPLITS = ("train", "val", "calib", "test")
HEADLINE = ("accuracy", "macro_f1", "minority_f1", "ece")


def is_synthetic(study: dict[str, Any]) -> bool:
    """Whether every picture was drawn."""
    return bool(study["drawn"])


def fixed(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def threshold(value: float) -> str:
    """A confidence that is needed; one above 1 is never reached."""
    return "never" if value > 1 else fixed(value)


def with_ci(score: dict[str, Any], key: str) -> str:
    """`value [low, high]` of a metrics object."""
    ends = score.get("ci95", {}).get(key)
    return fixed(score[key]) + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def chosen_of(study: dict[str, Any]) -> dict[str, Any]:
    """The ensemble that was selected."""
    return next(e for e in study["ensembles"] if e["name"] == study["selected"]["name"])


def millions(count: int | None) -> str:
    """A number of parameters, or a dash where it is not known."""
    return "–" if count is None else f"{count / 1e6:.2f}"


def parameters_of(study: dict[str, Any], ensemble: dict[str, Any]) -> int:
    """Trainable parameters of all members of an ensemble."""
    return sum(t["params"] for t in study["teachers"] if t["name"] in ensemble["members"])


def models_of(study: dict[str, Any]) -> list[dict[str, Any]]:
    """The teachers, and the student where there is one."""
    return [*study["teachers"], *([study["student"]] if study["student"] else [])]
