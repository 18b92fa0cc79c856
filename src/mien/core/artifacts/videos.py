"""The folder that `mien video` fills: a finished folder a video, and tables over all of them.

`OUT/videos/NAME/` holds `frames.parquet`, `frames.csv`, `times.parquet`, `timeline.png`, `summary.json` and, last,
`manifest.json`; `OUT/` the joined `frames.parquet` and `frames.csv` (a column `video` first), `summary.csv`, and a
data dictionary beside each table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from mien.core.artifacts import base, framelog
from mien.core.errors import UsageError
from mien.core.labels import LABELS

KIND, VERSION = "table of a video", 1
MadeWith = dict[str, object]
"""Settings, detector, and the model with its thresholds, by name."""


class Percentiles(TypedDict):
    """Of a stage's milliseconds."""

    p50: float
    p95: float
    p99: float


class Flips(TypedDict):
    """Changes of a label per minute that a face was seen, before and after smoothing."""

    raw: float
    smoothed: float


class SessionSummary(TypedDict):
    """Figures of one source; `labels` counts rows, `latency_ms` is by stage."""

    frames: int
    seconds: float
    frames_with_face: int
    identities: int
    fps: float
    latency_ms: dict[str, Percentiles]
    flips_per_minute: Flips
    labels: dict[str, int]
    skipped_detections: int
    unreadable_frames: int
    dropped: int


class VideoSummary(SessionSummary):
    """`summary.json` of a video; `error` says why it could not be read (null: it could)."""

    video: str
    error: str | None
    made_with: MadeWith


_END = 1 << 20
FRAMES, TIMES, CSV, TIMELINE, SUMMARY = (
    "frames.parquet",
    "frames_times.parquet",
    "frames.csv",
    "timeline.png",
    "summary.json",
)
_SUMMARY = base.JsonArtifact[VideoSummary](SUMMARY, "summary of a video")
read_summary = _SUMMARY.read
VIDEO_COLUMN = ("video", pa.string(), "", "path of the video below the folder that was named")
SUMMARY_COLUMNS: list[tuple[str, pa.DataType, str, str]] = [
    VIDEO_COLUMN,
    ("frames", pa.int64(), "", "frames of the video"),
    ("seconds", pa.float64(), "s", "time of the last frame"),
    ("frames_with_face", pa.int64(), "", "frames with a face or more"),
    ("unreadable_frames", pa.int64(), "", "rows with status decode_error"),
    ("identities", pa.int64(), "", "faces that were told apart by position and motion"),
    (
        "flips_raw",
        pa.float64(),
        "per minute",
        "changes of raw_label, per minute that a face was seen; missing where none was",
    ),
    ("flips_smoothed", pa.float64(), "per minute", "changes of label, per minute that a face was seen"),
    *[(f"share_{name}", pa.float64(), "", f"share of face rows with label {name}") for name in LABELS],
    (
        "share_abstained",
        pa.float64(),
        "",
        "share of face rows without a label; this and the other shares are missing where no face was seen",
    ),
    ("analysed_per_second", pa.float64(), "frames/s", "speed of this video's analysis"),
    ("error", pa.string(), "", "why the video could not be read; missing where it could"),
]


def folder_of(out: Path, name: str) -> Path:
    """Where the tables of one video lie."""
    return out / "videos" / name


def fingerprint_of(video: Path, made_with: MadeWith) -> str:
    """What decides a video's tables: settings and model, and the video's size with its first and last MiB.

    Hashing whole videos would take minutes at each start over a large folder.
    """
    size = video.stat().st_size
    with video.open("rb") as file:
        ends = hashlib.sha256(file.read(_END))
        file.seek(max(0, size - _END))
        ends.update(file.read(_END))
    return base.fingerprint(KIND, VERSION, made_with, {"video": f"{size} {ends.hexdigest()}"})


def claim(folder: Path, fingerprint: str, *, check_only: bool = False) -> None:
    """Take a folder for a video that is not finished, and remove what a killed analysis left in it.

    Raises
    ------
    UsageError
        for a folder that holds something else, a video analysed with other settings too
    """
    (base.claimable if check_only else base.claim)(folder, kind=KIND, fingerprint=fingerprint)


def make_way(folder: Path, video: Path, made_with: MadeWith) -> None:
    """Remove the table of a video of which no frame could be read; tables with frames are never removed.

    Raises
    ------
    UsageError
        where the folder's tables were made with other settings, or of another file; both are named
    """
    if not (folder / base.MANIFEST).is_file() or not (folder / SUMMARY).is_file():
        return
    summary = read_summary(folder)
    if summary["frames"] == 0:
        base.remove_folder(folder)
        return
    before = summary.get("made_with", {})
    changed = [
        f"{key} {before[key]}, now {value}"
        for key, value in made_with.items()
        if key in before and before[key] != value
    ]
    if changed:
        raise UsageError(
            f"{folder} was made with {'; '.join(changed)}.",
            rule="A folder of tables belongs to one set of settings.",
            fix=(
                "Other rules need no new analysis: `mien replay OUT/frames.parquet` with them. Otherwise name another "
                "--out."
            ),
        )
    raise UsageError(
        f"{video} is another file than the one that {folder} was made of.",
        fix="Remove that one folder and start again: this video alone is then analysed anew.",
    )


@contextmanager
def video_tables(folder: Path, meta: framelog.FrameLogMeta) -> Iterator[framelog.FrameTables]:
    """The tables of one video while they are written; CSV and dictionaries follow when the block ends."""
    with framelog.frame_log(folder / FRAMES, meta) as tables:
        yield tables
    with pq.ParquetFile(folder / FRAMES) as file:
        framelog.write_csv(folder / CSV, framelog.SCHEMA.names, file.iter_batches())
    framelog.write_dictionary(folder / "frames_dictionary.csv", framelog.COLUMNS)
    framelog.write_dictionary(folder / "frames_times_dictionary.csv", framelog.TIME_COLUMNS)


def complete(folder: Path, fingerprint: str, summary: VideoSummary, timeline: bytes) -> None:
    """Write the image and the summary of one video, and the manifest that completes it."""
    base.write_bytes(folder / TIMELINE, timeline)
    _SUMMARY.write(folder, summary)
    names = [FRAMES, TIMES, CSV, TIMELINE, SUMMARY, "frames_dictionary.csv", "frames_times_dictionary.csv"]
    base.write_manifest(folder, kind=KIND, version=VERSION, fingerprint=fingerprint, files=names)


def is_complete(folder: Path, fingerprint: str) -> bool:
    """Whether this video was finished with these settings."""
    return base.is_complete(folder, fingerprint)


def _batches(out: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of all videos, the video's name first."""
    for name in names:
        with pq.ParquetFile(folder_of(out, name) / FRAMES) as file:
            for batch in file.iter_batches():
                yield batch.add_column(0, "video", pa.array([name] * len(batch), pa.string()))


def _meta(out: Path, names: list[str]) -> framelog.FrameLogMeta:
    """The metadata of the joined table: that of the videos, which differ in the source alone."""
    metas = [pq.read_schema(folder_of(out, name) / FRAMES).metadata or {} for name in names]
    first: framelog.FrameLogMeta = json.loads(metas[0].get(framelog.META, b"{}")) if metas else {}
    first.pop("source", None)
    return first


def join(out: Path, names: list[str]) -> None:
    """Write the tables over all videos, each with its data dictionary."""
    schema = pa.schema([pa.field("video", pa.string()), *framelog.SCHEMA])
    described = schema.with_metadata({framelog.META: json.dumps(_meta(out, names)).encode()})
    with base.atomic(out / FRAMES) as temporary, pq.ParquetWriter(temporary, described, compression="zstd") as file:
        for batch in _batches(out, names):
            file.write_batch(batch.replace_schema_metadata(described.metadata))
    framelog.write_csv(out / CSV, described.names, _batches(out, names))
    framelog.write_dictionary(out / "frames_dictionary.csv", [VIDEO_COLUMN, *framelog.COLUMNS])
    rows = [_summary_row(name, read_summary(folder_of(out, name))) for name in names]
    table = pa.Table.from_pylist(rows, schema=pa.schema([(name, kind) for name, kind, _, _ in SUMMARY_COLUMNS]))
    framelog.write_csv(out / "summary.csv", table.column_names, table.to_batches())
    framelog.write_dictionary(out / "summary_dictionary.csv", SUMMARY_COLUMNS)


def _summary_row(name: str, summary: VideoSummary) -> dict[str, object]:
    counts = summary["labels"]
    rows = sum(counts.values())
    has_face = summary["frames_with_face"] > 0
    return {
        "video": name,
        "frames": summary["frames"],
        "frames_with_face": summary["frames_with_face"],
        "unreadable_frames": summary["unreadable_frames"],
        "identities": summary["identities"],
        "error": summary["error"],
        "seconds": summary["seconds"] if summary["frames"] else None,
        "flips_raw": summary["flips_per_minute"]["raw"] if has_face else None,
        "flips_smoothed": summary["flips_per_minute"]["smoothed"] if has_face else None,
        **{
            f"share_{label}": counts.get(label, 0) / rows if has_face else None
            for label in (*LABELS, framelog.ABSTAINED)
        },
        "analysed_per_second": summary["fps"],
    }
