"""What every source gives: checked on opening, then one item a source row."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from numpy import uint8
from numpy.typing import NDArray

from mien.core.errors import InputError, RejectedImage
from mien.core.images import decode

SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "publictest": "val", "test": "test", "testing": "test", "privatetest": "test",
}  # fmt: skip


class Picture(ABC):
    """Anything that loads as RGB uint8 (H, W, 3); picklable, so that other processes can load it."""

    @abstractmethod
    def load(self, *, min_side: int) -> NDArray[uint8]:
        """Decode or draw it; raises `RejectedImage`."""


@dataclass(frozen=True)
class FilePicture(Picture):
    """A picture in a file of its own."""

    path: Path

    def load(self, *, min_side: int) -> NDArray[uint8]:
        """Decode it; raises `RejectedImage`."""
        try:
            data = self.path.read_bytes()
        except (OSError, ValueError) as error:
            raise RejectedImage("missing", getattr(error, "strerror", None) or str(error)) from None
        return decode(data, min_side=min_side)


@dataclass(frozen=True)
class Item:
    """One source row: where it is, what it shows, and how to load it."""

    path: str
    picture: Picture
    official_split: str | None
    source_label: str
    label: str | None
    why: str = ""
    votes: tuple[float, ...] | None = None
    subject: str | None = None


class Source(ABC):
    """A data set on disk (or drawn). The constructor checks the layout and reads the labels."""

    name: ClassVar[str]
    license: ClassVar[str]
    form: ClassVar[str]

    def __init__(self, where: str, *, seed: int, size: int) -> None:
        self.where, self.seed, self.size = where, seed, size

    @abstractmethod
    def __len__(self) -> int:
        """Number of source rows."""

    @abstractmethod
    def __iter__(self) -> Iterator[Item]:
        """All source rows, in a fixed order."""

    @abstractmethod
    def content_hash(self) -> str:
        """Hash of all bytes that decide the result; the place where they lie is not part of it."""

    def describe(self) -> str:
        """WHERE without the place: what provenance records."""
        return Path(self.where).name


def hash_files(root: Path, files: list[Path]) -> str:
    """Hash of relative names and contents of files, read in parallel."""

    def one(path: Path) -> str:
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except (OSError, ValueError):  # a name with a NUL byte is a ValueError
            digest = "unreadable"
        return f"{path.relative_to(root).as_posix()} {digest}"

    with ThreadPoolExecutor() as pool:
        lines = list(pool.map(one, files))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def need_folder(where: str, expected: str) -> Path:
    """The folder `where`, or an error that says what was expected."""
    path = Path(where)
    if not path.is_dir():
        raise InputError(f"No folder {path}.", rule=f"Expected {expected}.")
    return path
