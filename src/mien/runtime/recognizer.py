"""A model file as something that recognises faces in images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypedDict

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mien.core.artifacts.models import shipped_file
from mien.core.artifacts.onnx_model import FIX, KEY, ModelCard, parse_card
from mien.core.config.live import DetectConfig
from mien.core.errors import ArtifactError, InputError
from mien.core.geometry import Box, as_rgb, crop_face, fit_square
from mien.core.labels import LABELS
from mien.runtime.detect import Detection, Finder, crop_of, make_finder

ENVIRONMENT = "MIEN_MODEL"


class FaceDocument(TypedDict):
    """A face as plain rounded values: box in pixels, landmarks (n, 2) where the detector gives them."""

    box: list[float]
    confidence: float
    landmarks: list[list[float]] | None
    probabilities: dict[str, float]
    label: str | None
    conformal_set: list[str]


class Description(TypedDict):
    """An image's size in pixels, the model's name, the faces."""

    width: int
    height: int
    model: str
    faces: list[FaceDocument]


@dataclass(frozen=True)
class Face:
    """A recognised face; `label` is None where the model is not sure enough.

    `conformal_set` holds the labels that the face may have.
    """

    box: Box
    confidence: float
    landmarks: NDArray[np.float32] | None
    probabilities: dict[str, float]
    label: str | None
    conformal_set: tuple[str, ...]

    def to_dict(self) -> FaceDocument:
        """Plain rounded values, as `mien recognize --json` prints them."""
        return {
            "box": [round(v, 1) for v in self.box],
            "confidence": round(self.confidence, 4),
            "landmarks": None if self.landmarks is None else self.landmarks.round(1).tolist(),
            "probabilities": {k: round(v, 6) for k, v in self.probabilities.items()},
            "label": self.label,
            "conformal_set": list(self.conformal_set),
        }


class Recognizer:
    """`Recognizer.load(path)(image)` gives the faces in an RGB or grey uint8 image (H, W[, 3])."""

    def __init__(self, session: onnxruntime.InferenceSession, card: ModelCard, finder: Finder) -> None:
        self._session, self.card, self._finder = session, card, finder

    @classmethod
    def load(cls, path: str | Path | None = None, *, detect: DetectConfig | None = None, threads: int = 1) -> Self:
        """Open a model: a file that `mien export` wrote, or the name of one that ships (`mien models`).

        Without `path`, the one that the environment variable MIEN_MODEL names; without that, the one that ships.

        Raises
        ------
        ArtifactError
            for a file that is no ONNX model, carries no mien metadata, or is a damaged shipped one
        UsageError
            for a name that neither a file nor a shipped model has
        """
        session, card = open_session(model_file(path if path is not None else os.environ.get(ENVIRONMENT)), threads)
        return cls(session, card, make_finder(detect or DetectConfig()))

    def __call__(self, image: NDArray[np.uint8]) -> list[Face]:
        """All faces in an image, largest first; detections that cannot be cropped are left out.

        Raises `InputError` for what is no RGB or grey uint8 image of at least one pixel.
        """
        rgb = as_rgb(image)
        detections, crops = self.crop(rgb, self.find(rgb))
        if not detections:
            return []
        probabilities, _ = self.infer(crops)
        return [
            Face(
                d.box,
                d.confidence,
                d.landmarks,
                dict(zip(LABELS, map(float, p), strict=True)),
                self.label(p),
                self.card.decisions.conformal_set(p),
            )
            for d, p in zip(detections, probabilities, strict=True)
        ]

    def describe(self, image: NDArray[np.uint8]) -> Description:
        """The faces of an image as plain values: what the command and the API answer.

        Raises `InputError` as a call does.
        """
        faces = [face.to_dict() for face in self(image)]
        return {"width": image.shape[1], "height": image.shape[0], "model": self.card.name, "faces": faces}

    def classify(self, crop: NDArray[np.uint8]) -> dict[str, float]:
        """{label: probability} of an image that is a face crop already."""
        probabilities, _ = self.infer(fit_square(as_rgb(crop), self.card.crop.size)[None])
        return dict(zip(LABELS, map(float, probabilities[0]), strict=True))

    @property
    def detector(self) -> str:
        """The name of the detector that is used."""
        return self._finder.detector.name

    def find(self, rgb: NDArray[np.uint8]) -> list[Detection]:
        """Detections in an RGB image, largest first."""
        return self._finder(rgb)

    def crop(self, rgb: NDArray[np.uint8], detections: list[Detection]) -> tuple[list[Detection], NDArray[np.uint8]]:
        """The detections whose faces can be cut out of an RGB image, and their crops (n, s, s, 3).

        A detector now and then answers with a box of no area, outside the image or not finite: it is left out.
        """
        spec = crop_of(self.card.crop, self.detector)
        kept: list[Detection] = []
        crops = np.empty((len(detections), spec.size, spec.size, 3), np.uint8)
        for d in detections:
            try:
                face = fit_square(rgb, spec.size) if d.whole else crop_face(rgb, d.box, spec, d.landmarks)
            except InputError:
                continue
            crops[len(kept)] = face
            kept.append(d)
        return kept, crops[: len(kept)]

    def infer(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probabilities and logits (n, 7) of crops (n, s, s, 3), s as the model's CropSpec says."""
        size = self.card.crop.size
        if crops.shape[1:] != (size, size, 3):
            raise InputError(f"Crops of shape {crops.shape}.", rule=f"This model takes (n, {size}, {size}, 3) uint8.")
        probabilities, logits = self._session.run(["probabilities", "logits"], {"crops": np.ascontiguousarray(crops)})
        return probabilities, logits

    def label(self, probabilities: NDArray[np.floating]) -> str | None:
        """The likeliest label, None below the model's thresholds."""
        return self.card.decisions.label(probabilities)


def model_file(named: str | Path | None) -> Path:
    """The model file that a path or a name means; the shipped default for None."""
    if named is None:
        return shipped_file()
    path = Path(named)
    return path if path.suffix or path.is_file() or len(path.parts) > 1 else shipped_file(str(named))


def open_session(path: Path, threads: int) -> tuple[onnxruntime.InferenceSession, ModelCard]:
    """An onnxruntime session and the card of a model file. External data is refused."""
    if not path.is_file():
        raise ArtifactError(f"No model file {path}.", fix=FIX)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        # From bytes: a model that keeps weights in other files cannot be opened this way.
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes derive from Exception alone
        raise ArtifactError(
            f"{path} is no ONNX model that can be opened: {str(error).splitlines()[0][:200]}", fix=FIX
        ) from None
    card = parse_card(session.get_modelmeta().custom_metadata_map.get(KEY), path)
    names = ([i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()])
    if names != (["crops"], ["probabilities", "logits"]):
        raise ArtifactError(
            f"{path} has inputs {names[0]} and outputs {names[1]}.", rule="crops; probabilities, logits.", fix=FIX
        )
    return session, card
