"""What every source gives: checked on opening, then one item a source row."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import ClassVar

from numpy import uint8
from numpy.typing import NDArray

from mien.core.errors import InputError, RejectedImage
from mien.core.geometry import Box
from mien.core.images import MAX_PIXELS, as_three, decode_lean

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "train_set": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "publictest": "val",
    "calib": "calib",
    "test": "test",
    "testing": "test",
    "privatetest": "test",
}

_READ = 1 << 16

Attributes = tuple[tuple[str, str], ...]
Points = tuple[tuple[float, float], ...]


class SourceImage(ABC):
    """Anything that loads as uint8 pixels; picklable, so that other processes can load it.

    `box` is where the face lies when the image shows more than a face, `landmarks` its points, the
    two eyes first; both in pixels, both from the source.
    """

    box: Box | None = None
    landmarks: Points | None = None

    @abstractmethod
    def read(self) -> bytes:
        """The bytes that decide what it shows and that no table of the source holds; may be empty."""

    @abstractmethod
    def decode(self, data: bytes, *, min_side: int, max_pixels: int) -> NDArray[uint8]:
        """Those bytes as (H, W, 3), or (H, W, 1) where the file is grey; raises `RejectedImage`."""

    def load(self, *, min_side: int, max_pixels: int = MAX_PIXELS) -> NDArray[uint8]:
        """Read and decode to RGB uint8 (H, W, 3); raises `RejectedImage`."""
        return as_three(self.decode(self.read(), min_side=min_side, max_pixels=max_pixels))

    def fingerprint(self) -> str:
        """Changes with the image: a file's size and time of change."""
        return ""


@dataclass(frozen=True)
class FileImage(SourceImage):
    """An image in a file of its own, `name` below `root`."""

    root: str
    name: str
    box: Box | None = None
    landmarks: Points | None = None

    def read(self) -> bytes:
        """The file's bytes; raises `RejectedImage` when it cannot be opened."""
        try:
            file = os.open(f"{self.root}/{self.name}", os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:  # a million times: file objects cost as much as reading a small image
                parts = []
                while part := os.read(file, _READ):
                    parts.append(part)
                return b"".join(parts)
            finally:
                os.close(file)
        except (OSError, ValueError) as error:
            raise RejectedImage("missing", getattr(error, "strerror", None) or str(error)) from None

    def decode(self, data: bytes, *, min_side: int, max_pixels: int) -> NDArray[uint8]:
        """Decode them; raises `RejectedImage`."""
        return decode_lean(data, min_side=min_side, max_pixels=max_pixels)

    def fingerprint(self) -> str:
        """Size and time of change."""
        try:
            status = os.stat(f"{self.root}/{self.name}")  # noqa: PTH116
        except (OSError, ValueError):
            return "-"
        return f"{status.st_size}.{status.st_mtime_ns}"


@dataclass(frozen=True)
class Item:
    """One source row: where it is, what it shows, and how to load it. `why` says why it has no label."""

    path: str
    image: SourceImage
    official_split: str | None
    source_label: str
    label: str | None
    why: str = ""
    votes: tuple[float, ...] | None = None
    subject: str | None = None
    attributes: Attributes = ()


class Source(ABC):
    """A data set on disk (or drawn). The constructor checks the layout and reads the labels."""

    name: ClassVar[str]
    license: ClassVar[str]
    form: ClassVar[str]
    get: ClassVar[str]
    """How a user comes by it."""
    relabels: ClassVar[tuple[str, ...]] = ()
    """Sources whose images this one labels anew: it decides before them."""

    distinct: ClassVar[bool] = False
    """Whether its images are known to be different ones, so that near-duplicates are not looked for among them."""

    def __init__(self, where: str, *, seed: int, size: int) -> None:
        self.where, self.seed, self.size = where, seed, size
        self._table_hash: str | None = None
        self.alias = self.name
        """What it is called in the index: two sources of one kind are told apart by it."""

    @property
    def cropped(self) -> bool:
        """Whether its images are face crops already, which no alignment must touch."""
        return True

    @abstractmethod
    def __len__(self) -> int:
        """Number of source rows."""

    @abstractmethod
    def __iter__(self) -> Iterator[Item]:
        """All source rows, in a fixed order."""

    @abstractmethod
    def hash_table(self) -> str:
        """Compute `table_hash`."""

    def table_hash(self) -> str:
        """Hash of what decides the rows: tables, names, parameters. Images in files of their own are not in it.

        Computed once: tables can be large, and the rows were read when the source was opened.
        """
        if self._table_hash is None:
            self._table_hash = self.hash_table()
        return self._table_hash

    def describe(self) -> str:
        """WHERE without the place: what provenance records."""
        return Path(self.where).name


class NamedSource(Source):
    """A source whose labels are free names. Rows whose name is in `drop` (lower case) are dropped and counted."""

    def __init__(self, where: str, *, seed: int, size: int, drop: frozenset[str] = frozenset()) -> None:
        super().__init__(where, seed=seed, size=size)
        self.drop = drop


class Content:
    """The running hash of a source: its table, and every image's path and bytes, in order."""

    def __init__(self, table_hash: str) -> None:
        self._paths, self._digests = hashlib.sha256(table_hash.encode()), hashlib.sha256()

    def add(self, paths: Iterable[str], digests: bytes) -> None:
        """Add rows: their paths, and their digests joined (32 bytes each)."""
        self._paths.update("".join(f"{path}\n" for path in paths).encode("utf-8", "surrogateescape"))
        self._digests.update(digests)

    def value(self) -> str:
        """The hash so far."""
        return hashlib.sha256(self._paths.digest() + self._digests.digest()).hexdigest()


def digest(image: SourceImage) -> bytes:
    """sha256 of an image's bytes; of nothing where they cannot be read."""
    try:
        return hashlib.sha256(image.read()).digest()
    except RejectedImage:
        return bytes(32)


def content_hash(source: Source) -> str:
    """Hash of all bytes that decide what a source gives; the place where they lie is not part of it."""
    content = Content(source.table_hash())
    with ThreadPoolExecutor() as pool:
        for items in chunks(source, 4096):
            content.add((i.path for i in items), b"".join(pool.map(digest, (i.image for i in items), chunksize=64)))
    return content.value()


def fingerprint(items: Iterable[Item]) -> str:
    """One fingerprint for rows: it changes when a file's size or time of change does."""
    return hashlib.sha256("\n".join(item.image.fingerprint() for item in items).encode()).hexdigest()[:32]


def chunks(source: Source, size: int) -> Iterator[list[Item]]:
    """The rows in lists of `size`, their paths under the source's alias and in letters that a table can hold."""
    rows = iter(source)
    while chunk := list(islice(rows, size)):
        if source.alias != source.name:
            chunk = [replace(item, path=source.alias + item.path[item.path.index(":") :]) for item in chunk]
        yield [item if item.path.isascii() else replace(item, path=_written(item.path)) for item in chunk]


def _written(path: str) -> str:
    """A path whose bytes that are no UTF-8 stand as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def hash_text(*parts: str) -> str:
    """Hash of texts, each told apart from its neighbours."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        digest.update(len(data).to_bytes(8) + data)
    return digest.hexdigest()


def need_folder(where: str, expected: str) -> Path:
    """The folder `where`, or an error that says what was expected."""
    path = Path(where)
    if not path.is_dir():
        raise InputError(f"No folder {path}.", rule=f"Expected {expected}.")
    return path


def inside(root: Path, name: str, table: Path) -> str:
    """A relative name that stays below `root`; a table that leaves it is refused."""
    clean = name.strip().replace("\\", "/")
    if not clean or clean.startswith("/") or ".." in clean.split("/") or "\0" in clean:
        raise InputError(f"{table} names the image {name!r}.", rule=f"Names are relative and stay inside {root}.")
    return clean


def what_is_in(folder: Path) -> str:
    """A few names from a folder, for errors."""
    return ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
