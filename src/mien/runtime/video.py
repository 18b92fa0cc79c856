"""Frames to a video file."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts import base
from mien.core.artifacts.framelog import MARGIN
from mien.core.errors import InputError

CHECK_EVERY = 25  # frames between two checks of the free disk space


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
        # The place of the last frame, and the frame as BGR.
        self._held: tuple[int, cv2.typing.MatLike | None] = (0, None)
        self._count = 0

    def write(self, frame: NDArray[np.uint8], moment: float) -> None:
        """Add a frame of `moment` (seconds, not before the last one's); all have the size of the first.

        Raises `OSError` while the disk is nearly full: OpenCV does not say when it can write no more.
        """
        if self._count % CHECK_EVERY == 0:
            base.check_space(self._path.parent, MARGIN)
        self._count += 1
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
