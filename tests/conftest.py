"""Fixtures that several tests share; what trains, how many workers, how many threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

# Workers share the cores: one thread each, or waiting threads take the time of computing ones. Set before numpy and
# torch are loaded, and handed on to the processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from helpers import faces
from helpers.shared import once

# Real faces lie beside the checkout in CI, and wherever MIEN_TEST_DATA names elsewhere.
REAL = Path(os.environ.get("MIEN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
# Fixtures whose making is a training.
TRAINED = {"small_study"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: a worker for each usable core, at most eight (each takes about 1 GiB); none for a single core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores == 1 else min(cores, 8)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--no-skip`, for `make test-long`."""
    parser.addoption("--no-skip", action="store_true", help="a test that would be skipped fails: its tool is missing")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests with a trained fixture are marked `trains` and stay on one worker: some of them write into its folder.

    Done as each is collected: xdist reads the groups before the hooks of this file may modify the collected items.
    """
    for name in TRAINED & set(getattr(item, "fixturenames", ())):
        item.add_marker("trains")
        item.add_marker(pytest.mark.xdist_group(name))


def pytest_collection_finish(session: pytest.Session) -> None:
    """A pytest under which xdist ignores the groups is an error: tests would share a folder that some write into."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    apart = [item.nodeid for item in session.items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
    if apart and session.config.option.loadgroup:
        raise pytest.UsageError(f"pytest-xdist does not group tests under pytest {pytest.__version__}, e.g. {apart[0]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Under `--no-skip` a skipped test has failed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skip"):
        report.outcome, report.longrepr = "failed", f"skipped, which --no-skip forbids: {report.longrepr[2]}"
    return report


@pytest.fixture(autouse=True)
def _trainings_are_marked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where trainings were deselected (`make test-fast`), one in an unmarked test is an error."""
    if "not trains" not in request.config.option.markexpr:
        return
    from mien.nn.training.trainer import Trainer

    def refuse(*_: object) -> None:
        pytest.fail("This test trains: mark it `@pytest.mark.trains`.")

    monkeypatch.setattr(Trainer, "run", refuse)


@pytest.fixture(scope="session", autouse=True)
def _drawn_once() -> None:
    """Many tests index the same drawn faces (4 ms each): draw each once a session."""
    from mien.data.sources import synthetic

    drawn = cache(synthetic.draw_face)

    def draw_face(seed: int, number: int, size: int, *, label: str) -> object:
        face = drawn(seed, number, size, label=label)
        return replace(face, image=face.image.copy())

    synthetic.draw_face = draw_face


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with fer2013plus.parquet; tests that need it skip where it is absent."""
    if not (REAL / "fer2013plus.parquet").is_file():
        pytest.skip(f"no real faces at {REAL}: set MIEN_TEST_DATA to a folder with fer2013plus.parquet")
    return REAL


@pytest.fixture(scope="session")
def small_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 560 drawn faces, 32 px."""
    return once(tmp_path_factory, "index", lambda root: faces.index(root / "index", count=560, size=32)) / "index"


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study on drawn faces with two small teachers and a student."""
    from mien.core.config.study import load_study
    from mien.study.runner import run_study

    def make(root: Path) -> None:
        run_study(load_study(faces.study_file(root / "small.toml")), root / "out")

    return once(tmp_path_factory, "study", make) / "out"
