"""Facial-expression recognition that can be trusted, from images to a live student.

`Recognizer`, `Face`, `LABELS` and `MienError` are loaded when they are first used: importing `mien`
loads neither torch nor OpenCV.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["LABELS", "Face", "MienError", "Recognizer", "__version__"]

if TYPE_CHECKING:
    from mien.core.errors import MienError
    from mien.core.labels import LABELS
    from mien.runtime.recognizer import Face, Recognizer

_HOMES = {
    "LABELS": "mien.core.labels",
    "MienError": "mien.core.errors",
    "Recognizer": "mien.runtime.recognizer",
    "Face": "mien.runtime.recognizer",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'mien' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
