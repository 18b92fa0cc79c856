"""Frame tables: a row per face and frame; and the times of the stages, a row a frame, in a file of their own.

`mien live --log`, `mien video` and the live page write one schema.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from mien.core.artifacts import base
from mien.core.errors import ArtifactError
from mien.core.labels import LABELS

OK, ABSTAINED, NO_FACE, DECODE_ERROR = "ok", "abstained", "no_face", "decode_error"
STAGES = ("decode", "detect", "crop", "recognize", "smooth", "draw", "total")
ROW_GROUP = 4096  # rows that are kept in memory: 2.5 minutes of one face at 25 frames a second
MARGIN = 32 << 20  # bytes of the disk that are left free, with which open files can be closed
META = b"mien"
MISSING = "NA"  # of CSV: what R and pandas read as a missing value, in columns of text too


class FrameLogMeta(TypedDict, total=False):
    """The metadata of a frame table: all that `mien replay` needs.

    It is empty for a CSV; a table of many videos has no source.
    """

    source: str
    model: str
    weights_hash: str
    rules: dict[str, object]
    thresholds: list[float]


Row = Mapping[str, object]
"""Values by column; columns that it lacks are missing values."""


def _columns(pattern: str, unit: str, meaning: str) -> list[tuple[str, pa.DataType, str, str]]:
    return [(pattern.format(name), pa.float32(), unit, meaning.format(name)) for name in LABELS]


# (name, type, unit, meaning), as in the data dictionary.
COLUMNS: list[tuple[str, pa.DataType, str, str]] = [
    ("frame", pa.int32(), "", "number of the frame in its source, from 0"),
    ("time_s", pa.float64(), "s", "when the frame is shown: its own timestamp, seconds after the first frame"),
    (
        "status",
        pa.string(),
        "",
        f"{OK}: a face with a label; {ABSTAINED}: a face, no label is sure enough; {NO_FACE}: no face in this frame; "
        f"{DECODE_ERROR}: this frame cannot be read",
    ),
    (
        "face_id",
        pa.int32(),
        "",
        "number of the face in its source; by position and motion alone; missing without a face",
    ),
    ("x", pa.float32(), "pixels", "left edge of the face's box"),
    ("y", pa.float32(), "pixels", "upper edge of the face's box"),
    ("w", pa.float32(), "pixels", "width of the face's box"),
    ("h", pa.float32(), "pixels", "height of the face's box"),
    *_columns("raw_{}", "probability", "calibrated probability of {} in this frame alone"),
    *_columns("smooth_{}", "probability", "probability of {} after smoothing over time"),
    ("raw_label", pa.string(), "", "the likeliest class in this frame alone"),
    ("label", pa.string(), "", "apparent expression that is shown; missing while unsure"),
]
TIME_COLUMNS: list[tuple[str, pa.DataType, str, str]] = [
    ("frame", pa.int32(), "", "number of the frame in its source, from 0"),
    ("time_s", pa.float64(), "s", "when the frame is shown, seconds after the first frame"),
    ("faces", pa.int32(), "", "faces in this frame"),
    *[
        (f"{name}_ms", pa.float32(), "ms", f"time that was spent: {name}; missing where it was not done")
        for name in STAGES
    ],
]
SCHEMA = pa.schema([(name, kind) for name, kind, _, _ in COLUMNS])
TIMES_SCHEMA = pa.schema([(name, kind) for name, kind, _, _ in TIME_COLUMNS])


class RowWriter:
    """Writes rows to a Parquet file; at most `ROW_GROUP` of them are in memory."""

    def __init__(self, file: pq.ParquetWriter, path: Path, schema: pa.Schema) -> None:
        self._file, self._path, self._schema = file, path, schema
        self.buffer: list[Row] = []

    def add(self, row: Row) -> None:
        """Add a row. Raises `OSError` while the disk is nearly full."""
        self.buffer.append(row)
        if len(self.buffer) >= ROW_GROUP:
            base.check_space(self._path.parent, MARGIN)
            self.flush()

    def flush(self) -> None:
        """Write what is in memory as a row group."""
        if self.buffer:
            self._file.write_table(pa.Table.from_pylist(self.buffer, schema=self._schema))
            self.buffer.clear()


class FrameTables:
    """The two tables of one source that are being written: rows of faces, and times."""

    def __init__(self, rows: RowWriter, times: RowWriter) -> None:
        self.rows, self.times = rows, times


def times_path(path: Path) -> Path:
    """Where the times of the stages lie, beside a frame table."""
    return path.with_name(f"{path.stem}_times{path.suffix}")


@contextmanager
def frame_log(path: Path, meta: FrameLogMeta) -> Iterator[FrameTables]:
    """Tables that are written row group by row group, and appear under their names when the block ends.

    `meta` (JSON) is stored in the frame table; `mien replay` reads its rules and thresholds. Leaving the block by an
    exception leaves no file.
    """
    with ExitStack() as stack:
        writers = []
        for place, schema in ((path, SCHEMA), (times_path(path), TIMES_SCHEMA)):
            temporary = stack.enter_context(base.atomic(place))
            described = schema.with_metadata({META: json.dumps(meta).encode()})
            file = stack.enter_context(pq.ParquetWriter(temporary, described, compression="zstd"))
            writers.append(RowWriter(file, place, described))
        yield FrameTables(*writers)
        for writer in writers:
            writer.flush()


def read_frame_log(path: Path) -> pa.Table:
    """Read and check a frame table, Parquet or CSV. A column `video` may stand before the others.

    Raises
    ------
    ArtifactError
        for a missing file, one that cannot be read, or one with other columns
    """
    fix = "Make one: `mien live --input FILE --log FRAMES.parquet`, or `mien video DIR --out DIR`."
    if not path.is_file():
        raise ArtifactError(f"No frame table at {path}.", fix=fix)
    try:
        table = _read_csv(path) if path.suffix.lower() == ".csv" else pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}", fix=fix) from None
    names = [name for name in table.column_names if name != "video"]
    if names != SCHEMA.names or table.select(names).schema.remove_metadata() != SCHEMA:
        lacking = sorted(set(SCHEMA.names) - set(names))
        raise ArtifactError(
            f"{path} has other columns than a frame table{f': {lacking} are missing' if lacking else ''}.", fix=fix
        )
    return table


def _read_csv(path: Path) -> pa.Table:
    kinds = dict(zip(SCHEMA.names, SCHEMA.types, strict=True)) | {"video": pa.string()}
    options = pa.csv.ConvertOptions(column_types=kinds, null_values=[MISSING, ""], strings_can_be_null=True)
    return pa.csv.read_csv(path, convert_options=options)


def meta_of(table: pa.Table) -> FrameLogMeta:
    """The metadata of a frame table; empty for a CSV."""
    meta: FrameLogMeta = json.loads((table.schema.metadata or {}).get(META, b"{}"))
    return meta


def write_frame_log(path: Path, table: pa.Table) -> None:
    """Write a whole frame table crash-safely, as its suffix says: .parquet or .csv."""
    if path.suffix.lower() == ".csv":
        write_csv(path, table.column_names, table.to_batches())
    else:
        with base.atomic(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")


def write_csv(path: Path, names: list[str], batches: Iterable[pa.RecordBatch]) -> None:
    """Write batches as one CSV with a header; missing values are `NA`, numbers have the digits of float32."""
    with base.atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for batch in batches:
            columns = [_texts(batch.column(name)) for name in names]
            writer.writerows(zip(*columns, strict=True))


def _texts(column: pa.Array) -> list[str]:
    """A column's values as text."""
    if pa.types.is_float32(column.type):
        return [MISSING if v is None else f"{v:.9g}" for v in column.to_pylist()]
    return [MISSING if v is None else str(v) for v in column.to_pylist()]


def dictionary_rows(columns: list[tuple[str, pa.DataType, str, str]]) -> list[dict[str, str]]:
    """The data dictionary of a table: a row a column."""
    return [{"column": name, "type": str(kind), "unit": unit, "meaning": text} for name, kind, unit, text in columns]


def write_dictionary(path: Path, columns: list[tuple[str, pa.DataType, str, str]]) -> None:
    """Write a table's data dictionary as CSV: column, type, unit, meaning."""
    table = pa.Table.from_pylist(dictionary_rows(columns))
    write_csv(path, table.column_names, table.to_batches())
