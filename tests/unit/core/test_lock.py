"""One writer a folder."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from mien.core.artifacts.lock import only_writer
from mien.core.errors import UsageError


def hold(folder: Path, ready: Path) -> None:
    with only_writer(folder):
        ready.touch()
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """Another process that writes in `tmp_path / "run"`."""
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path / "run", tmp_path / "ready"))
    process.start()
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.join()


def test_a_folder_has_one_writer_and_is_free_again_after_a_kill(holder, tmp_path):
    with pytest.raises(UsageError, match="Another process is writing"), only_writer(tmp_path / "run"):
        pass
    with only_writer(tmp_path / "other"):
        pass
    holder.kill()
    holder.join()
    with only_writer(tmp_path / "run"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]


def test_an_error_frees_the_folder(tmp_path):
    with pytest.raises(ValueError, match="inside"), only_writer(tmp_path / "run"):
        raise ValueError("inside")
    with only_writer(tmp_path / "run"):
        pass
