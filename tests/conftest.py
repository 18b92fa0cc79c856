"""Fixtures that several tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from helpers import faces

# Real faces lie beside the checkout in CI, and wherever MIEN_TEST_DATA names elsewhere.
REAL = Path(os.environ.get("MIEN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with fer2013plus.parquet; tests that need it skip where it is absent."""
    if not (REAL / "fer2013plus.parquet").is_file():
        pytest.skip(f"no real faces at {REAL}: set MIEN_TEST_DATA to a folder with fer2013plus.parquet")
    return REAL


@pytest.fixture(scope="session")
def small_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 560 drawn faces, 32 px."""
    return faces.index(tmp_path_factory.mktemp("index") / "index", count=560, size=32)


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study on drawn faces with two small teachers and a student."""
    from mien.core.config.study import load_study
    from mien.study.runner import run_study

    folder = tmp_path_factory.mktemp("study")
    run_study(load_study(faces.study_file(folder / "small.toml")), folder / "out")
    return folder / "out"
