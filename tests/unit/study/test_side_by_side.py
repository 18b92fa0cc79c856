"""Trainings side by side: as many at once as requested, each after what it needs; a failure stops no other."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mien.core.artifacts.plan import about_to_make
from mien.core.errors import UsageError
from mien.study.plan import Step
from mien.study.side_by_side import train_side_by_side


def work(folder: Path, name: str, seconds: float) -> None:
    """Stands for a training: says when it began and ended; done again it finds itself done."""
    if (folder / name).is_file():
        return
    about_to_make(folder / name)
    if name == "bad":
        raise UsageError("It cannot be trained.")
    begin = time.time()
    print(f"{name} learns on {os.environ['OMP_NUM_THREADS']} threads", flush=True)
    time.sleep(seconds)
    (folder / name).write_text(f"{begin} {time.time()}")


def plan(folder: Path, needs: dict[str, tuple[str, ...]], seconds: float = 0.5) -> list[Step]:
    """Steps of these names; `judge` is no training."""

    def run(name: str) -> Callable[[], Any]:
        return partial(work, folder, name, seconds)

    return [Step(n, folder / n, run(n), w, None if n == "judge" else folder / n) for n, w in needs.items()]


def spans(folder: Path) -> dict[str, tuple[float, float]]:
    """When each training began and ended."""
    found = {path.name: path.read_text().split() for path in folder.iterdir() if path.is_file()}
    return {name: (float(begin), float(end)) for name, (begin, end) in found.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "done").mkdir()
    return tmp_path / "done"


@pytest.mark.slow
def test_so_many_at_once_each_after_what_it_needs(folder, tmp_path):
    needs = {
        "a": ("index",),
        "b": ("index",),
        "c": ("index",),
        "of_a": ("a",),
        "judge": ("a",),
        "student": ("judge",),
    }
    took = train_side_by_side(partial(plan, folder, needs), tmp_path, 2)
    found = spans(folder)
    assert set(found) == set(took) == {"a", "b", "c", "of_a"}  # the student needs what is no training
    assert found["of_a"][0] > found["a"][1]
    at_once = [sum(begin <= moment < end for begin, end in found.values()) for moment, _ in found.values()]
    assert max(at_once) == 2
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // 2))
    assert (tmp_path / "logs" / "a.log").read_text() == f"a learns on {threads} threads\n"


@pytest.mark.slow
def test_what_is_done_and_what_is_alone_need_no_process(folder, tmp_path):
    for name in ("a", "b"):
        (folder / name).write_text("0 1")
    assert train_side_by_side(partial(plan, folder, {"a": ("index",), "b": ("index",)}), tmp_path, 4) == {}
    assert train_side_by_side(partial(plan, folder, {"c": ("index",), "d": ("index",)}), tmp_path, 1) == {}
    assert not (tmp_path / "logs").exists()
    assert train_side_by_side(partial(plan, folder, {"a": (), "of_a": ("a",), "c": ()}), tmp_path, 2).keys() == {
        "of_a",
        "c",
    }


@pytest.mark.slow
def test_a_failure_is_named_and_left_to_the_steps_one_by_one(folder, tmp_path, capsys):
    needs = {"bad": ("index",), "of_bad": ("bad",), "good": ("index",)}
    assert train_side_by_side(partial(plan, folder, needs), tmp_path, 2).keys() == {"good"}
    assert set(spans(folder)) == {"good"}
    assert "bad ended with an error" in capsys.readouterr().err
    assert "error: It cannot be trained." in (tmp_path / "logs" / "bad.log").read_text()


@pytest.mark.slow
def test_an_interrupt_ends_all_of_them(folder, tmp_path):
    needs = {"a": ("index",), "b": ("index",)}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which workers of pytest-xdist ignore
    try:
        threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            train_side_by_side(partial(plan, folder, needs, 60), tmp_path, 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert spans(folder) == {}
