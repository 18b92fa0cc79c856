"""A teacher's log-probabilities of augmented views of the train images: a file a view, beside the ensemble.

They depend on the teacher, the index and the augmentation, not on the student: students and seeds share them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts import base

KIND, VERSION = "teacher views", 1
_FOLDER = "views"


def views_folder(ensemble: Path, teacher: str) -> Path:
    """Where the views of an ensemble lie, as the teacher that the hash names (its weights and temperature)."""
    return ensemble / _FOLDER / teacher[:16]


@contextmanager
def computing_view(folder: Path, view: int) -> Iterator[None]:
    """Held by the one process that computes a view; others wait until it is written, or its process has ended."""
    from filelock import FileLock  # noqa: PLC0415  (comes with the extra `train`)

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{view:03}.lock"):
        yield


def read_view(folder: Path, view: int, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """Log-probabilities (n, 7) of a view, None where it was not written, or not whole."""
    path = folder / f"{view:03}.npy"
    if not path.is_file():
        return None
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values if values.shape == shape and values.dtype == np.float32 and np.isfinite(values).all() else None


def write_view(folder: Path, view: int, log_probabilities: NDArray[np.float32]) -> None:
    """Write a view's log-probabilities (n, 7), crash-safely."""
    buffer = io.BytesIO()
    np.save(buffer, log_probabilities, allow_pickle=False)
    base.write_bytes(folder / f"{view:03}.npy", buffer.getvalue())
