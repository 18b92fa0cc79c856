"""Trainings side by side, each in its own process: one small network leaves a large accelerator idle."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from mien.core.artifacts.plan import State, ask
from mien.core.errors import MienError
from mien.core.progress import say, warn
from mien.study.plan import Step

LOGS = "logs"
_LOOK_S = 0.1  # between two checks of the processes
_ASK_AGAIN_S = 5.0


def train_side_by_side(plan: Callable[[], Sequence[Step]], root: Path, jobs: int) -> dict[str, float]:
    """Run the trainings of `plan()` that need no more than the index and each other, at most `jobs` at a time.

    Each writes its output to `root/logs/NAME.log`. Returns the seconds that each took. One that fails is named and left
    to the caller, who runs the steps one after another, where it fails again with its own error. `plan` is pickled.
    After an interrupt all of them end with their progress saved.
    """
    waiting = _to_be_made(plan()) if jobs > 1 else []
    if len(waiting) < 2:
        return {}
    running: dict[str, tuple[BaseProcess, float]] = {}
    ended: dict[str, float] = {}
    failed: set[str] = set()
    (root / LOGS).mkdir(parents=True, exist_ok=True)
    say(f"{len(waiting)} trainings, up to {jobs} side by side; what each says: {root / LOGS}")
    try:
        while waiting or running:
            for step in [s for s in waiting if failed.intersection(s.needs)]:
                failed.add(step.name)
                waiting.remove(step)
            ready = [s for s in waiting if all(name in ended for name in s.needs)]
            for step in ready[: jobs - len(running)]:
                waiting.remove(step)
                running[step.name] = (_start(plan, step.name, root, jobs), time.perf_counter())
            time.sleep(_LOOK_S)
            for name in [name for name, (process, _) in running.items() if process.exitcode is not None]:
                process, begin = running.pop(name)
                seconds = round(time.perf_counter() - begin, 2)
                if process.exitcode == 0:
                    ended[name] = seconds
                    say(f"{name}: done in {seconds:.0f} s")
                else:
                    failed.add(name)
                    warn(f"{name} ended with an error, see {_log(root, name)}; it is tried again by itself.")
    finally:
        _end([process for process, _ in running.values()])
    return ended


def _end(processes: Sequence[BaseProcess]) -> None:
    """Ask all to stop until they end; Python loses an interrupt that comes where it cannot be raised."""
    while alive := [process for process in processes if process.is_alive()]:
        for process in alive:
            process.terminate()
        deadline = time.perf_counter() + _ASK_AGAIN_S
        for process in alive:
            process.join(max(0.0, deadline - time.perf_counter()))


def _to_be_made(plan: Sequence[Step]) -> list[Step]:
    """The trainings that are not done and wait for nothing but the index and trainings among them, in their order."""
    states: dict[str, State] = {}
    trainings = []
    for step in plan:
        if step.name.startswith("index"):  # a matrix has one per source; all are done by now
            states[step.name] = "there"
        elif step.training is not None and all(name in states or name.startswith("index") for name in step.needs):
            needs = tuple(name for name in step.needs if states.get(name, "there") != "there")
            states[step.name] = "to be made" if needs else ask(step.run)
            if states[step.name] != "there":
                trainings.append(dataclasses.replace(step, needs=needs))
    return trainings


def _log(root: Path, name: str) -> Path:
    return root / LOGS / f"{name.replace(' ', '-')}.log"


def _start(plan: Callable[[], Sequence[Step]], name: str, root: Path, jobs: int) -> BaseProcess:
    """A process that runs one step; spawned, not forked, as CUDA requires."""
    process = multiprocessing.get_context("spawn").Process(target=_run_one, args=(plan, name, _log(root, name)))
    with _threads(max(1, (os.cpu_count() or 1) // jobs)):
        process.start()
    return process


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """What is started within computes on `count` threads, unless OMP_NUM_THREADS says otherwise."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


def _run_one(plan: Callable[[], Sequence[Step]], name: str, log: Path) -> None:
    """The step called `name`, in this process, whose output goes to `log`."""
    signal.signal(signal.SIGTERM, _interrupt)
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            next(step for step in plan() if step.name == name).run()
        except KeyboardInterrupt:
            sys.exit(130)
        except MienError as error:
            say(f"error: {error}")
            sys.exit(error.exit_code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
