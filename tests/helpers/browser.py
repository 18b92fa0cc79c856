"""A headless Chromium for the live page, and what tests feed it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """A browser that is closed at the end; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'mien[dev]'")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium: none of {', '.join(NAMES)} is on PATH")
    with playwright.sync_playwright() as play:
        # As root Chromium starts without its sandbox alone.
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox", *flags])
        yield browser
        browser.close()


def camera_flags(file: Path) -> list[str]:
    """A camera that shows a file (.mjpeg at 30, .y4m at its own frames a second) over and over."""
    return ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={file}"]


def mjpeg(path: Path, frames: list[np.ndarray]) -> Path:
    """RGB frames as JPEGs one after the other."""
    path.write_bytes(b"".join(cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes() for frame in frames))
    return path


def png(rgb: np.ndarray) -> bytes:
    """An RGB image as PNG, without loss."""
    return cv2.imencode(".png", rgb[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def video_frames(path: Path, step: int = 1) -> list[tuple[float, np.ndarray]]:
    """(seconds, RGB) of each `step`-th frame."""
    capture, found = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        found.append((capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)))
    return found[::step]
