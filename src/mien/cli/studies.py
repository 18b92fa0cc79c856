"""The commands that go the whole way, or compare: study, quickstart, sweep, matrix, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mien.cli.common import Jobs, Json, Out, Replace, show
from mien.core.errors import UsageError, nearest


def study(
    file: Path,
    *,
    out: Out,
    source: tuple[str, ...] = (),
    dry_run: bool = False,
    jobs: Jobs = 1,
    replace: Replace = False,
    again: bool = False,
    json: Json = False,
) -> None:
    """Run a study from images to report; what is complete is skipped.

    Parameters
    ----------
    file
        a study (TOML); the names of shipped ones work too, e.g. quickstart
    out
        the study's folder
    source
        NAME=WHERE instead of the sources that the study names (repeatable): the same study on other images
    dry_run
        say what would be done: what is there, goes on, is to be made, or is made again since its settings or inputs
        changed
    again
        calibrate and select with other settings although test was opened; results state how often
    """
    from mien.core.config.study import study_with
    from mien.study.runner import plan_study, run_study

    file = _shipped(file, "studies")
    config, text = study_with(file, source)
    if dry_run:
        plan = plan_study(config, out)
        show(
            {"study": config.name, "steps": plan},
            json=json,
            text="\n".join(f"{s['state']:<10}  {s['step']}" for s in plan),
        )
        return
    document = run_study(config, out, text, replace=replace, again=again, jobs=jobs)
    show(document, json=json, text=f"report: {out / 'report' / 'index.html'}")


def sweep(file: Path, *, out: Out, jobs: Jobs = 1, replace: Replace = False, json: Json = False) -> None:
    """Train variants with several seeds each on one index, and compare them on val; goes on where it was.

    Parameters
    ----------
    file
        a sweep (TOML): an index, base settings, variants, seeds; the names of shipped ones work too
    out
        the sweep's folder: runs, sweep.json, sweep.md, curves.png
    """
    from mien.core.config.sweep import load_sweep
    from mien.stages.sweep_summary import table
    from mien.study.sweep import run_sweep

    file = _shipped(file, "sweeps")
    done = run_sweep(load_sweep(file), out, file.read_text(encoding="utf-8"), replace=replace, jobs=jobs)
    show(done, json=json, text=table(done))


def matrix(
    file: Path, *, out: Out, jobs: Jobs = 1, replace: Replace = False, again: bool = False, json: Json = False
) -> None:
    """Learn from each of several sources and judge on the test of all; goes on where it was.

    Parameters
    ----------
    file
        a matrix (TOML): sources, settings of their indexes and of the training, seeds; the names of shipped ones work
        too
    out
        the matrix's folder: indexes, runs, matrix.json, matrix.md, matrix.png
    again
        calibrate and select with other settings although test was opened; results state how often
    """
    from mien.core.config.matrix import load_matrix
    from mien.stages.matrix_tables import tables
    from mien.study.matrix import run_matrix

    file = _shipped(file, "matrices")
    done = run_matrix(load_matrix(file), out, file.read_text(encoding="utf-8"), replace=replace, again=again, jobs=jobs)
    show(done, json=json, text=tables(done))


KINDS = {"studies": "study", "sweeps": "sweep", "matrices": "matrix"}


def _shipped(file: Path, kind: str) -> Path:
    """The file itself, or the shipped one of this name."""
    if file.is_file():
        return file
    from mien.core.config.study import shipped_studies

    folder = shipped_studies() if kind == "studies" else shipped_studies() / kind
    shipped = {path.stem: path for path in folder.glob("*.toml")}
    if str(file) not in shipped:
        raise UsageError(
            f"No {KINDS[kind]} {file}.{nearest(str(file), shipped)}",
            rule=f"A TOML file, or one of: {', '.join(sorted(shipped))}.",
        )
    return shipped[str(file)]


def quickstart(
    *, out: Out = Path("out/quickstart"), replace: Replace = False, again: bool = False, json: Json = False
) -> None:
    """Run every stage on drawn faces, in minutes on two cores.

    Parameters
    ----------
    out
        the study's folder
    again
        as of `mien study`
    """
    study(Path("quickstart"), out=out, replace=replace, again=again, json=json)


def report(
    folder: Path | None = None,
    *,
    compare: tuple[Path, Path] | None = None,
    format: Annotated[str, Parameter(name="--format")] = "html",
    json: Json = False,
) -> None:
    """Write the report of a finished study, or of ensembles that were judged on test; or compare two of them.

    Parameters
    ----------
    folder
        a study's folder, or a folder of ensembles after `mien evaluate ENS --all`
    compare
        two such folders A B, judged on the same test images; the comparison is written to B/report/beside-A
    format
        how it is written, separated by commas: html (index.html), docx, pdf, md (with figures/)
    """
    from mien.core.artifacts.ensemble import SELECTION
    from mien.stages import compare_studies, study_summary
    from mien.stages import report as stage

    if (folder is None) == (compare is None):
        raise UsageError(
            "mien report needs one folder, or --compare with two.", fix="mien report DIR, or mien report --compare A B"
        )
    formats = tuple(filter(None, format.replace(" ", "").split(",")))
    for root in (folder, *(compare or ())):
        if root is not None and (root / SELECTION).is_file():
            study_summary.summarize_ensembles(root)
    if compare is not None:
        files = stage.run_comparison(compare_studies.compare(*compare), *compare, formats)
    elif folder is not None:
        files = stage.run(folder, formats)
    show({"files": [str(path) for path in files]}, json=json, text="\n".join(map(str, files)))
