"""The frame log of `mien live`: a row per face and frame, none where no face was seen."""

from __future__ import annotations

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


def write_frame_log(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write crash-safely."""
    with base.atomic(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary, compression="zstd")


def read_frame_log(path: Path) -> pa.Table:
    """Read and check a frame log."""
    if not path.is_file():
        raise ArtifactError(f"No frame log at {path}.", fix="Make one: `mien live --input FILE --log FRAMES.parquet`.")
    table = pq.read_table(path)
    if table.schema.remove_metadata() != SCHEMA:
        raise ArtifactError(f"{path} has other columns than a frame log.")
    return table
