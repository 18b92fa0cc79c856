"""Pictures to faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mien.core.config.live import DetectConfig
from mien.core.errors import InputError, RejectedImage
from mien.core.images import decode
from mien.runtime.recognizer import Recognizer


def run(images: list[Path], model: Path | None, config: DetectConfig) -> list[dict[str, Any]]:
    """Faces of each picture as plain values: box, confidence, probabilities, label (None: unsure)."""
    for path in images:
        if not path.is_file():
            raise InputError(f"No file {path}.", rule="recognize takes picture files.")
    recognizer = Recognizer.load(model, detect=config)
    return [_one(recognizer, path) for path in images]


def _one(recognizer: Recognizer, path: Path) -> dict[str, Any]:
    try:
        picture = decode(path.read_bytes())
    except RejectedImage as error:
        raise InputError(f"{path}: {error}") from None
    faces = [
        {
            "box": [round(v, 1) for v in face.box], "confidence": round(face.confidence, 4),
            "landmarks": None if face.landmarks is None else face.landmarks.round(1).tolist(),
            "probabilities": {k: round(v, 6) for k, v in face.probabilities.items()}, "label": face.label,
        } for face in recognizer(picture)
    ]  # fmt: skip
    return {
        "image": str(path),
        "width": picture.shape[1],
        "height": picture.shape[0],
        "model": recognizer.card.name,
        "faces": faces,
    }
