"""Packed pixels: uint8 rows in `.npy` files of bounded size, in the index's folder or at a URI.

Local files are memory-mapped and shared between processes. Files at a URI (any file system of
`pyarrow.fs`) are fetched when they are first needed into a cache of bounded size, `MIEN_CACHE`
(`~/.cache/mien`) of at most `MIEN_CACHE_GIB` (20). Every file is verified by its hash when opened.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO, Protocol, Self, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
from numpy.typing import NDArray

from mien.core.artifacts import base
from mien.core.errors import ArtifactError, UsageError

FOLDER = "pixels"
_COPY = 1 << 22
RowSelection = int | np.integer | slice | NDArray[np.integer] | NDArray[np.bool_]
"""Rows by number, slice, array of numbers or mask."""


class PixelRows(Protocol):
    """What the stages need of packed pixels: (n, size, size, 1 or 3) uint8, taken by row numbers or slices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, size, size, channels)."""

    def __getitem__(self, rows: RowSelection) -> NDArray[np.uint8]:
        """The named rows."""


class PixelFile(TypedDict):
    """One file of rows."""

    name: str
    rows: int
    sha256: str
    bytes: int


class PackedPixels(TypedDict):
    """What an index's manifest says of its pixels; `where` is a URI, null: in the index's folder."""

    shape: list[int]
    where: str | None
    files: list[PixelFile]


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system and the path in it that a URI names."""
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, ValueError, OSError) as error:
        raise UsageError(
            f"{uri!r} cannot be used: {str(error).splitlines()[0]}.",
            rule=(
                "A URI such as s3://bucket/folder, gs://bucket/folder or file:///folder is needed (a space is %20), "
                "and its place must answer."
            ),
        ) from None
    return filesystem, path


class PixelWriter:
    """Writes rows in order; `close` gives what the manifest says of them."""

    def __init__(self, folder: Path, shape: tuple[int, ...], *, shard_bytes: int, where: str | None) -> None:
        self._folder, self._shape, self._where = folder / FOLDER, shape, where
        self._per_file = max(1, shard_bytes // max(1, int(np.prod(shape[1:]))))
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files: list[PixelFile] = []
        self._remote = open_filesystem(where) if where is not None else None
        self._remaining = shape[0]
        self._file: BinaryIO | None = None
        self._rows = self._room = 0
        self._digest = hashlib.sha256(repr(shape).encode())
        self._sum = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Hash of the shape and of all rows so far, in order: the same however they are spread over files."""
        return self._digest.hexdigest()

    def append(self, rows: NDArray[np.uint8]) -> None:
        """Add rows (k, size, size, channels)."""
        rows = np.ascontiguousarray(rows)
        self._digest.update(rows.data)
        while len(rows):
            file = self._file or self._begin()
            part = rows[: self._room]
            # A stream and no memory map: on a full disk a write raises, a mapped page kills the process.
            file.write(part.data)
            self._sum.update(part.data)
            self._room -= len(part)
            self._remaining -= len(part)
            rows = rows[len(part) :]
            if not self._room:
                self._finish()

    def _begin(self) -> BinaryIO:
        self._rows = self._room = min(self._per_file, self._remaining)
        self._path = self._folder / f"{len(self._files):05}.npy"
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "|u1", "fortran_order": False, "shape": (self._rows, *self._shape[1:])}
        )
        self._sum = hashlib.sha256(header.getvalue())
        file = self._path.open("wb")
        file.write(header.getvalue())
        self._file = file
        return file

    def _finish(self) -> None:
        file = self._file
        if file is None:
            return
        file.flush()
        os.fsync(file.fileno())
        file.close()
        self._file = None
        size, digest = self._path.stat().st_size, self._sum.hexdigest()
        if self._remote is None:
            self._files.append(PixelFile(name=self._path.name, rows=self._rows, sha256=digest, bytes=size))
            return
        # Named by its content: two indexes at one place share files and never overwrite each other's.
        self._files.append(PixelFile(name=f"{digest}.npy", rows=self._rows, sha256=digest, bytes=size))
        _upload(self._path, *self._remote, self._files[-1])
        self._path.unlink()

    def close(self) -> PackedPixels:
        """Finish; what the manifest says of the pixels."""
        if self._remaining:
            raise ArtifactError(f"{self._remaining} rows of pixels were announced and not written.")
        return {"shape": list(self._shape), "where": self._where, "files": self._files}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _upload(path: Path, system: pafs.FileSystem, root: str, file: PixelFile) -> None:
    """Copy a file there under another name, then rename it; what lies there already stays."""
    target = f"{root}/{file['name']}"
    if system.get_file_info(target).size == file["bytes"]:
        return
    system.create_dir(root, recursive=True)
    with path.open("rb") as source, system.open_output_stream(f"{target}.{os.getpid()}.part") as stream:
        while block := source.read(_COPY):
            stream.write(block)
    system.move(f"{target}.{os.getpid()}.part", target)


def check_place(where: str | None) -> None:
    """Refuse a place that cannot be written to, before work is spent."""
    if where is not None:
        system, root = open_filesystem(where)
        try:
            system.create_dir(root, recursive=True)
        except OSError as error:
            raise UsageError(f"{where} cannot be written to: {str(error).splitlines()[0]}.") from None


def check_pixels(folder: Path, meta: PackedPixels, *, fix: str) -> None:
    """Verify local files by their hashes, files at a URI by their sizes."""
    for file in meta["files"]:
        if meta["where"] is None:
            _open(folder / FOLDER / file["name"], file, tuple(meta["shape"]), fix)
            continue
        system, root = open_filesystem(meta["where"])
        if system.get_file_info(f"{root}/{file['name']}").size != file["bytes"]:
            raise ArtifactError(f"{meta['where']}/{file['name']} is missing or has another size.", fix=fix)


def local_files(meta: PackedPixels) -> list[str]:
    """Names of the pixel files that lie in the index's folder."""
    return [] if meta["where"] is not None else [f"{FOLDER}/{f['name']}" for f in meta["files"]]


def open_pixels(folder: Path, meta: PackedPixels, *, fix: str) -> PixelRows:
    """The pixels of an index; one local file comes as a plain memory map."""
    files, shape = meta["files"], tuple(meta["shape"])
    if meta["where"] is None and len(files) == 1:
        return _open(folder / FOLDER / files[0]["name"], files[0], shape, fix)
    return ShardedPixels(folder, files, shape, meta["where"], fix=fix)


def _open(path: Path, file: PixelFile, shape: tuple[int, ...], fix: str) -> NDArray[np.uint8]:
    if not path.is_file() or path.stat().st_size != file["bytes"] or base.sha256_file(path) != file["sha256"]:
        raise ArtifactError(f"{path} is missing or was altered after it was written.", fix=fix)
    array: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != np.uint8 or array.shape != (file["rows"], *shape[1:]):
        raise ArtifactError(f"{path} has shape {array.shape} of {array.dtype}.", fix=fix)
    return array


class ShardedPixels:
    """Rows spread over files, opened as they are needed; at most `_OPEN` stay open."""

    _OPEN = 64

    def __init__(
        self, folder: Path, files: list[PixelFile], shape: tuple[int, ...], where: str | None, *, fix: str
    ) -> None:
        self._folder, self._files, self.shape, self._where, self._fix = folder, files, shape, where, fix
        self._starts = np.cumsum([0] + [f["rows"] for f in files])
        self._maps: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def file(self, number: int) -> NDArray[np.uint8]:
        """The rows of one file, memory-mapped: whole files in turn are how to stream what fits no disk."""
        with self._lock:
            if number not in self._maps:
                entry = self._files[number]
                self._maps[number] = self._open(entry)
                while len(self._maps) > self._OPEN:
                    self._maps.popitem(last=False)
            self._maps.move_to_end(number)
            return self._maps[number]

    def _open(self, entry: PixelFile) -> NDArray[np.uint8]:
        if self._where is None:
            return _open(self._folder / FOLDER / entry["name"], entry, self.shape, self._fix)
        path = _fetch(self._where, entry)
        try:
            return _open(path, entry, self.shape, self._fix)
        except ArtifactError:
            path.unlink(missing_ok=True)  # a wrong file must not stay in the cache
            raise ArtifactError(
                f"{self._where}/{entry['name']} was altered after it was written.",
                rule="Its copy in the cache was removed.",
                fix=self._fix,
            ) from None

    def __getitem__(self, rows: RowSelection) -> NDArray[np.uint8]:
        """Rows by number, slice or array of numbers; a copy."""
        if isinstance(rows, int | np.integer):
            return np.asarray(self[np.array([rows])][0])
        selected = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        numbers: NDArray[np.int64] = np.flatnonzero(selected) if selected.dtype == bool else selected.astype(np.int64)
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= len(self)):
            raise IndexError(f"row {int(numbers.max())} of {len(self)}")
        out = np.empty((len(numbers), *self.shape[1:]), dtype=np.uint8)
        files = np.searchsorted(self._starts, numbers, side="right") - 1
        for number in np.unique(files).tolist():
            mask = files == number
            out[mask] = self.file(number)[numbers[mask] - self._starts[number]]
        return out


def cache_folder() -> Path:
    """Where fetched pixels are kept."""
    return Path(os.environ.get("MIEN_CACHE", Path.home() / ".cache" / "mien")) / FOLDER


def _fetch(where: str, file: PixelFile) -> Path:
    """A file of `where` in the cache; the least recently used ones make room."""
    path = cache_folder() / f"{file['sha256']}.npy"
    if path.is_file():
        os.utime(path)
        return path
    system, root = open_filesystem(where)
    limit = float(os.environ.get("MIEN_CACHE_GIB", "20")) * 2**30
    cached = sorted(path.parent.glob("*.npy"), key=lambda p: p.stat().st_mtime) if path.parent.is_dir() else []
    total = file["bytes"] + sum(p.stat().st_size for p in cached)
    for old in cached:
        if total <= limit:
            break
        total -= old.stat().st_size
        old.unlink(missing_ok=True)
    try:
        with (
            base.atomic(path) as temporary,
            temporary.open("wb") as target,
            system.open_input_stream(f"{root}/{file['name']}") as source,
        ):
            while block := source.read(_COPY):
                target.write(block)
    except FileNotFoundError:
        raise ArtifactError(
            f"{where}/{file['name']} is not there.", rule="The index keeps its pixels at that place."
        ) from None
    return path
