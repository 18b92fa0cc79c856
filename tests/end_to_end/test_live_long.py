"""Live recognition for long, and killed: what is too long for `make test`."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from helpers.matroska import write_matroska
from helpers.models import colour_model
from mien.core.artifacts.framelog import frame_log
from mien.core.config.live import LiveConfig
from mien.runtime.readers import Frame
from mien.runtime.recognizer import Recognizer
from mien.runtime.session import Session

pytestmark = pytest.mark.long


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_from_frame_5_000_to_50_000(tmp_path):
    model, config = colour_model(tmp_path / "m.onnx"), LiveConfig(detector="none")
    rng = np.random.default_rng(0)
    with frame_log(tmp_path / "f.parquet", {}) as tables:
        session = Session(Recognizer.load(model, detect=config), config.rules, tables)
        for k in range(50_000):
            colour = rng.integers(0, 256, 3, dtype=np.uint8)
            session.frame(Frame(k, k / 25, np.full((360, 640, 3), colour, np.uint8), 0.5), draw=True)
            if k == 5_000:
                early = resident_mib()
        assert resident_mib() - early <= 20
    assert pq.ParquetFile(tmp_path / "f.parquet").metadata.num_rows == 50_000


def test_killed_at_five_moments_and_resumed_the_tables_are_equal_row_by_row(tmp_path):
    """SIGKILL of the whole process group, each time when one more video is finished."""
    model, folder = colour_model(tmp_path / "m.onnx"), tmp_path / "in"
    folder.mkdir()
    for k in range(12):
        frames = [np.full((120, 160, 3), (250, 0, 0) if n // 20 % 2 else (0, 250, 0), np.uint8) for n in range(120)]
        write_matroska(folder / f"{k}.mkv", frames, [40 * n + k for n in range(120)])

    def start(out):
        command = [sys.executable, "-m", "mien", "video", str(folder), "--out", str(out), "--model", str(model)]
        return subprocess.Popen(
            [*command, "--detector", "none", "--workers", "2"], start_new_session=True, stderr=subprocess.DEVNULL
        )

    assert start(tmp_path / "whole").wait(300) == 0
    out, times = tmp_path / "out", {}
    for kill in range(5):
        process = start(out)
        deadline = time.monotonic() + 120
        while len(list(out.rglob("manifest.json"))) <= 2 * kill and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for path, moment in times.items():
            assert path.stat().st_mtime_ns == moment, f"{path} was done twice"
        times = {path: path.stat().st_mtime_ns for path in out.rglob("manifest.json")}
    assert start(out).wait(300) == 0
    for path, moment in times.items():
        assert path.stat().st_mtime_ns == moment, f"{path} was done twice"
    assert (out / "frames.csv").read_bytes() == (tmp_path / "whole" / "frames.csv").read_bytes()
    assert pq.read_table(out / "frames.parquet").equals(pq.read_table(tmp_path / "whole" / "frames.parquet"))
    assert not list(out.rglob(".*.tmp"))
