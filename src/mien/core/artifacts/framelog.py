"""The frame log of `mien live`: a row per face and frame, none where no face was seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mien.core.artifacts import base
from mien.core.errors import ArtifactError
from mien.core.labels import LABELS

STAGES = ("detect", "recognize", "smooth", "draw", "total")
SCHEMA = pa.schema(
    [("frame", pa.int32()), ("time_s", pa.float64()), ("face_id", pa.int32())]
    + [(name, pa.float32()) for name in ("x", "y", "w", "h")]
    + [(f"raw_{name}", pa.float32()) for name in LABELS]
    + [(f"smooth_{name}", pa.float32()) for name in LABELS]
    + [("raw_label", pa.string()), ("label", pa.string())]
    + [(f"{name}_ms", pa.float32()) for name in STAGES]
)
ROW_GROUP = 4096  # rows that are kept in memory: 2.5 minutes of one face at 25 frames a second


class FrameLogWriter:
    """Rows on their way to a Parquet file; no more than `ROW_GROUP` of them are in memory."""

    def __init__(self, file: pq.ParquetWriter) -> None:
        self._file = file
        self.held: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Add a row; its keys are the names of `SCHEMA`."""
        self.held.append(row)
        if len(self.held) >= ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write what is in memory as a row group."""
        if self.held:
            self._file.write_table(pa.Table.from_pylist(self.held, schema=SCHEMA))
            self.held.clear()


@contextmanager
def frame_log(path: Path) -> Iterator[FrameLogWriter]:
    """A frame log that is written row group by row group, and appears under its name when the block ends.

    Leaving the block by an exception leaves no file.
    """
    with base.atomic(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as file:
        writer = FrameLogWriter(file)
        yield writer
        writer.flush()


def read_frame_log(path: Path) -> pa.Table:
    """Read and check a frame log."""
    if not path.is_file():
        raise ArtifactError(f"No frame log at {path}.", fix="Make one: `mien live --input FILE --log FRAMES.parquet`.")
    table = pq.read_table(path)
    if table.schema.remove_metadata() != SCHEMA:
        raise ArtifactError(f"{path} has other columns than a frame log.")
    return table
