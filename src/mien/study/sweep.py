"""Runs a sweep: every variant with every seed on one index, then the comparison. What is complete is skipped."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from mien.core.artifacts.study import close_study, earlier_request, open_study
from mien.core.artifacts.sweep import SweepDocument, SweepFolder
from mien.core.config.base import expand
from mien.core.config.judge import PredictConfig
from mien.core.config.study import Named
from mien.core.config.sweep import SweepConfig
from mien.core.config.train import DistillConfig
from mien.core.errors import MienError, TrainingDiverged
from mien.core.progress import say, warn
from mien.study.plan import Permission, Step
from mien.study.side_by_side import train_side_by_side


def run_sweep(sweep: SweepConfig, root: Path, text: str, *, replace: bool = False, jobs: int = 1) -> SweepDocument:
    """Run a sweep to its comparison and return `sweep.json`; calling it again goes on where it was.

    Seeds come first and variants second, so that an interrupted sweep has whole blocks. Trainings of other settings
    make way where `replace` says so, or a person at the terminal; raises `UsageError` otherwise. `jobs` trainings at
    most run side by side.
    """
    from mien.stages import predict, sweep_summary, train

    for named in (*sweep.index.source, sweep.teacher):
        expand(named)
    for variant in sweep.variants:
        train.check(sweep.training(variant, sweep.seeds[0])[0])
    folder, fresh = SweepFolder(root), not root.exists()
    build, *trainings = steps(sweep, root)
    permission = Permission(replace)
    earlier_request(root, sweep.name, "sweep")
    permission.obtain([build, *trainings])
    if open_study(root, sweep.name, sweep.model_dump(mode="json"), text, kind="sweep"):
        warn(f"{root} was made with other settings; what they touch is made again.")
    try:
        build.run()
    except MienError:
        if fresh:
            close_study(root)
        raise
    train_side_by_side(partial(steps, sweep, root), root, jobs)
    plan = _plan(sweep)
    started, failed = time.perf_counter(), dict[tuple[str, int], str]()
    for number, ((variant, seed), step) in enumerate(zip(plan, trainings, strict=True), 1):
        say(f"[{number}/{len(plan)}] {variant.name}, seed {seed}  ({time.perf_counter() - started:.0f} s so far)")
        try:
            permission.run(step)
        except TrainingDiverged as error:
            failed[variant.name, seed] = str(error)
            warn(f"{variant.name}, seed {seed}: {error}")
        else:
            predict.run(folder.run(variant.name, seed), folder.index, "val", PredictConfig())
    return sweep_summary.run(sweep, root, failed)


def _plan(sweep: SweepConfig) -> list[tuple[Named, int]]:
    return [(variant, seed) for seed in sweep.seeds for variant in sweep.variants]


def steps(sweep: SweepConfig, root: Path) -> list[Step]:
    """The index, and the trainings in their order."""
    from mien.stages import distill, index, train

    folder = SweepFolder(root)

    def training(variant: Named, seed: int) -> Step:
        out = folder.run(variant.name, seed)

        def run() -> object:
            config, origin = sweep.training(variant, seed)
            if isinstance(config, DistillConfig):
                return distill.run(config, origin, Path(expand(sweep.teacher)), folder.index, out, replace=True)
            return train.run(config, origin, folder.index, out, replace=True)

        return Step(f"train {variant.name} {seed}", out / "manifest.json", run, ("index",), training=out)

    build = Step("index", folder.index / "manifest.json", lambda: index.run(sweep.index, folder.index, replace=True))
    return [build, *(training(variant, seed) for variant, seed in _plan(sweep))]
