"""The tables of an index as streams of batches, one a piece of the sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mien.core.artifacts.index import DUPLICATES, MOVED, OCCURRENCES, REJECTED, SCHEMA
from mien.core.labels import LABELS
from mien.data.label_votes import label_name
from mien.data.loading.collect import Collection
from mien.data.plan import Plan
from mien.data.splits import SPLITS

_LABELS, _SPLITS = np.array(LABELS, dtype=object), np.array(SPLITS, dtype=object)
GROUP_LETTERS = 16
_LISTED = 4096


def write_hashes(found: Collection, rows: NDArray[np.int64], path: Path) -> None:
    """The hashes of some rows, ascending, as a `.npy` (views, rows) for the search."""
    views = found.pieces[0]["hashes"].type.byte_width // 8
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint64, shape=(views, len(rows)))
    for number, piece in enumerate(found.pieces):
        low, high = np.searchsorted(rows, found.starts[number : number + 2])
        if low < high:
            column = piece["hashes"].chunk(0)
            every = np.frombuffer(column.buffers()[1], "<u8").reshape(-1, views)
            out[:, low:high] = every[rows[low:high] - found.starts[number]].T
    out.flush()


def _hex(plan: Plan, images: list[int], letters: int = 64) -> list[str]:
    return [plan.ids[i].hex()[:letters] for i in images]


def _texts(piece: pa.Table, name: str, at: NDArray[np.int64]) -> pa.Array:
    return piece[name].chunk(0).take(pa.array(at))


def rows(plan: Plan, keep: NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
    """`index.parquet`: the deciding row of every kept image, in the sources' order."""
    found = plan.found
    for number, piece in enumerate(found.pieces):
        at = np.flatnonzero(keep[found.starts[number] : found.starts[number + 1]])
        if not len(at):
            continue
        image = found.image[at + found.starts[number]]
        source = found.sources[int(found.source[found.starts[number]])]
        numbers = image.tolist()
        own = _texts(piece, "votes", at)
        votes = [plan.decisions.votes.get(i, v) for i, v in zip(numbers, own.to_pylist(), strict=True)]
        hashes = np.frombuffer(piece["hashes"].chunk(0).buffers()[1], "<u8").reshape(len(piece), -1)[at, 0]
        columns = {
            "image_id": _hex(plan, numbers),
            "path": _texts(piece, "path", at),
            "source": [source.alias] * len(at),
            "license": [source.license] * len(at),
            "split": _SPLITS[plan.sides[image]],
            "label": _LABELS[plan.decisions.label[image]],
            "votes": pa.array(votes, SCHEMA.field("votes").type),
            "group_id": _hex(plan, plan.group[image].tolist(), GROUP_LETTERS),
            "subject_id": _texts(piece, "subject", at),
            "phash": hashes.astype(np.uint64),
            "width": _texts(piece, "width", at),
            "height": _texts(piece, "height", at),
            "attributes": _texts(piece, "attributes", at),
        }
        yield _batch(columns, SCHEMA)


def _batch(columns: Mapping[str, object], schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for field in schema:
        value = columns[field.name]
        arrays.append(value if isinstance(value, pa.Array) else pa.array(value, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _official(piece: pa.Table, at: NDArray[np.int64]) -> list[str | None]:
    return [None if code < 0 else SPLITS[code] for code in piece["official"].to_numpy()[at].tolist()]


def occurrences(plan: Plan) -> Iterator[pa.RecordBatch]:
    """`occurrences.parquet`: every source row that shows an image, and what became of it."""
    found = plan.found
    for number, piece in enumerate(found.pieces):
        start = int(found.starts[number])
        at = np.flatnonzero(found.image[start : found.starts[number + 1]] >= 0)
        if not len(at):
            continue
        image = found.image[at + start]
        columns = {
            "image_id": _hex(plan, image.tolist()),
            "path": _texts(piece, "path", at),
            "source": [found.sources[int(found.source[start])].alias] * len(at),
            "official_split": _official(piece, at),
            "source_label": _texts(piece, "source_label", at),
            "label": [label_name(code) for code in found.label[at + start].tolist()],
            "kept": plan.kept[image],
            "why": [plan.why.get(i, "") for i in image.tolist()],
        }
        yield _batch(columns, OCCURRENCES)


def rejected(found: Collection) -> Iterator[pa.RecordBatch]:
    """`rejected.csv`: every row that could not be read, with the reason."""
    for number, piece in enumerate(found.pieces):
        start = int(found.starts[number])
        at = np.flatnonzero(found.rejected[start : found.starts[number + 1]])
        if len(at):
            name = found.sources[int(found.source[start])].alias
            columns = {
                "path": _texts(piece, "path", at),
                "source": [name] * len(at),
                "reason": _texts(piece, "reason", at),
                "detail": _texts(piece, "detail", at),
            }
            yield _batch(columns, REJECTED)


def duplicates(plan: Plan) -> Iterator[pa.RecordBatch]:
    """`duplicates.csv`: group by group every source row whose image has a duplicate, identical or near."""
    found = plan.found
    members = np.bincount(plan.group, minlength=len(plan.group))[plan.group]
    shown = np.bincount(found.image[found.image >= 0], minlength=len(plan.ids))
    best = np.full(len(plan.ids), np.nan, dtype=np.float32)
    for side in (plan.pairs.a, plan.pairs.b):
        np.fmax.at(best, side, plan.pairs.score)
    chosen = np.flatnonzero(found.image >= 0)
    image = found.image[chosen]
    chosen = chosen[(members[image] > 1) | (shown[image] > 1)]
    image = found.image[chosen]
    # Groups in the order of their first rows, images of a group together.
    first = np.full(len(plan.ids), len(found), dtype=np.int64)
    np.minimum.at(first, plan.group[image], chosen)
    order = np.lexsort((chosen, image, first[plan.group[image]]))
    chosen, image = chosen[order], image[order]
    for start in range(0, len(chosen), _LISTED):
        row, who = chosen[start : start + _LISTED], image[start : start + _LISTED]
        label = [label_name(code) for code in plan.decisions.label[who].tolist()]
        score = [None if np.isnan(x) else float(x) for x in best[who]]
        columns = {
            "group_id": _hex(plan, plan.group[who].tolist(), GROUP_LETTERS),
            "image_id": _hex(plan, who.tolist()),
            "path": found.texts("path", row),
            "kind": ["near" if members[i] > 1 else "identical" for i in who.tolist()],
            "score": score,
            "source": [found.sources[i].alias for i in found.source[row].tolist()],
            "official_split": [None if code < 0 else SPLITS[code] for code in found.official[row].tolist()],
            "split": [SPLITS[plan.sides[i]] if plan.kept[i] else None for i in who.tolist()],
            "source_label": found.texts("source_label", row),
            "label": label,
            "kept": plan.kept[who],
            "why": [plan.why.get(i, "") for i in who.tolist()],
        }
        yield _batch(columns, DUPLICATES)


def moved(plan: Plan) -> Iterator[pa.RecordBatch]:
    """`moved.csv`: rows whose image went to a stricter split than their source gives it, and because of which row."""
    found = plan.found
    for start in range(0, len(plan.moved), _LISTED):
        part = plan.moved[start : start + _LISTED]
        row = np.array([m.row for m in part])
        who = found.image[row].tolist()
        columns = {
            "image_id": _hex(plan, who),
            "path": found.texts("path", row),
            "from_split": [SPLITS[m.side] for m in part],
            "to_split": [SPLITS[plan.sides[i]] if plan.kept[i] else plan.why.get(i, "") for i in who],
            "group_id": _hex(plan, plan.group[who].tolist(), GROUP_LETTERS),
            "because": found.texts("path", np.array([m.because for m in part])),
        }
        yield _batch(columns, MOVED)
