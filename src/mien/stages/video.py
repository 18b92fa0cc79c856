"""Many videos to tables for research: resumable, a process a core, one video at a time in each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import cv2

from mien.core.artifacts import videos
from mien.core.artifacts.framelog import DECODE_ERROR, read_frame_log
from mien.core.config.live import VideoConfig
from mien.core.errors import InputError, UsageError
from mien.core.progress import meter, warn
from mien.runtime.readers import VIDEOS, open_reader
from mien.runtime.recognizer import Recognizer
from mien.runtime.session import Session
from mien.runtime.timeline import draw_timeline


@dataclass(frozen=True)
class Job:
    """One video that is to be done."""

    name: str
    path: Path
    folder: Path
    fingerprint: str
    made_with: videos.MadeWith


class Analysed(TypedDict):
    """How many videos there are, how many of them were analysed now, and why some could not be read, by name."""

    videos: int
    analysed: int
    frames: int
    failed: dict[str, str]
    out: str


def find_videos(sources: list[Path]) -> dict[str, Path]:
    """Videos by name: files by their own, those of a folder by their path in it, sorted.

    Raises
    ------
    InputError
        for a source that is missing, or a folder without videos
    UsageError
        for two videos of one name
    """
    paths: dict[str, Path] = {}
    for source in sources:
        if source.is_dir():
            files = sorted(p for p in source.rglob("*") if p.is_file() and p.suffix.lower() in VIDEOS)
            if not files:
                raise InputError(f"No video in {source}.", rule=f"Videos end in {', '.join(sorted(VIDEOS))}.")
            named = {path.relative_to(source).as_posix(): path for path in files}
        elif source.is_file():
            named = {source.name: source}
        else:
            raise InputError(f"No file or folder {source}.", rule="mien video takes videos and folders of videos.")
        duplicates = sorted(named.keys() & paths.keys())
        if duplicates:
            raise UsageError(
                f"Two videos have the name {duplicates[0]}.",
                fix="Name the folder that holds both: its videos are then known by their paths below it.",
            )
        paths |= named
    return paths


def run(sources: list[Path], model: Path | None, config: VideoConfig, out: Path) -> Analysed:
    """Analyse all videos that are not done yet, and join the tables of all.

    A video that cannot be read gets a table with one row, status `decode_error`, and is named in the answer.
    Killed at any moment, the same command goes on; a video that is finished is not done again.
    """
    named = find_videos(sources)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file.", rule="The output must be a folder.")
    recognizer = Recognizer.load(model, detect=config)
    settings = config.model_dump(mode="json", exclude={"workers"}) | {"detector": recognizer.detector}
    card = recognizer.card
    made_with = settings | {"model": card.weights_hash, "model_thresholds": card.decisions.thresholds.tolist()}
    jobs = [
        Job(name, path, videos.folder_of(out, name), videos.fingerprint_of(path, made_with), made_with)
        for name, path in sorted(named.items())
    ]
    pending = [job for job in jobs if not videos.is_complete(job.folder, job.fingerprint)]
    for job in pending:
        videos.make_way(job.folder, job.path, made_with)
        videos.claim(job.folder, job.fingerprint, check_only=True)
    with meter("videos", len(jobs)) as progress:
        progress.skip(len(jobs) - len(pending))
        for name in _work(pending, recognizer, model, config):
            progress.advance(note=name)
    videos.join(out, [job.name for job in jobs])
    summaries = {job.name: videos.read_summary(job.folder) for job in jobs}
    return {
        "videos": len(jobs),
        "analysed": len(pending),
        "frames": sum(s["frames"] for s in summaries.values()),
        "failed": {name: s["error"] for name, s in summaries.items() if s["error"]},
        "out": str(out),
    }


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _work(jobs: list[Job], recognizer: Recognizer, model: Path | None, config: VideoConfig) -> Iterator[str]:
    """Do all jobs; yields the names of videos as they are finished."""
    workers = min(config.workers or cores(), len(jobs))
    if workers <= 1:
        for job in jobs:
            _analyse(recognizer, config, job)
            yield job.name
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (model, config, os.getpid())) as pool:
        waiting = [pool.submit(_in_worker, job) for job in jobs]
        try:
            for done in as_completed(waiting):
                yield done.result()
        except BaseException:
            # The workers' current videos are lost anyway: the next start begins them anew.
            for process in multiprocessing.active_children():
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Worker:
    """What a worker process keeps from video to video."""

    recognizer: Recognizer
    config: VideoConfig


def _start(model: Path | None, config: VideoConfig, parent: int) -> None:
    """Make a process of the pool ready: one thread, one model; it ends when its parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the others
    cv2.setNumThreads(1)
    _Worker.recognizer, _Worker.config = Recognizer.load(model, detect=config), config

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _in_worker(job: Job) -> str:
    _analyse(_Worker.recognizer, _Worker.config, job)
    return job.name


def _analyse(recognizer: Recognizer, config: VideoConfig, job: Job) -> None:
    """One video to its tables, summary and image."""
    session, started, error = Session(recognizer, config.rules, batch=config.batch), time.perf_counter(), None
    videos.claim(job.folder, job.fingerprint)
    with videos.video_tables(job.folder, session.meta(job.name)) as tables:
        session.tables = tables
        try:
            for frame in open_reader(str(job.path)):
                session.frame(frame)
                error = frame.error or error
            session.finish()
            if session.frames == 0:
                error = f"No frame of {job.path} can be read."
        except InputError as caught:
            error = str(caught)
        if session.frames == 0:
            tables.rows.add({"frame": 0, "time_s": 0.0, "status": DECODE_ERROR})
    if error:
        warn(error)
    wall = time.perf_counter() - started
    unreadable = session.unreadable if session.frames else 1  # the one row with DECODE_ERROR
    summary: videos.VideoSummary = {
        **session.summary(wall, unreadable),
        "video": job.name,
        "unreadable_frames": unreadable,
        "error": error,
        "made_with": job.made_with,
    }
    timeline = draw_timeline(read_frame_log(job.folder / videos.FRAMES), job.name)
    videos.complete(job.folder, job.fingerprint, summary, timeline)
