"""Images to faces."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict, final

from mien.core.config.live import DetectConfig
from mien.core.errors import InputError
from mien.core.images import decode
from mien.runtime.recognizer import Description, Recognizer


@final
class Recognized(Description):
    """An image's faces."""

    image: str


@final
class Unread(TypedDict):
    """An image that cannot be read; `error` is a sentence."""

    image: str
    error: str


def run(images: list[Path], model: Path | None, config: DetectConfig) -> list[Recognized | Unread]:
    """Faces of each image that can be read as plain values, and what is wrong with the others.

    Raises `InputError` where none of the files exists, before the model is opened.
    """
    if not any(path.is_file() for path in images):
        raise InputError("; ".join(_missing(path) for path in images), rule="recognize takes image files.")
    recognizer = Recognizer.load(model, detect=config)
    return [_recognize(recognizer, path) for path in images]


def _missing(path: Path) -> str:
    return f"{path} is a folder: name its images, {path}/*.jpg." if path.is_dir() else f"No file {path}."


def _recognize(recognizer: Recognizer, path: Path) -> Recognized | Unread:
    if not path.is_file():
        return {"image": str(path), "error": _missing(path)}
    try:
        image = decode(path.read_bytes())
        return {"image": str(path), **recognizer.describe(image)}
    except (InputError, OSError) as error:
        return {"image": str(path), "error": f"{path}: {error}"}
