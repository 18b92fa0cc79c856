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


def write_hashes(collection: Collection, rows: NDArray[np.int64], path: Path) -> None:
    """The hashes of some rows, ascending, as a `.npy` (views, rows) for the search."""
    views = collection.pieces[0]["hashes"].type.byte_width // 8
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint64, shape=(views, len(rows)))
    for number, piece in enumerate(collection.pieces):
        low, high = np.searchsorted(rows, collection.starts[number : number + 2])
        if low < high:
            column = piece["hashes"].chunk(0)
            every = np.frombuffer(column.buffers()[1], "<u8").reshape(-1, views)
            out[:, low:high] = every[rows[low:high] - collection.starts[number]].T
    out.flush()


def _hex(plan: Plan, images: list[int], letters: int = 64) -> list[str]:
    return [plan.ids[i].hex()[:letters] for i in images]


def _texts(piece: pa.Table, name: str, positions: NDArray[np.int64]) -> pa.Array:
    return piece[name].chunk(0).take(pa.array(positions))


def rows(plan: Plan, keep: NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
    """`index.parquet`: the deciding row of every kept image, in the sources' order."""
    collection = plan.collection
    for number, piece in enumerate(collection.pieces):
        positions = np.flatnonzero(keep[collection.starts[number] : collection.starts[number + 1]])
        if not len(positions):
            continue
        image = collection.image[positions + collection.starts[number]]
        source = collection.sources[int(collection.source[collection.starts[number]])]
        numbers = image.tolist()
        source_votes = _texts(piece, "votes", positions)
        votes = [plan.decisions.votes.get(i, v) for i, v in zip(numbers, source_votes.to_pylist(), strict=True)]
        hashes = np.frombuffer(piece["hashes"].chunk(0).buffers()[1], "<u8").reshape(len(piece), -1)[positions, 0]
        columns = {
            "image_id": _hex(plan, numbers),
            "path": _texts(piece, "path", positions),
            "source": [source.alias] * len(positions),
            "license": [source.license] * len(positions),
            "split": _SPLITS[plan.sides[image]],
            "label": _LABELS[plan.decisions.label[image]],
            "votes": pa.array(votes, SCHEMA.field("votes").type),
            "group_id": _hex(plan, plan.group[image].tolist(), GROUP_LETTERS),
            "subject_id": _texts(piece, "subject", positions),
            "phash": hashes.astype(np.uint64),
            "width": _texts(piece, "width", positions),
            "height": _texts(piece, "height", positions),
            "attributes": _texts(piece, "attributes", positions),
        }
        yield _batch(columns, SCHEMA)


def _batch(columns: Mapping[str, object], schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for field in schema:
        value = columns[field.name]
        arrays.append(value if isinstance(value, pa.Array) else pa.array(value, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _official(piece: pa.Table, positions: NDArray[np.int64]) -> list[str | None]:
    return [None if code < 0 else SPLITS[code] for code in piece["official"].to_numpy()[positions].tolist()]


def occurrences(plan: Plan) -> Iterator[pa.RecordBatch]:
    """`occurrences.parquet`: every source row that shows an image, and what became of it."""
    collection = plan.collection
    for number, piece in enumerate(collection.pieces):
        start = int(collection.starts[number])
        positions = np.flatnonzero(collection.image[start : collection.starts[number + 1]] >= 0)
        if not len(positions):
            continue
        image = collection.image[positions + start]
        columns = {
            "image_id": _hex(plan, image.tolist()),
            "path": _texts(piece, "path", positions),
            "source": [collection.sources[int(collection.source[start])].alias] * len(positions),
            "official_split": _official(piece, positions),
            "source_label": _texts(piece, "source_label", positions),
            "label": [label_name(code) for code in collection.label[positions + start].tolist()],
            "kept": plan.kept[image],
            "why": [plan.why.get(i, "") for i in image.tolist()],
        }
        yield _batch(columns, OCCURRENCES)


def rejected(collection: Collection) -> Iterator[pa.RecordBatch]:
    """`rejected.csv`: every row that could not be read, with the reason."""
    for number, piece in enumerate(collection.pieces):
        start = int(collection.starts[number])
        positions = np.flatnonzero(collection.rejected[start : collection.starts[number + 1]])
        if len(positions):
            name = collection.sources[int(collection.source[start])].alias
            columns = {
                "path": _texts(piece, "path", positions),
                "source": [name] * len(positions),
                "reason": _texts(piece, "reason", positions),
                "detail": _texts(piece, "detail", positions),
            }
            yield _batch(columns, REJECTED)


def duplicates(plan: Plan) -> Iterator[pa.RecordBatch]:
    """`duplicates.csv`: group by group every source row whose image has a duplicate, identical or near."""
    collection = plan.collection
    members = np.bincount(plan.group, minlength=len(plan.group))[plan.group]
    counts = np.bincount(collection.image[collection.image >= 0], minlength=len(plan.ids))
    best = np.full(len(plan.ids), np.nan, dtype=np.float32)
    for side in (plan.pairs.a, plan.pairs.b):
        np.fmax.at(best, side, plan.pairs.score)
    chosen = np.flatnonzero(collection.image >= 0)
    image = collection.image[chosen]
    chosen = chosen[(members[image] > 1) | (counts[image] > 1)]
    image = collection.image[chosen]
    # Groups in the order of their first rows, images of a group together.
    first = np.full(len(plan.ids), len(collection), dtype=np.int64)
    np.minimum.at(first, plan.group[image], chosen)
    order = np.lexsort((chosen, image, first[plan.group[image]]))
    chosen, image = chosen[order], image[order]
    for start in range(0, len(chosen), _LISTED):
        row, images = chosen[start : start + _LISTED], image[start : start + _LISTED]
        label = [label_name(code) for code in plan.decisions.label[images].tolist()]
        score = [None if np.isnan(x) else float(x) for x in best[images]]
        columns = {
            "group_id": _hex(plan, plan.group[images].tolist(), GROUP_LETTERS),
            "image_id": _hex(plan, images.tolist()),
            "path": collection.texts("path", row),
            "kind": ["near" if members[i] > 1 else "identical" for i in images.tolist()],
            "score": score,
            "source": [collection.sources[i].alias for i in collection.source[row].tolist()],
            "official_split": [None if code < 0 else SPLITS[code] for code in collection.official[row].tolist()],
            "split": [SPLITS[plan.sides[i]] if plan.kept[i] else None for i in images.tolist()],
            "source_label": collection.texts("source_label", row),
            "label": label,
            "kept": plan.kept[images],
            "why": [plan.why.get(i, "") for i in images.tolist()],
        }
        yield _batch(columns, DUPLICATES)


def moved(plan: Plan) -> Iterator[pa.RecordBatch]:
    """`moved.csv`: rows whose image went to a stricter split than their source gives it, and because of which row."""
    collection = plan.collection
    for start in range(0, len(plan.moved), _LISTED):
        part = plan.moved[start : start + _LISTED]
        row = np.array([m.row for m in part])
        images = collection.image[row].tolist()
        columns = {
            "image_id": _hex(plan, images),
            "path": collection.texts("path", row),
            "from_split": [SPLITS[m.side] for m in part],
            "to_split": [SPLITS[plan.sides[i]] if plan.kept[i] else plan.why.get(i, "") for i in images],
            "group_id": _hex(plan, plan.group[images].tolist(), GROUP_LETTERS),
            "because": collection.texts("path", np.array([m.because for m in part])),
        }
        yield _batch(columns, MOVED)
