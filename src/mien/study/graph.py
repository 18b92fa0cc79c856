"""The steps of a study, in order, from images to `study.json`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mien.core.artifacts.study import StudyFolder
from mien.core.config.judge import PredictConfig
from mien.core.config.recipes import resolve
from mien.core.config.study import Named, StudyConfig, seeded
from mien.core.config.train import DistillConfig, TrainConfig
from mien.study.plan import Step


def steps(study: StudyConfig, root: Path, *, again: bool = False) -> list[Step]:
    """All steps from images to `study.json`; `again` allows calibrating and selecting after test was opened."""
    folder = StudyFolder(root)
    runs = [folder.teacher(teacher.name) for teacher in study.teachers]
    out = [_index(study, folder)]
    for teacher in study.teachers:
        out += [
            _train(study, teacher, folder),
            *_judge(study, folder, folder.teacher(teacher.name), f"train {teacher.name}", again),
        ]
    out.append(_ensemble(study, folder, runs, again))
    if study.student is not None:
        out += [_distill(study, study.student, folder), *_judge(study, folder, folder.student, "distill", again)]
    out.append(_evaluate(study, folder, runs))
    if study.student is not None:
        out.append(_export(study, folder))
    return out


def _index(study: StudyConfig, folder: StudyFolder) -> Step:
    from mien.stages import index

    config = study.index.model_copy(
        update={"seed": study.seed if "seed" not in study.index.model_fields_set else study.index.seed}
    )
    return Step("index", folder.index / "manifest.json", lambda: index.run(config, folder.index, replace=True))


def _train(study: StudyConfig, teacher: Named, folder: StudyFolder) -> Step:
    from mien.stages import train

    out = folder.teacher(teacher.name)
    settings, first = _started(study, teacher.settings, folder)

    def run() -> object:  # resolved when it runs: the settings of a polish depend on those of an earlier run
        config, origin = resolve(TrainConfig, ("study", seeded(settings, study.seed)))
        return train.run(config, origin, folder.index, out, replace=True)

    return Step(f"train {teacher.name}", out / "manifest.json", run, ("index", *first), training=out)


def _started(
    study: StudyConfig, settings: dict[str, object], folder: StudyFolder
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Settings of which `init_from` is a path where it names a teacher, and the step that trains that teacher."""
    start = settings.get("init_from")
    if isinstance(start, str) and start in {teacher.name for teacher in study.teachers}:
        return {**settings, "init_from": str(folder.teacher(start))}, (f"train {start}",)
    return settings, ()


def _judge(study: StudyConfig, folder: StudyFolder, out: Path, training: str, again: bool) -> list[Step]:
    """Predictions of val and calib, then the calibration, of the run that the step `training` leaves."""
    from mien.stages import calibrate, predict

    def predicting(split: str) -> Callable[[], Path]:
        return lambda: predict.run(out, folder.index, split, PredictConfig())

    both = [
        Step(f"predict {out.name} {s}", out / "predictions" / f"{s}.parquet", predicting(s), (training,), judges=True)
        for s in ("val", "calib")
    ]
    needs = tuple(step.name for step in both)
    product = out / "calibration.json"
    return [
        *both,
        Step(
            f"calibrate {out.name}",
            product,
            lambda: calibrate.run(out, study.calibrate, again=again),
            needs,
            judges=True,
        ),
    ]


def _ensemble(study: StudyConfig, folder: StudyFolder, runs: list[Path], again: bool) -> Step:
    from mien.stages import ensemble

    product = folder.ensembles / "manifest.json"
    needs = tuple(f"calibrate {run.name}" for run in runs)
    return Step(
        "ensemble",
        product,
        lambda: ensemble.run(runs, folder.ensembles, study.ensemble, replace=True, again=again),
        needs,
        judges=True,
    )


def _distill(study: StudyConfig, settings: dict[str, object], folder: StudyFolder) -> Step:
    from mien.stages import distill

    started, _ = _started(study, settings, folder)  # every teacher is trained before the ensemble

    def run() -> object:  # resolved when it runs, as a teacher's are
        config, origin = resolve(DistillConfig, ("study", seeded(started, study.seed)))
        return distill.run(config, origin, folder.ensembles, folder.index, folder.student, replace=True)

    return Step("distill", folder.student / "manifest.json", run, ("ensemble",), training=folder.student)


def _evaluate(study: StudyConfig, folder: StudyFolder, runs: list[Path]) -> Step:
    from mien.stages import evaluate

    def run() -> None:
        evaluate.run_all(folder.ensembles, folder.index, study.evaluate)
        if study.student is not None:
            evaluate.run(folder.student, folder.index, study.evaluate)

    last = folder.student if study.student is not None else runs[-1]
    needs = ("ensemble",) if study.student is None else ("ensemble", f"calibrate {folder.student.name}")
    return Step("evaluate", last / "evaluation.json", run, needs, judges=True)


def _export(study: StudyConfig, folder: StudyFolder) -> Step:
    from mien.stages import export

    needs = (f"calibrate {folder.student.name}",)
    return Step(
        "export",
        folder.model,
        lambda: export.run(folder.student, folder.index, folder.model, study.export),
        needs,
        judges=True,
    )
