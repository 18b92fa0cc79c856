"""The index: one row a distinct image, its occurrences, and its packed pixels.

Tables are written as streams of batches, so that memory does not grow with the images.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mien.core.artifacts import base
from mien.core.artifacts.audit import Audit, Provenance, RestrictedAudit
from mien.core.artifacts.pixels import FOLDER as PIXELS
from mien.core.artifacts.pixels import PackedPixels, PixelRows, PixelWriter, check_pixels, local_files, open_pixels
from mien.core.errors import ArtifactError, SplitError
from mien.core.geometry import Crop, CropSpec
from mien.core.labels import INDEX, LABELS

KIND, VERSION = "index", 3
_CONTENT = 1  # format of `content_hash`; not `VERSION`, since another file format holds the same images
SPLITS = ("train", "val", "calib", "test")
_FLAGS = {
    "train": "smaller --val-fraction and --test-fraction",
    **{name: f"a larger --{name}-fraction" for name in ("val", "calib", "test")},
}
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
        ("attributes", pa.map_(pa.string(), pa.string())),
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
DUPLICATES = pa.schema(
    [
        ("group_id", pa.string()),
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("kind", pa.string()),
        ("score", pa.float32()),
        ("source", pa.string()),
        ("official_split", pa.string()),
        ("split", pa.string()),
        ("source_label", pa.string()),
        ("label", pa.string()),
        ("kept", pa.bool_()),
        ("why", pa.string()),
    ]
)
MOVED = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("from_split", pa.string()),
        ("to_split", pa.string()),
        ("group_id", pa.string()),
        ("because", pa.string()),
    ]
)
_ROW_GROUP = 1 << 16


class IndexContent(TypedDict):
    """Hashes of the rows and of the packed pixels."""

    rows: str
    pixels: str


class SourcesSeen(TypedDict):
    """What the sources looked like when the index was built: names, sizes and times of their files, hashed."""

    seen: list[str]


class IndexManifest(base.Manifest, SourcesSeen):
    """`manifest.json` of an index."""

    crop: Crop
    rows: int
    content: IndexContent
    pixels: PackedPixels


_AUDIT = base.JsonArtifact[Audit]("audit.json", "audit", FIX)
PROVENANCE = base.JsonArtifact[Provenance]("provenance.json", "provenance", FIX)


@dataclass(frozen=True)
class Index:
    """A complete index, read; arrays are in the order of `index.parquet`."""

    folder: Path
    manifest: IndexManifest
    table: pa.Table

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the settings and sources that made it."""
        return self.manifest["fingerprint"]

    @property
    def content_hash(self) -> str:
        """Hash of the rows, the packed pixels and the crop: what stages downstream depend on.

        It does not depend on how the pixels are packed (`--shard-mib`, `--pixels`) nor on how Parquet encodes the rows.
        """
        return base.fingerprint(KIND, _CONTENT, self.manifest["crop"], self.manifest["content"])

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
        """Image hashes, shape (n,)."""
        return np.array(self.table["image_id"].to_pylist(), dtype=str)

    @cached_property
    def group_ids(self) -> NDArray[np.str_]:
        """Near-duplicate groups, shape (n,); a row without near-duplicates is a group of its own."""
        return np.array(self.table["group_id"].to_pylist(), dtype=str)

    @cached_property
    def drawn(self) -> NDArray[np.bool_]:
        """Which rows (n,) come from a source that draws faces, whatever it is called here."""
        sources = PROVENANCE.read(self.folder)["sources"]
        names = {source["name"] for source in sources if source["kind"] == "synthetic"}
        return np.array([name in names for name in self.table["source"].to_pylist()], dtype=bool)

    def attributes(self, rows: NDArray[np.int64]) -> list[dict[str, str]]:
        """What sources say of these rows, e.g. an age group: {attribute: value} each."""
        return [dict(pairs or ()) for pairs in self.table["attributes"].take(pa.array(rows)).to_pylist()]

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
    def pixels(self) -> PixelRows:
        """Packed pixels, memory-mapped and verified, shape (n, size, size, 1 or 3); one channel means grey."""
        meta = self.manifest["pixels"]
        if meta["shape"][0] != len(self.table):
            raise ArtifactError(f"{self.folder} has {meta['shape'][0]} images for {len(self.table)} rows.", fix=FIX)
        return open_pixels(self.folder, meta, fix=self._again)

    @property
    def _again(self) -> str:
        return f"Remove {self.folder} and build it again."

    def check(self) -> None:
        """Verify the packed pixels: local files by their hashes, files elsewhere by their sizes."""
        check_pixels(self.folder, self.manifest["pixels"], fix=self._again)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Row numbers of a split, in order; a split without rows is an error."""
        if split not in SPLITS:
            raise SplitError(f"No split {split!r}.", rule=f"Splits: {', '.join(SPLITS)}.")
        numbers = np.flatnonzero(self.splits == split)
        if not len(numbers):
            present = ", ".join(f"{name} {n:,}" for name in SPLITS if (n := int((self.splits == name).sum())))
            raise SplitError(
                f"{self.folder} has no {split} rows.",
                rule=f"This step needs them; the index holds {present or 'no rows'}.",
                fix=f"Build an index of more sources, or with {_FLAGS[split]}.",
            )
        return numbers

    @property
    def license_terms(self) -> list[str]:
        """Terms of all sources in the index."""
        return sorted(set(self.table["license"].to_pylist()))

    @property
    def sources(self) -> list[str]:
        """Names of all sources in the index."""
        return sorted(set(self.table["source"].to_pylist()))


def _fix(folder: Path) -> str:
    return f"Remove {folder} and build it again." if (folder / base.MANIFEST).is_file() else FIX


def read_index(folder: Path) -> Index:
    """Open a complete index; its tables are verified against the manifest's hashes."""
    manifest: IndexManifest = base.read_manifest(folder, kind=KIND, version=VERSION, fix=_fix(folder))
    base.check_file(folder, manifest, "index.parquet")
    table = pq.read_table(folder / "index.parquet")
    if table.schema.remove_metadata() != SCHEMA:
        raise ArtifactError(f"{folder / 'index.parquet'} has other columns than an index.", fix=FIX)
    splits, labels = set(pc.unique(table["split"]).to_pylist()), set(pc.unique(table["label"]).to_pylist())
    if not splits <= set(SPLITS) or not labels <= set(LABELS):
        raise ArtifactError(f"{folder} has splits {sorted(splits)} and labels {sorted(labels)}.", fix=FIX)
    return Index(folder, manifest, table)


def read_occurrences(folder: Path) -> pa.Table:
    """Every source row that showed an image of the index, with its official split and label."""
    manifest = base.read_manifest(folder, kind=KIND, version=VERSION, fix=FIX)
    base.check_file(folder, manifest, "occurrences.parquet")
    return pq.read_table(folder / "occurrences.parquet")


def read_audit(folder: Path) -> Audit:
    """The counts that `audit.json` holds.

    Raises
    ------
    ArtifactError
        for a folder that holds no index, or one that a matrix restricted to the images that all its sources label
    """
    base.read_manifest(folder, kind=KIND, version=VERSION, fix=FIX)
    audit = _AUDIT.read(folder)
    if "suspicious" not in audit:
        raise ArtifactError(
            f"{folder} was cut out of another index, to hold the images that all sources label.",
            rule="Such an index has counts by class and split alone.",
            fix="Audit the index that it was cut out of; provenance.json names it under `of`.",
        )
    return audit


@dataclass(frozen=True)
class IndexParts:
    """All that goes into an index folder. Tables and pixels are streams, read once, rows before pixels' end."""

    rows: Iterable[pa.RecordBatch]
    occurrences: Iterable[pa.RecordBatch]
    rejected: Iterable[pa.RecordBatch]
    duplicates: Iterable[pa.RecordBatch]
    moved: Iterable[pa.RecordBatch]
    pixels: Iterable[NDArray[np.uint8]]
    count: int
    audit: Audit | RestrictedAudit
    provenance: Provenance
    crop: CropSpec


def regroup(batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int = _ROW_GROUP) -> Iterator[pa.Table]:
    """The same rows in tables of `rows` each, so that files do not depend on how the work was cut."""
    pending, count = [], 0
    for batch in batches:
        pending.append(batch)
        count += len(batch)
        while count >= rows:
            table = pa.Table.from_batches(pending, schema)
            yield table.slice(0, rows).combine_chunks()
            rest = table.slice(rows).combine_chunks()
            pending, count = rest.to_batches(), len(rest)
    if count:
        yield pa.Table.from_batches(pending, schema).combine_chunks()


def _hash_column(digest: hashlib._Hash, column: pa.Array) -> None:
    """Add a column's values and which of them are null, whatever buffers hold them."""
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    digest.update(np.packbits(valid).tobytes())
    kind = column.type
    if pa.types.is_map(kind) or pa.types.is_list(kind):
        offsets = column.offsets.to_numpy(zero_copy_only=False)
        digest.update(np.where(valid, np.diff(offsets), 0).astype(np.int32).tobytes())
        column = column.filter(pa.array(valid))
        for values in (column.keys, column.items) if pa.types.is_map(kind) else (column.flatten(),):
            _hash_column(digest, values)
    elif pa.types.is_string(kind):
        column = pc.fill_null(column, "")
        digest.update(pc.binary_length(column).to_numpy(zero_copy_only=False).tobytes())
        digest.update("".join(column.to_pylist()).encode())
    else:
        digest.update(
            np.ascontiguousarray(
                pc.fill_null(column, pa.scalar(0, pa.int8()).cast(kind)).to_numpy(zero_copy_only=False)
            ).tobytes()
        )


def hash_rows(digest: hashlib._Hash, table: pa.Table) -> None:
    """Add a table to a hash: names, types and values, independent of chunks, offsets and file format."""
    for field in table.schema:
        digest.update(f"{field.name}:{field.type}:{len(table)};".encode())
        chunks = table[field.name].combine_chunks()
        _hash_column(digest, chunks if isinstance(chunks, pa.Array) else pa.concat_arrays(chunks.chunks))


def _write_tables(
    folder: Path, name: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema, *, parquet: bool, csv: bool
) -> str:
    """Write a table in the named formats; returns the hash of its rows."""
    digest = hashlib.sha256()
    flat = _flat(schema.empty_table()).schema
    with contextlib.ExitStack() as stack:
        writers: list[Callable[[pa.Table], None]] = []
        if parquet:
            path = stack.enter_context(base.atomic(folder / f"{name}.parquet"))
            writers.append(
                stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd", store_schema=False)).write_table
            )
        if csv:
            path = stack.enter_context(base.atomic(folder / f"{name}.csv"))
            sheet = stack.enter_context(pacsv.CSVWriter(path, flat))
            writers.append(lambda table: sheet.write_table(_flat(table)))
        for table in regroup(batches, schema):
            hash_rows(digest, table)
            for write in writers:
                write(table)
    return digest.hexdigest()


def _flat(table: pa.Table) -> pa.Table:
    """Columns that a spreadsheet can show: lists and maps become text."""
    for position, field in enumerate(table.schema):
        if not pa.types.is_map(field.type) and not pa.types.is_list(field.type):
            continue
        chunks = [_joined(chunk) for chunk in table.column(position).chunks]
        table = table.set_column(position, field.name, pa.chunked_array(chunks, pa.string()))
    return table


def _joined(column: pa.Array) -> pa.Array:
    """Maps as "key=value; …", lists of numbers as "1 0.25 …" of four digits; what is empty or null as null."""
    valid = column.is_valid()
    sizes = np.where(valid, np.diff(column.offsets.to_numpy()), 0)
    entries = column.filter(valid)
    if pa.types.is_map(column.type):
        words, separator = pc.binary_join_element_wise(entries.keys, entries.items, "="), "; "
    else:
        coded, separator = entries.flatten().dictionary_encode(), " "
        words = pa.array([f"{v:.4g}" for v in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())
    return pc.if_else(pa.array(sizes > 0), pc.binary_join(pa.ListArray.from_arrays(offsets, words), separator), None)


def write_index(
    folder: Path, parts: IndexParts, *, fingerprint: str, meta: SourcesSeen, shard_bytes: int, where: str | None
) -> None:
    """Write everything, then the manifest. `folder` is a building place that the caller renames afterwards."""
    hashes = {}
    for name, batches, schema, parquet, csv in (
        ("index", parts.rows, SCHEMA, True, True),
        ("occurrences", parts.occurrences, OCCURRENCES, True, False),
        ("rejected", parts.rejected, REJECTED, False, True),
        ("duplicates", parts.duplicates, DUPLICATES, False, True),
        ("moved", parts.moved, MOVED, False, True),
    ):
        hashes[name] = _write_tables(folder, name, batches, schema, parquet=parquet, csv=csv)
    channels = 1 if parts.crop.color == "grey" else 3
    shape = (parts.count, parts.crop.size, parts.crop.size, channels)
    with PixelWriter(folder, shape, shard_bytes=shard_bytes, where=where) as writer:
        for rows in parts.pixels:
            writer.append(rows)
        pixels = writer.close()
        content = {"rows": hashes["index"], "pixels": writer.digest}
        pixel_hashes = {f"{PIXELS}/{file['name']}": file["sha256"] for file in pixels["files"]}
    base.write_json(folder / _AUDIT.file, parts.audit)
    PROVENANCE.write(folder, parts.provenance)
    files = [
        "index.parquet",
        "occurrences.parquet",
        "index.csv",
        "rejected.csv",
        "duplicates.csv",
        "moved.csv",
        _AUDIT.file,
        PROVENANCE.file,
    ]
    base.write_manifest(
        folder,
        kind=KIND,
        version=VERSION,
        fingerprint=fingerprint,
        files=[*files, *local_files(pixels)],
        known_hashes=pixel_hashes,
        meta={"crop": parts.crop.document(), "rows": parts.count, "content": content, "pixels": pixels, **meta},
    )
