"""Frames from a video file, a camera or a folder of images, each with its own time."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mien.core.errors import InputError, MienError
from mien.core.geometry import as_rgb
from mien.core.images import decode

# FFmpeg's messages about damaged frames name no file, and readers report such frames. The variable, where set, wins.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

NOMINAL = 25.0  # frames a second, where a source states none
VIDEOS = {
    ".mp4",
    ".m4v",
    ".mov",
    ".avi",
    ".mkv",
    ".webm",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".flv",
    ".ts",
    ".mts",
    ".3gp",
    ".ogv",
}
IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
RULE = "A video file, a folder of images or a camera's number can be read."
_RATES = (1.0, 240.0)  # a rate outside is the time base of a container (1,000 in WebM), not frames a second
_SILENT_S = 10.0  # a camera without a frame for so long counts as gone


def _nominal_rate(capture: cv2.VideoCapture) -> float:
    """Frames a second as a source states them, `NOMINAL` where it states none that is plausible."""
    stated = float(capture.get(cv2.CAP_PROP_FPS))
    return stated if _RATES[0] <= stated <= _RATES[1] else NOMINAL


@dataclass(frozen=True)
class Frame:
    """A frame: its number in the source, its time in seconds, RGB pixels (H, W, 3), and what reading it took.

    Without pixels it cannot be read, and `error` says why.
    """

    number: int
    time_s: float
    rgb: NDArray[np.uint8] | None
    decode_ms: float
    error: str = ""


class Reader(Protocol):
    """A source of frames. `expected` is how many it should have, 0 where that is unknown; `fps` its nominal rate."""

    fps: float
    expected: int
    endless: bool
    missed: int

    def __iter__(self) -> Iterator[Frame]:
        """Frames in order; their times rise."""


class VideoFile:
    """A file's frames at the times of its own timestamps (PTS), also where their rate varies."""

    endless, missed = False, 0

    def __init__(self, path: Path) -> None:
        """Raises `InputError` for a file that is missing or no video."""
        if not path.is_file():
            raise InputError(f"No file {path}.", rule=RULE)
        self._path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise InputError(
                f"{path} is no video that OpenCV can read.",
                rule=RULE,
                fix=(
                    "A file whose end is missing (an interrupted copy or recording) cannot be opened either: "
                    "copy it again."
                ),
            )
        self.fps = _nominal_rate(self._capture)
        self.expected = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[Frame]:
        """All frames; where the file ends long before it should, a last one that cannot be read."""
        number, start, moment = 0, 0.0, 0.0
        try:
            while True:
                began = time.perf_counter()
                ok, frame = self._capture.read()
                if not ok:
                    break
                stamp = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
                if number == 0:
                    start = stamp
                else:
                    # Some files give no timestamps, or one twice.
                    moment = stamp - start if stamp - start > moment else moment + 1 / self.fps
                rgb = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
                yield Frame(number, moment, rgb, 1000 * (time.perf_counter() - began))
                number += 1
            # Containers without an index of frames state an estimate: a few frames less are no error.
            if number and self.expected - number > max(2, 0.02 * self.expected):
                message = f"{self._path} ends after {number} of {self.expected} frames: it is truncated or damaged"
                yield Frame(number, moment + 1 / self.fps, None, 0.0, message)
        finally:
            self._capture.release()


class FrameFolder:
    """Images of a folder in the order of their names (2 before 10), at an even rate."""

    endless, missed = False, 0

    def __init__(self, path: Path, rate: float | None) -> None:
        """`rate` in frames a second. Raises `InputError` for a folder without images."""
        self.fps = rate or NOMINAL
        self._files = sorted((p for p in path.iterdir() if p.suffix.lower() in IMAGES), key=_natural)
        self.expected = len(self._files)
        if not self._files:
            raise InputError(f"No image in {path}.", rule=f"A folder of frames holds {', '.join(sorted(IMAGES))}.")

    def __iter__(self) -> Iterator[Frame]:
        """All images; one that cannot be read is a frame without pixels."""
        for number, path in enumerate(self._files):
            began = time.perf_counter()
            try:
                rgb, error = as_rgb(decode(path.read_bytes())), ""
            except (InputError, OSError) as caught:
                rgb, error = None, f"{path}: {caught}"
            yield Frame(number, number / self.fps, rgb, 1000 * (time.perf_counter() - began), error)


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """A key that sorts numbers in a name by value."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", path.name) if part]


class _CameraFrame(NamedTuple):
    """A camera's frame as OpenCV gives it (BGR), when it arrived, and how long reading it took."""

    number: int
    arrived: float
    bgr: cv2.typing.MatLike
    ms: float


class Camera:
    """A camera's newest frame, timed by a monotonic clock when it arrives; `missed` counts frames replaced unread."""

    expected, endless = 0, True

    def __init__(self, number: int) -> None:
        """Raises `InputError` for a camera that cannot be opened."""
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise InputError(
                f"Camera {number} cannot be opened.",
                rule=RULE,
                fix=(
                    "Is one attached, is its number right (the first is 0), may this program use it, "
                    "and does no other have it open?"
                ),
            )
        self.fps = _nominal_rate(self._capture)
        self.missed = 0
        self._slot: _CameraFrame | None = None
        self._ended = self._stop = False
        self._changed = threading.Condition()

    def _read(self) -> None:
        number = 0
        while not self._stop:
            began = time.perf_counter()
            ok, frame = self._capture.read()
            arrived = time.perf_counter()
            with self._changed:
                if ok:
                    self.missed += self._slot is not None
                    self._slot = _CameraFrame(number, arrived, frame, 1000 * (arrived - began))
                self._ended = not ok
                self._changed.notify()
            if not ok:
                return
            number += 1

    def __iter__(self) -> Iterator[Frame]:
        """Newest frames until the camera ends. Raises `MienError` where no frame arrives for long."""
        thread = threading.Thread(target=self._read, daemon=True)
        thread.start()
        start: float | None = None
        try:
            while (newest := self._take()) is not None:
                start = newest.arrived if start is None else start
                rgb = np.asarray(cv2.cvtColor(newest.bgr, cv2.COLOR_BGR2RGB), np.uint8)
                yield Frame(newest.number, newest.arrived - start, rgb, newest.ms)
        finally:
            self._stop = True
            thread.join(1.0)
            self._capture.release()

    def _take(self) -> _CameraFrame | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._slot is not None or self._ended, _SILENT_S):
                raise MienError(f"The camera gave no frame for {_SILENT_S:.0f} seconds.", fix="Attach it again.")
            newest, self._slot = self._slot, None
            return newest


def open_reader(source: str, rate: float | None = None) -> Reader:
    """A reader of a camera's number, a folder of images (`rate` frames a second) or a video file.

    Raises
    ------
    InputError
        for what is none of them
    """
    if source.isdigit() and not Path(source).exists():
        return Camera(int(source))
    return FrameFolder(Path(source), rate) if Path(source).is_dir() else VideoFile(Path(source))
