"""Frames in from a file or camera, frames out to a file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from mien.core.errors import InputError


class VideoReader:
    """Frames of a file (timed by its frame rate) or of a camera (timed by the clock)."""

    def __init__(self, source: str) -> None:
        self.is_camera = source.isdigit()
        if not self.is_camera and not Path(source).is_file():
            raise InputError(f"No file {source}.", rule="--input is a video file or a camera's number.")
        self._capture = cv2.VideoCapture(int(source) if self.is_camera else source)
        if not self._capture.isOpened():
            what = (
                f"Camera {source} cannot be opened."
                if self.is_camera
                else f"{source} is no video that OpenCV can read."
            )
            raise InputError(what, rule="--input is a video file or a camera's number.")
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or 25.0
        self.expected = 0 if self.is_camera else max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
        """(number, time in seconds, RGB frame) from the first to the last."""
        number, start = 0, time.perf_counter()
        try:
            while True:
                ok, frame = self._capture.read()
                if not ok:
                    return
                moment = time.perf_counter() - start if self.is_camera else number / self.fps
                yield number, moment, np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
                number += 1
        finally:
            self._capture.release()


class VideoWriter:
    """Writes RGB frames as MP4; the file appears under its name when it is complete."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._temporary = path.with_name(f".{path.stem}.tmp{path.suffix or '.mp4'}")
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Add a frame; all have the size of the first."""
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            size = (frame.shape[1], frame.shape[0])
            self._writer = cv2.VideoWriter(str(self._temporary), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, size)
            if not self._writer.isOpened():
                raise InputError(
                    f"{self._path} cannot be written as a video.",
                    rule="--out ends in .mp4 and lies in a writable folder.",
                )
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if kind is None or kind is KeyboardInterrupt:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)
