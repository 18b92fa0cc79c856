"""A frame table once more with other rules, and its score against marked intervals; no video and no model is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from mien.core.artifacts.framelog import ABSTAINED, META, OK, FrameLogMeta, meta_of, read_frame_log, write_frame_log
from mien.core.config.live import LiveRules
from mien.core.errors import InputError, UsageError
from mien.core.labels import LABELS
from mien.core.progress import warn
from mien.evaluate.intervals import Interval, IntervalScores, changes, score, switch_seconds, truth
from mien.runtime.policy import LabelPolicy, thresholds_of

LEAST = 1e-30  # probabilities below count as this: their logarithm is needed
NUMBERS = {name: k for k, name in enumerate(LABELS)}


class MarkedInterval(TypedDict):
    """A row of the CSV: what a face shows from `start_s` to before `end_s`."""

    start_s: float
    end_s: float
    label: str
    face_id: NotRequired[int | None]
    video: NotRequired[str | None]


class LabelScores(IntervalScores):
    """Labels against marked intervals, and how soon an interval's label is said."""

    median_seconds_to_switch: float | None
    never_said: int


class ReplayedFlips(TypedDict):
    """Changes of the label a minute: in each frame alone, as the table had it, and with the new rules."""

    raw: float
    before: float
    smoothed: float


class Replay(TypedDict):
    """A frame table under other rules; `unsure` is the share of rows without a label, `scores` are `raw` and `smoothed`."""

    rules: dict[str, object]
    faces: int
    rows: int
    flips_per_minute: ReplayedFlips
    unsure: float | None
    scores: dict[str, LabelScores] | None


@dataclass
class Face:
    """The rows of one face, in order of time: places in the table, times, class numbers (-1: none)."""

    video: str
    face_id: int
    rows: NDArray[np.int64]
    times: NDArray[np.float64]
    raw: NDArray[np.int64]
    shown: NDArray[np.int64]


def run(table: Path, given: Mapping[str, object], *, out: Path | None = None, intervals: Path | None = None) -> Replay:
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
    needed = thresholds_of(rules, np.array(meta.get("thresholds", [0.0] * len(LABELS))))
    faces = _faces(read)
    before = [_flips(face) for face in faces]
    smooth = _replay(read, faces, rules, needed)
    if out is not None:
        write_frame_log(out, _changed(read, faces, smooth, {**meta, "rules": rules.model_dump()}))
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
        "unsure": float(np.mean(np.concatenate([f.shown for f in faces]) < 0)) if faces else None,
        "scores": _scores(faces, marked) if intervals is not None else None,
    }


def _flips(face: Face) -> int:
    return changes(face.shown)


def _per_minute(count: int, minutes: float) -> float:
    return round(count / minutes, 2) if minutes > 0 else 0.0


def _faces(table: pa.Table) -> list[Face]:
    """The faces of a table, of each video apart."""
    ids = np.array([-1 if v is None else v for v in table["face_id"].to_pylist()])
    videos = np.array(table["video"].to_pylist() if "video" in table.column_names else [""] * len(table))
    times = table["time_s"].to_numpy()
    raw, shown = (
        np.array([NUMBERS.get(v, -1) for v in table[k].to_pylist()], np.int64) for k in ("raw_label", "label")
    )
    found = []
    for video, face_id in sorted(set(zip(videos[ids >= 0].tolist(), ids[ids >= 0].tolist(), strict=True))):
        rows = np.flatnonzero((ids == face_id) & (videos == video))
        rows = rows[np.argsort(times[rows], kind="stable")]
        found.append(Face(video, face_id, rows, times[rows], raw[rows], shown[rows]))
    return found


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
            face.shown[k] = NUMBERS.get(label or "", -1)
    return smooth


def _changed(table: pa.Table, faces: list[Face], smooth: NDArray[np.float64], meta: FrameLogMeta) -> pa.Table:
    """The table with new smoothed probabilities, labels and status."""
    labels: list[str | None] = [None] * len(table)
    status = table["status"].to_pylist()
    for face in faces:
        for row, number in zip(face.rows, face.shown, strict=True):
            labels[row] = None if number < 0 else LABELS[number]
            status[row] = ABSTAINED if number < 0 else OK
    columns = {f"smooth_{n}": pa.array(smooth[:, k], pa.float32(), from_pandas=True) for k, n in enumerate(LABELS)}
    columns |= {"label": pa.array(labels, pa.string()), "status": pa.array(status, pa.string())}
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return table.replace_schema_metadata({META: json.dumps(meta).encode()})


def _intervals(path: Path) -> list[MarkedInterval]:
    """Rows of a CSV of marked intervals."""
    if not path.is_file():
        raise InputError(f"No file {path}.", rule="--intervals is a CSV: start_s, end_s, label[, face_id][, video].")
    try:
        # Spreadsheets of countries with decimal commas write semicolons.
        separator = ";" if ";" in path.read_text(encoding="utf-8-sig", errors="replace").partition("\n")[0] else ","
        parsing, converting = pa.csv.ParseOptions(delimiter=separator), pa.csv.ConvertOptions(decimal_point=",")
        rows: list[MarkedInterval] = pa.csv.read_csv(
            path, parse_options=parsing, convert_options=converting if separator == ";" else None
        ).to_pylist()
    except pa.ArrowException as error:
        raise InputError(f"{path} is no CSV: {str(error).splitlines()[0]}") from None
    for number, row in enumerate(rows, 2):
        if not {"start_s", "end_s", "label"} <= row.keys():
            raise InputError(f"{path} has the columns {', '.join(row)}.", rule="It needs start_s, end_s and label.")
        if row["label"] not in NUMBERS:
            raise InputError(f"{path}, line {number}: label {row['label']!r}.", rule=f"One of {', '.join(LABELS)}.")
        if not (
            isinstance(row["start_s"], int | float)
            and isinstance(row["end_s"], int | float)
            and row["start_s"] < row["end_s"]
        ):
            raise InputError(
                f"{path}, line {number}: from {row['start_s']} to {row['end_s']}.", rule="start_s < end_s."
            )
    return rows


def _of(face: Face, rows: list[MarkedInterval]) -> list[Interval]:
    """The intervals that were marked for a face."""
    mine = (
        r
        for r in rows
        if r.get("video") in (None, face.video) and ((of := r.get("face_id")) is None or int(of) == face.face_id)
    )
    return [Interval(float(r["start_s"]), float(r["end_s"]), NUMBERS[r["label"]]) for r in mine]


def _scores(faces: list[Face], rows: list[MarkedInterval]) -> dict[str, LabelScores]:
    """Raw and smoothed labels against what was marked, and how soon an interval's label is said."""
    pairs = [(face, _of(face, rows)) for face in faces]
    marked = [truth(face.times, intervals) for face, intervals in pairs]
    if not any((m >= 0).any() for m in marked):
        raise InputError(
            "No row of a face lies in a marked interval.",
            rule="Times are in seconds; face_id and video, where given, are those of the table.",
        )
    true = np.concatenate(marked)
    waits = {
        kind: [switch_seconds(f.times, getattr(f, kind), i) for f, intervals in pairs for i in intervals]
        for kind in ("raw", "shown")
    }
    found: dict[str, LabelScores] = {}
    for kind, name in (("raw", "raw"), ("shown", "smoothed")):
        said = [w for w in waits[kind] if w is not None]
        found[name] = {
            **score(true, np.concatenate([getattr(f, kind) for f in faces])),
            "median_seconds_to_switch": float(np.median(said)) if said else None,
            "never_said": len(waits[kind]) - len(said),
        }
    return found
