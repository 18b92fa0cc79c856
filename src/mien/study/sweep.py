"""Runs a sweep: every variant with every seed on one index, then the comparison. What is complete is skipped."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mien.core.artifacts.sweep import SweepDocument, SweepFolder
from mien.core.config.base import expand
from mien.core.config.judge import PredictConfig
from mien.core.config.study import Named
from mien.core.config.sweep import SweepConfig
from mien.core.config.train import DistillConfig
from mien.study.common import opened, run_trainings
from mien.study.plan import Step
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
    folder, (build, trainings) = SweepFolder(root), steps(sweep, root)
    request, plan = sweep.model_dump(mode="json"), [build, *trainings.values()]

    def then(name: str, seed: int) -> None:
        predict.run(folder.run(name, seed), folder.index, "val", PredictConfig())

    with opened(root, "sweep", request, text, plan, replace=replace) as permission:
        build.run()
        train_side_by_side(partial(all_steps, sweep, root), root, jobs)
        return sweep_summary.run(sweep, root, run_trainings(trainings, permission, then))


def steps(sweep: SweepConfig, root: Path) -> tuple[Step, dict[tuple[str, int], Step]]:
    """The index, and the trainings by variant and seed in their order: seeds first, variants second."""
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
    pairs = [(variant, seed) for seed in sweep.seeds for variant in sweep.variants]
    return build, {(variant.name, seed): training(variant, seed) for variant, seed in pairs}


def all_steps(sweep: SweepConfig, root: Path) -> list[Step]:
    """The index and the trainings, in their order."""
    build, trainings = steps(sweep, root)
    return [build, *trainings.values()]
