"""Runs a matrix: an index and trainings per source, every run judged on every source. Complete steps are skipped."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mien.core.artifacts.matrix import MatrixDocument, MatrixFolder
from mien.core.config.index import IndexConfig
from mien.core.config.judge import EnsembleConfig, PredictConfig
from mien.core.config.matrix import MatrixConfig
from mien.core.config.study import Named
from mien.core.errors import TrainingDiverged
from mien.core.progress import say
from mien.study.common import check_settings, opened, run_trainings
from mien.study.plan import Step
from mien.study.side_by_side import train_side_by_side


def run_matrix(
    matrix: MatrixConfig, root: Path, text: str, *, replace: bool = False, again: bool = False, jobs: int = 1
) -> MatrixDocument:
    """Run a matrix to its tables and return `matrix.json`; calling it again goes on where it was.

    A run is judged on test once the selection among its source's runs is written, on its own source's whole test and on
    the others' without what it may have seen. Settings that call for other calibrations or selections after test was
    opened are refused, unless `again`. Trainings of other settings make way where `replace` says so, or a person at the
    terminal; raises `UsageError` otherwise.
    """
    from mien.stages import evaluate, evaluate_on, index, matrix_tables, train

    configs = {source.name: matrix.index_of(source) for source in matrix.sources}
    for config in configs.values():
        index.check(config)
    for source in matrix.sources:
        train.check(matrix.training(source, matrix.seeds[0])[0])
    folder = MatrixFolder(root)
    check_settings(
        root, "matrix", matrix.model_dump(mode="json"), [folder.index(name) for name in configs], again=again
    )
    builds, trainings = steps(matrix, root)
    request, plan = matrix.model_dump(mode="json"), [*builds, *trainings.values()]
    with opened(root, "matrix", request, text, plan, replace=replace) as permission:
        for build in builds:
            build.run()
        train_side_by_side(partial(training_steps, matrix, root), root, jobs)
        failed = run_trainings(trainings, permission, partial(_judge, matrix, folder, again))
        done = {name: [seed for seed in matrix.seeds if (name, seed) not in failed] for name in configs}
        for name, seeds in done.items():
            if not seeds:
                raise TrainingDiverged(f"No run on {name} has a result: {failed[name, matrix.seeds[0]]}")
            _select(folder, name, seeds, again)
        for name, seed in [pair for pair in trainings if pair not in failed]:
            run, chosen = folder.run(name, seed), folder.selection(name)
            evaluate.run(run, folder.index(name), matrix.evaluate, selection=chosen)
            for other in configs:
                if other != name:
                    say(f"{name}, seed {seed}, on {other}")
                    evaluate_on.run(run, folder.index(name), folder.index(other), matrix.evaluate, selection=chosen)
        return matrix_tables.run(matrix, root, done, failed)


def _index(config: IndexConfig, folder: MatrixFolder, name: str, labels: str | None) -> None:
    """Build one source's index, restricted to what all of its sources label where it has `labels` of one."""
    from mien.stages import index

    index.run(config, folder.index(name) if labels is None else folder.whole(name), replace=True)
    if labels is not None:
        index.under(labels, folder.whole(name), folder.index(name))


def steps(matrix: MatrixConfig, root: Path) -> tuple[list[Step], dict[tuple[str, int], Step]]:
    """The indexes, and the trainings by source and seed in their order."""
    from mien.stages import train

    folder = MatrixFolder(root)

    def build(source: Named) -> Step:
        out, config, labels = folder.index(source.name), matrix.index_of(source), matrix.labels_of(source)
        return Step(f"index {source.name}", out / "manifest.json", lambda: _index(config, folder, source.name, labels))

    def training(source: Named, seed: int) -> Step:
        name, (config, origin) = source.name, matrix.training(source, seed)
        out = folder.run(name, seed)
        return Step(
            f"train {name} {seed}",
            out / "manifest.json",
            lambda: train.run(config, origin, folder.index(name), out, replace=True),
            (f"index {name}",),
            training=out,
        )

    pairs = [(source, seed) for seed in matrix.seeds for source in matrix.sources]
    return [build(source) for source in matrix.sources], {(s.name, seed): training(s, seed) for s, seed in pairs}


def training_steps(matrix: MatrixConfig, root: Path) -> list[Step]:
    """The trainings alone, in their order."""
    return list(steps(matrix, root)[1].values())


def _judge(matrix: MatrixConfig, folder: MatrixFolder, again: bool, name: str, seed: int) -> None:
    """Predict and calibrate the run that learned from one source with one seed."""
    from mien.stages import calibrate, predict

    out = folder.run(name, seed)
    for split in ("val", "calib"):
        predict.run(out, folder.index(name), split, PredictConfig())
    calibrate.run(out, matrix.calibrate, again=again)


def _select(folder: MatrixFolder, name: str, seeds: list[int], again: bool) -> None:
    """Select a source's best run on val, which opens test for all of its runs."""
    from mien.stages import ensemble

    runs = [folder.run(name, seed) for seed in seeds]
    config = EnsembleConfig(max_members=1, resamples=200)
    ensemble.run(runs, folder.ensembles(name), config, replace=True, again=again)
