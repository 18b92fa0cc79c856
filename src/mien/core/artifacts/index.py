"""The index: one row a distinct picture, its occurrences, and its packed pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mien.core.artifacts import base
from mien.core.errors import ArtifactError, SplitError
from mien.core.geometry import CropSpec, to_grey
from mien.core.labels import INDEX, LABELS

KIND, VERSION = "index", 1
SPLITS = ("train", "val", "calib", "test")
FIX = "Make one with `mien index build --source NAME=WHERE --out DIR`."

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("source", pa.string()),
        ("license", pa.string()),
        ("split", pa.string()),
        ("label", pa.string()),
        ("votes", pa.list_(pa.field("element", pa.float32()))),
        ("group_id", pa.string()),
        ("subject_id", pa.string()),
        ("phash", pa.uint64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
OCCURRENCES = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("source", pa.string()),
        ("official_split", pa.string()),
        ("source_label", pa.string()),
        ("label", pa.string()),
        ("kept", pa.bool_()),
        ("why", pa.string()),
    ]
)
REJECTED = pa.schema([("path", pa.string()), ("source", pa.string()), ("reason", pa.string()), ("detail", pa.string())])
PIXELS = "pixels/pixels.npy"


@dataclass(frozen=True)
class Index:
    """A complete index, read; arrays are in the order of `index.parquet`."""

    folder: Path
    manifest: dict[str, Any]
    table: pa.Table

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the settings and sources that made it."""
        return str(self.manifest["fingerprint"])

    @property
    def content_hash(self) -> str:
        """Hash of the rows and of the packed pixels: what stages downstream depend on."""
        files = self.manifest["files"]
        return base.fingerprint(KIND, VERSION, {}, {n: files[n]["sha256"] for n in ("index.parquet", PIXELS)})

    @property
    def crop(self) -> CropSpec:
        """How the packed pixels were cut, and how live faces must be."""
        return CropSpec.model_validate(self.manifest["crop"])

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class numbers, shape (n,)."""
        return np.array([INDEX[name] for name in self.table["label"].to_pylist()], dtype=np.int64)

    @cached_property
    def splits(self) -> NDArray[np.str_]:
        """Split names, shape (n,)."""
        return np.array(self.table["split"].to_pylist(), dtype=str)

    @cached_property
    def image_ids(self) -> NDArray[np.str_]:
        """Picture hashes, shape (n,)."""
        return np.array(self.table["image_id"].to_pylist(), dtype=str)

    @cached_property
    def votes(self) -> NDArray[np.float32]:
        """Soft votes (n, 7), each row summing to 1; rows without votes are one-hot of the label."""
        out = np.eye(len(LABELS), dtype=np.float32)[self.labels]
        has = ~self.table["votes"].is_null().to_numpy()
        if has.any():
            values = self.table["votes"].combine_chunks().filter(pa.array(has)).flatten().to_numpy(zero_copy_only=False)
            out[has] = values.reshape(-1, len(LABELS))
        return out

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """Packed pixels, memory-mapped, shape (n, size, size, 1 or 3); one channel means grey."""
        array: NDArray[np.uint8] = np.load(self.folder / PIXELS, mmap_mode="r", allow_pickle=False)
        if array.dtype != np.uint8 or array.shape[:1] != (len(self.table),) or array.ndim != 4:
            raise ArtifactError(f"{self.folder / PIXELS} has shape {array.shape} of {array.dtype}.", fix=FIX)
        return array

    def rows(self, split: str) -> NDArray[np.int64]:
        """Row numbers of a split, in order; a split without rows is an error."""
        if split not in SPLITS:
            raise SplitError(f"No split {split!r}.", rule=f"Splits: {', '.join(SPLITS)}.")
        found = np.flatnonzero(self.splits == split)
        if not len(found):
            raise SplitError(f"{self.folder} has no {split} rows.", fix="Build it with a larger share for that split.")
        return found

    @property
    def license_terms(self) -> list[str]:
        """Terms of all sources in the index."""
        return sorted(set(self.table["license"].to_pylist()))

    @property
    def sources(self) -> list[str]:
        """Names of all sources in the index."""
        return sorted(set(self.table["source"].to_pylist()))


def read_index(folder: Path) -> Index:
    """Open a complete index; its tables are verified against the manifest's hashes."""
    manifest = base.read_manifest(folder, kind=KIND, version=VERSION, fix=FIX)
    base.check_file(folder, manifest, "index.parquet")
    table = pq.read_table(folder / "index.parquet")
    if table.schema.remove_metadata() != SCHEMA:
        raise ArtifactError(f"{folder / 'index.parquet'} has other columns than an index.", fix=FIX)
    splits, labels = set(pc.unique(table["split"]).to_pylist()), set(pc.unique(table["label"]).to_pylist())
    if not splits <= set(SPLITS) or not labels <= set(LABELS):
        raise ArtifactError(f"{folder} has splits {sorted(splits)} and labels {sorted(labels)}.", fix=FIX)
    return Index(folder, manifest, table)


def read_occurrences(folder: Path) -> pa.Table:
    """Every source row that showed a picture of the index, with its official split and label."""
    manifest = base.read_manifest(folder, kind=KIND, version=VERSION, fix=FIX)
    base.check_file(folder, manifest, "occurrences.parquet")
    return pq.read_table(folder / "occurrences.parquet")


def read_audit(folder: Path) -> dict[str, Any]:
    """The counts that `audit.json` holds."""
    base.read_manifest(folder, kind=KIND, version=VERSION, fix=FIX)
    audit: dict[str, Any] = base.read_json(folder / "audit.json", kind="audit", fix=FIX)
    return audit


@dataclass(frozen=True)
class IndexParts:
    """All that goes into an index folder."""

    table: pa.Table
    occurrences: pa.Table
    rejected: pa.Table
    audit: dict[str, Any]
    provenance: dict[str, Any]
    crop: CropSpec


def write_index(folder: Path, parts: IndexParts, *, fingerprint: str) -> None:
    """Write everything but the pixels (packed before, at `PIXELS`), then the manifest.

    `folder` is a building place that the caller renames when this returns.
    """
    for name, table in (("index", parts.table), ("occurrences", parts.occurrences)):
        with base.atomic(folder / f"{name}.parquet") as path:
            pq.write_table(table, path, compression="zstd", store_schema=False)
    flat = parts.table.drop_columns(["votes"])
    for name, table in (("index", flat), ("rejected", parts.rejected)):
        with base.atomic(folder / f"{name}.csv") as path:
            pacsv.write_csv(table, path)
    base.write_json(folder / "audit.json", parts.audit)
    base.write_json(folder / "provenance.json", parts.provenance)
    files = [
        "index.parquet",
        "occurrences.parquet",
        "index.csv",
        "rejected.csv",
        "audit.json",
        "provenance.json",
        PIXELS,
    ]
    base.write_manifest(
        folder, kind=KIND, version=VERSION, fingerprint=fingerprint, files=files,
        meta={"crop": parts.crop.model_dump(), "rows": len(parts.table)},
    )  # fmt: skip


class PixelScratch:
    """Crops collected on disk while sources are read, so that memory stays bounded."""

    def __init__(self, folder: Path, size: int) -> None:
        self._path, self._size, self._count = folder / "pixels" / "scratch.bin", size, 0
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("wb")

    def append(self, crops: NDArray[np.uint8]) -> None:
        """Add RGB crops (n, size, size, 3)."""
        self._file.write(np.ascontiguousarray(crops).tobytes())
        self._count += len(crops)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def pack(self, folder: Path, order: NDArray[np.int64], *, grey: bool) -> None:
        """Write the crops named by `order` to `PIXELS` in that order and drop the scratch file."""
        self._file.close()
        shape = (len(order), self._size, self._size, 1 if grey else 3)
        every = np.memmap(self._path, np.uint8, "r", shape=(self._count, self._size, self._size, 3))
        # Written as a stream, not through a map: on a full disk a write fails, a mapped page kills the process.
        with base.atomic(folder / PIXELS) as path, path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for start in range(0, len(order), 4096):
                rows = every[order[start : start + 4096]]
                file.write((to_grey(rows) if grey else rows).tobytes())
        del every
        self._path.unlink()
