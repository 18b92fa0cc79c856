"""Frames in from a file or camera, frames out to a file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from mien.core.errors import InputError

NOMINAL = 25.0  # frames a second, where a source states none
_RATES = (1.0, 240.0)  # a rate outside is the time base of a container (1,000 in WebM), not frames a second


class VideoReader:
    """Frames of a file, timed by its own timestamps, or of a camera, timed by a monotonic clock.

    `fps` is the nominal rate: frames of a file may be further apart, those of a camera mostly are.
    """

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
        stated = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps = stated if _RATES[0] <= stated <= _RATES[1] else NOMINAL
        self.expected = 0 if self.is_camera else max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
        """(number, seconds since the first frame, RGB frame) from the first to the last; the seconds rise."""
        number, start, moment = 0, 0.0, 0.0
        try:
            while True:
                ok, frame = self._capture.read()
                if not ok:
                    return
                stamp = self._stamp()
                if number == 0:
                    start = stamp
                else:
                    # Some backends give no timestamps, or one twice.
                    moment = stamp - start if stamp - start > moment else moment + 1 / self.fps
                yield number, moment, np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
                number += 1
        finally:
            self._capture.release()

    def _stamp(self) -> float:
        """When the frame that was just read was taken, seconds."""
        return time.perf_counter() if self.is_camera else float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000


class VideoWriter:
    """Writes RGB frames as MP4 that plays in real time, whatever the distances of its frames.

    MP4 as OpenCV writes it has one rate, `fps`: a frame is repeated until the next one's time, and dropped where
    the next one comes within the same 1/`fps` seconds. The file appears under its name when the `with` block
    ends, with what was written until then, after an error too.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._temporary = path.with_name(f".{path.stem}.tmp{path.suffix or '.mp4'}")
        self._writer: cv2.VideoWriter | None = None
        self._start = 0.0
        self._held: tuple[int, Any] = (0, None)  # the place of the last frame, and the frame as BGR

    def write(self, frame: NDArray[np.uint8], moment: float) -> None:
        """Add a frame of `moment` (seconds, not before the last one's); all have the size of the first."""
        if self._writer is None:
            self._open((frame.shape[1], frame.shape[0]))
            self._start = moment
        place = round((moment - self._start) * self._fps)
        self._repeat(place)
        self._held = (place, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def _open(self, size: tuple[int, int]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = cv2.VideoWriter(str(self._temporary), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, size)
        if not self._writer.isOpened():
            raise InputError(
                f"{self._path} cannot be written as a video.", rule="--out ends in .mp4 and lies in a writable folder."
            )

    def _repeat(self, until: int) -> None:
        """Write the held frame at all places from its own to before `until`."""
        place, frame = self._held
        if self._writer is not None and frame is not None:
            for _ in range(place, until):
                self._writer.write(frame)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        self._repeat(self._held[0] + 1)
        self._writer.release()
        if self._held[1] is None:
            self._temporary.unlink(missing_ok=True)
        else:
            self._temporary.replace(self._path)
