"""A frame table decided anew with other rules, and its score against marked intervals; no video or model is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from mien.core.artifacts.framelog import ABSTAINED, META, OK, FrameLogMeta, meta_of, read_frame_log, write_frame_log
from mien.core.config.live import LiveRules
from mien.core.errors import InputError, UsageError
from mien.core.labels import LABELS
from mien.core.progress import warn
from mien.evaluate.intervals import Interval, LabelScores, changes, score, switch_seconds, truth
from mien.runtime.policy import LabelPolicy, thresholds_of

LEAST = 1e-30  # lower bound of probabilities, so that their logarithm is finite
NUMBERS = {name: k for k, name in enumerate(LABELS)}


@dataclass
class Face:
    """The rows of one face, in order of time: places in the table, times, class numbers (-1: none)."""

    video: str
    face_id: int
    rows: NDArray[np.int64]
    times: NDArray[np.float64]
    raw: NDArray[np.int64]
    smoothed: NDArray[np.int64]


class Marked(NamedTuple):
    """An interval that a person marked; without a face or a video it is all faces' or all videos'."""

    interval: Interval
    face_id: int | None
    video: str | float | None


class Flips(TypedDict):
    """Changes of labels a minute: in a frame alone, as the table has them, now."""

    raw: float
    before: float
    smoothed: float


class ReplayScores(LabelScores):
    """Labels against marked intervals, and how soon an interval's label is shown, where it ever is."""

    median_seconds_to_switch: float | None
    never_said: int


class Replayed(TypedDict):
    """A frame table that was decided anew; scores are those of raw and smoothed labels."""

    rules: dict[str, object]
    faces: int
    rows: int
    flips_per_minute: Flips
    unsure: float | None
    scores: dict[str, ReplayScores] | None


def run(
    table: Path, given: Mapping[str, object], *, out: Path | None = None, intervals: Path | None = None
) -> Replayed:
    """Smooth and decide a frame table anew.

    Parameters
    ----------
    table
        frames.parquet or frames.csv of `mien video`, the log of `mien live`, or the page's download
    given
        parameters of `live.json` that are changed; the others are those of the table, where it says them
    out
        write the table with its new columns here (.parquet or .csv)
    intervals
        CSV with the columns start_s, end_s, label, and face_id and video where there are several

    Raises
    ------
    UsageError, ArtifactError, InputError
        for files that are not what is needed
    """
    if out is not None and out.suffix.lower() not in {".parquet", ".csv"}:
        raise UsageError(f"--out {out}.", rule="It ends in .parquet or .csv.")
    if out is not None and out.resolve() == table.resolve():
        raise UsageError(f"The output is the input, {table}.", rule="A table is never written over itself.")
    read = read_frame_log(table)
    meta = meta_of(read)
    rules = LiveRules.parse({**meta.get("rules", {}), **given}, where=f"rules of {table}")
    if "thresholds" not in meta:
        warn(f"{table} does not say the model's thresholds (a Parquet file does): only those of the rules count.")
    thresholds = thresholds_of(rules, np.array(meta.get("thresholds", [0.0] * len(LABELS))))
    faces = _faces(read)
    before = [_flips(face) for face in faces]
    smooth = _replay(read, faces, rules, thresholds)
    if out is not None:
        write_frame_log(out, _changed(read, faces, smooth, meta | {"rules": rules.model_dump()}))
    marked = _intervals(intervals) if intervals is not None else []
    minutes = sum(float(face.times[-1] - face.times[0]) for face in faces) / 60
    return {
        "rules": rules.model_dump(),
        "faces": len(faces),
        "rows": int(sum(len(f.rows) for f in faces)),
        "flips_per_minute": {
            "raw": _per_minute(sum(changes(f.raw) for f in faces), minutes),
            "before": _per_minute(sum(before), minutes),
            "smoothed": _per_minute(sum(_flips(f) for f in faces), minutes),
        },
        "unsure": float(np.mean(np.concatenate([f.smoothed for f in faces]) < 0)) if faces else None,
        "scores": _scores(faces, marked) if intervals is not None else None,
    }


def _flips(face: Face) -> int:
    return changes(face.smoothed)


def _per_minute(count: int, minutes: float) -> float:
    return round(count / minutes, 2) if minutes > 0 else 0.0


def _faces(table: pa.Table) -> list[Face]:
    """The faces of a table, of each video apart."""
    ids = np.array([-1 if v is None else v for v in table["face_id"].to_pylist()])
    videos = np.array(table["video"].to_pylist() if "video" in table.column_names else [""] * len(table))
    times = table["time_s"].to_numpy()
    raw, labels = (
        np.array([NUMBERS.get(v, -1) for v in table[k].to_pylist()], np.int64) for k in ("raw_label", "label")
    )
    faces = []
    for video, face_id in sorted(set(zip(videos[ids >= 0].tolist(), ids[ids >= 0].tolist(), strict=True))):
        rows = np.flatnonzero((ids == face_id) & (videos == video))
        rows = rows[np.argsort(times[rows], kind="stable")]
        faces.append(Face(video, face_id, rows, times[rows], raw[rows], labels[rows]))
    return faces


def _replay(
    table: pa.Table, faces: list[Face], rules: LiveRules, thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Smoothed probabilities of all rows (NaN without a face); the faces get their new labels."""
    raw = np.stack([table[f"raw_{name}"].to_numpy() for name in LABELS], 1).astype(np.float64)
    smooth = np.full(raw.shape, np.nan)
    for face in faces:
        policy, values = LabelPolicy(rules, thresholds), raw[face.rows]
        if not np.isfinite(values).all():
            raise InputError(f"Face {face.face_id} has rows without probabilities.", rule="raw_<label> are numbers.")
        # The policy centres its input: logarithms of probabilities are as good as the logits.
        for k, z in enumerate(np.log(np.maximum(values, LEAST))):
            smooth[face.rows[k]], label = policy.update(z, float(face.times[k]))
            face.smoothed[k] = NUMBERS.get(label or "", -1)
    return smooth


def _changed(table: pa.Table, faces: list[Face], smooth: NDArray[np.float64], meta: FrameLogMeta) -> pa.Table:
    """The table with new smoothed probabilities, labels and status."""
    labels: list[str | None] = [None] * len(table)
    status = table["status"].to_pylist()
    for face in faces:
        for row, number in zip(face.rows, face.smoothed, strict=True):
            labels[row] = None if number < 0 else LABELS[number]
            status[row] = ABSTAINED if number < 0 else OK
    columns = {f"smooth_{n}": pa.array(smooth[:, k], pa.float32(), from_pandas=True) for k, n in enumerate(LABELS)}
    columns |= {"label": pa.array(labels, pa.string()), "status": pa.array(status, pa.string())}
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return table.replace_schema_metadata({META: json.dumps(meta).encode()})


def _intervals(path: Path) -> list[Marked]:
    """Rows of a CSV of marked intervals."""
    if not path.is_file():
        raise InputError(f"No file {path}.", rule="--intervals is a CSV: start_s, end_s, label[, face_id][, video].")
    try:
        # Spreadsheets of countries with decimal commas write semicolons.
        separator = ";" if ";" in path.read_text(encoding="utf-8-sig", errors="replace").partition("\n")[0] else ","
        parsing, converting = pa.csv.ParseOptions(delimiter=separator), pa.csv.ConvertOptions(decimal_point=",")
        rows: list[dict[str, str | float | None]] = pa.csv.read_csv(
            path, parse_options=parsing, convert_options=converting if separator == ";" else None
        ).to_pylist()
    except pa.ArrowException as error:
        raise InputError(f"{path} is no CSV: {str(error).splitlines()[0]}") from None
    intervals = []
    for number, row in enumerate(rows, 2):
        if not {"start_s", "end_s", "label"} <= row.keys():
            raise InputError(f"{path} has the columns {', '.join(row)}.", rule="It needs start_s, end_s and label.")
        start, end, label, face_id = (row.get(key) for key in ("start_s", "end_s", "label", "face_id"))
        if not isinstance(label, str) or label not in NUMBERS:
            raise InputError(f"{path}, line {number}: label {label!r}.", rule=f"One of {', '.join(LABELS)}.")
        if not (isinstance(start, int | float) and isinstance(end, int | float) and start < end):
            raise InputError(f"{path}, line {number}: from {start} to {end}.", rule="start_s < end_s.")
        interval = Interval(float(start), float(end), NUMBERS[label])
        intervals.append(Marked(interval, None if face_id is None else int(face_id), row.get("video")))
    return intervals


def _intervals_of(face: Face, rows: list[Marked]) -> list[Interval]:
    """The intervals that were marked for a face."""
    return [r.interval for r in rows if r.video in (None, face.video) and r.face_id in (None, face.face_id)]


def _scores(faces: list[Face], rows: list[Marked]) -> dict[str, ReplayScores]:
    """Raw and smoothed labels against marked intervals, and how soon an interval's label is shown."""
    pairs = [(face, _intervals_of(face, rows)) for face in faces]
    marked = [truth(face.times, intervals) for face, intervals in pairs]
    if not any((m >= 0).any() for m in marked):
        raise InputError(
            "No row of a face lies in a marked interval.",
            rule="Times are in seconds; face_id and video, where given, are those of the table.",
        )
    true = np.concatenate(marked)
    waits = {
        kind: [switch_seconds(f.times, getattr(f, kind), i) for f, intervals in pairs for i in intervals]
        for kind in ("raw", "smoothed")
    }
    scores: dict[str, ReplayScores] = {}
    for kind in ("raw", "smoothed"):
        seconds = [w for w in waits[kind] if w is not None]
        scores[kind] = {
            **score(true, np.concatenate([getattr(f, kind) for f in faces])),
            "median_seconds_to_switch": float(np.median(seconds)) if seconds else None,
            "never_said": len(waits[kind]) - len(seconds),
        }
    return scores
