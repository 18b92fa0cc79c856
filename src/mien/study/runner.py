"""Runs a study's steps on this machine: what is missing is done, what is complete is skipped."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TypedDict

from mien.core.artifacts.plan import State, unmade
from mien.core.artifacts.run import read_run
from mien.core.artifacts.study import StudyDocument, StudyFolder, earlier_request, read_timings, write_timings
from mien.core.config.base import expand
from mien.core.config.study import StudyConfig
from mien.core.config.train import TrainConfig
from mien.core.errors import ArtifactError, UsageError, nearest
from mien.core.progress import say, warn
from mien.study.common import check_settings, opened
from mien.study.graph import steps
from mien.study.plan import Permission, Step, outlook
from mien.study.side_by_side import train_side_by_side


def run_study(
    study: StudyConfig,
    root: Path,
    text: str | None = None,
    *,
    replace: bool = False,
    again: bool = False,
    jobs: int = 1,
) -> StudyDocument:
    """Run a study to its report and return `study.json`; calling it again goes on where it was.

    `text` is the study file as it was read; it is kept beside the results. Settings that call for another calibration
    or selection after test was opened are refused before anything is made, unless `again`. Trainings of other settings
    make way where `replace` says so, or a person at the terminal; raises `UsageError` otherwise. `jobs` trainings at
    most run side by side.
    """
    from mien.stages import report, study_summary

    _preflight(study)
    check_settings(root, "study", study.model_dump(mode="json"), [StudyFolder(root).index], again=again)
    plan, request = steps(study, root, again=again), study.model_dump(mode="json")
    with opened(root, "study", request, text, plan, replace=replace) as permission:
        started, timings = time.perf_counter(), read_timings(root)
        for number, step in enumerate(plan, 1):
            _run_step(step, permission, f"[{number}/{len(plan) + 1}]", root, timings, started)
            if step.name == "index" and jobs > 1:
                timings |= train_side_by_side(partial(steps, study, root, again=again), root, jobs)
                write_timings(root, timings)
        document = study_summary.run(root)
        say(f"[{len(plan) + 1}/{len(plan) + 1}] report")
        report.run(root, ("html",))
        for inside, line in study_summary.expected_lines(document):
            (say if inside else warn)(line)
        return document


def _preflight(study: StudyConfig) -> None:
    """Raise for settings that cannot work, before anything is made."""
    from mien.stages import train

    for source in study.index.source:
        expand(source)
    names = [teacher.name for teacher in study.teachers]
    for settings in [*(teacher.settings for teacher in study.teachers), study.student or {}]:
        start = settings.get("init_from")
        if start is not None and start not in names:
            try:
                read_run(Path(expand(str(start))))
            except ArtifactError as error:
                raise UsageError(
                    f"init_from = {start!r} names no teacher of the study.{nearest(str(start), names)}",
                    rule=f"Teachers: {', '.join(names)}; or the folder of a finished run. There: {error.seen}",
                ) from None
        train.check(TrainConfig.model_construct(backbone=str(settings.get("backbone", "resnet18"))))


def _run_step(
    step: Step, permission: Permission, place: str, root: Path, timings: dict[str, float], started: float
) -> None:
    before = _modified(step.product)
    begin = time.perf_counter()
    say(f"{place} {step.name}  ({begin - started:.0f} s so far)")
    permission.run(step)
    if _modified(step.product) != before:
        timings[step.name] = round(time.perf_counter() - begin, 2)
        write_timings(root, timings)


def _modified(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.is_file() else None


class PlannedStep(TypedDict):
    """A step, what it leaves, and whether that is there, goes on, or is to be made, or made again."""

    step: str
    product: str
    state: State


def plan_study(study: StudyConfig, root: Path) -> list[PlannedStep]:
    """What a run would do."""
    earlier_request(root, study.name, "study")
    plan = steps(study, root)
    states, report = outlook(plan), StudyFolder(root).report
    whole = report.is_file() and set(states.values()) == {"there"}
    rows = [(step.name, step.product, states[step.name]) for step in plan]
    rows.append(("report", report, "there" if whole else unmade(report)))
    return [{"step": name, "product": str(product.relative_to(root)), "state": state} for name, product, state in rows]
