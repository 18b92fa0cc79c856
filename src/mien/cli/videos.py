"""`mien live`, `mien video` and `mien replay`: apparent expressions over time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mien.cli.common import Flat, Json, Model, Out, given, show
from mien.core.config import LiveConfig, LiveRules, VideoConfig
from mien.core.errors import MienError, UsageError

MaybeOut = Annotated[Path | None, Parameter(name=["--out", "-o"])]


def live(
    *,
    input: Annotated[str, Parameter(name=["--input", "-i"])],
    model: Model = None,
    out: MaybeOut = None,
    log: Path | None = None,
    config: Annotated[LiveConfig | None, Flat] = None,
    json: Json = False,
) -> None:
    """Recognise a video, a camera or a folder of frames: detect, follow, recognise, smooth, draw.

    After an error in the middle the video and the tables hold what was recognised until then.

    Parameters
    ----------
    input
        a video file, a folder of images, or a camera's number
    model
        a model file, or the name of one that ships; without it the one that MIEN_MODEL names, else the one that ships
    out
        write the annotated video here (.mp4); it plays in real time at the source's nominal rate
    log
        write a row per face and frame here (.parquet); times of the stages go to NAME_times.parquet beside it
    """
    from mien.stages import live as stage

    done = stage.run(input, model, config or LiveConfig(), out=out, log=log)
    flips = done["flips_per_minute"]
    latency = done["latency_ms"].get("total")
    spent = f"{latency['p50']:.1f} ms a frame (p99 {latency['p99']:.1f}), " if latency else ""
    skipped = f", {done['skipped_detections']} detections that cannot be cropped" if done["skipped_detections"] else ""
    text = (
        f"{done['frames']} frames, a face in {done['frames_with_face']}, {done['identities']} identities{skipped}; "
        f"{spent}{done['fps']:.0f} frames/s, {done['dropped']} dropped; label flips a minute: {flips['raw']} raw, "
        f"{flips['smoothed']} smoothed"
    )
    show(done, json=json, text=text)


def video(
    *sources: Path,
    out: Out,
    model: Model = None,
    config: Annotated[VideoConfig | None, Flat] = None,
    json: Json = False,
) -> None:
    """Analyse many videos to tables for research: a row per face and frame. Goes on where it was.

    Exit code 1: some videos could not be read; the tables say so.

    Parameters
    ----------
    sources
        video files, and folders of them
    out
        frames.parquet, frames.csv and summary.csv over all, a data dictionary beside each; a folder a video in videos/
    model
        a model file, or the name of one that ships; without it the one that MIEN_MODEL names, else the one that ships
    """
    from mien.stages import video as stage

    if not sources:
        raise UsageError("No video was named.", fix="mien video FOLDER --out DIR")
    done = stage.run(list(sources), model, config or VideoConfig(), out)
    text = (
        f"{out}: {done['videos']} videos, {done['frames']:,} frames; {done['analysed']} were analysed now; "
        f"{out / 'frames.csv'}"
    )
    show(done, json=json, text=text)
    if done["failed"]:
        message = f"{len(done['failed'])} of {done['videos']} videos could not be read to their end: "
        raise MienError(message + "; ".join(done["failed"].values()))


def replay(
    table: Path,
    *,
    out: MaybeOut = None,
    intervals: Path | None = None,
    config: Annotated[LiveRules | None, Flat] = None,
    json: Json = False,
) -> None:
    """Smooth and decide a frame table anew with other parameters, and score it against marked intervals.

    Parameters
    ----------
    table
        frames.parquet or frames.csv of `mien video`, or the log of `mien live`
    out
        write the table with its new labels here (.parquet or .csv)
    intervals
        a CSV of what was marked: start_s, end_s, label, and face_id and video where there are several
    """
    from mien.stages import replay as stage

    done = stage.run(table, given(config), out=out, intervals=intervals)
    flips = done["flips_per_minute"]
    lines = [
        f"{done['faces']} faces, {done['rows']:,} rows; flips a minute: {flips['raw']} raw, "
        f"{flips['before']} in the table, {flips['smoothed']} now"
    ]
    for name, scores in (done["scores"] or {}).items():
        wait = scores["median_seconds_to_switch"]
        lines.append(
            f"  {name}: accuracy {scores['accuracy']:.3f}, macro-F1 {scores['macro_f1']:.3f}, "
            f"answered {scores['answered']:.3f}, median time to switch {'never' if wait is None else f'{wait:.2f} s'} "
            f"(n = {scores['n']:,} rows)"
        )
    show(done, json=json, text="\n".join(lines))
