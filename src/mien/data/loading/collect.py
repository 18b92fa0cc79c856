"""Loads every source row, in pieces that an interrupted build finds again, and opens them as columns.

Pixels and texts stay in memory-mapped pieces; what is held are numbers and ids.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mien.core.artifacts.scratch import Scratch
from mien.core.errors import InputError
from mien.core.geometry import to_grey
from mien.core.progress import meter
from mien.data.duplicates.phash import THUMB
from mien.data.loading.engines import Engine
from mien.data.loading.load import Recipe, Task, load
from mien.data.sources import Source
from mien.data.sources.base import Content, chunks, fingerprint

CHUNK = 1024

Rows = NDArray[np.int64]
S = TypeVar("S", bound=np.generic)


@dataclass
class Collection:
    """All source rows, in the order of the sources. Arrays have one entry a row."""

    sources: list[Source]
    pieces: list[pa.Table]
    starts: Rows
    source: NDArray[np.int16]
    label: NDArray[np.int8]
    official: NDArray[np.int8]
    rejected: NDArray[np.bool_]
    image: Rows
    """Number of the distinct image that a row shows, -1 for a rejected row."""
    first: Rows
    """The first row of each distinct image."""
    content: list[str]
    """Content hash of each source."""
    fingerprints: list[str]
    """Of each source's content, see `fingerprint_of`."""

    def __len__(self) -> int:
        return int(self.starts[-1])

    def numbers(self, name: str, kind: type[S]) -> NDArray[S]:
        """A column of numbers of one kind, all rows."""
        return np.concatenate([piece[name].to_numpy(zero_copy_only=False) for piece in self.pieces], dtype=kind)

    def texts(self, name: str, rows: Rows) -> list[str]:
        """A column of texts at some rows."""
        return self._values(name, rows)

    def image_ids(self, rows: Rows) -> list[bytes]:
        """The ids of the images at some rows."""
        return self._values("image_id", rows)

    def votes(self, rows: Rows) -> list[list[float] | None]:
        """The annotators' votes at some rows, None where there are none."""
        return self._values("votes", rows)

    def attributes(self, rows: Rows) -> list[list[tuple[str, str]]]:
        """(name, value) of every attribute, at some rows."""
        return [pairs or [] for pairs in self._values("attributes", rows)]

    def _values(self, name: str, rows: Rows) -> list[Any]:
        """A column's values at some rows, as Python objects."""
        out: list[Any] = [None] * len(rows)
        for piece, numbers, positions in self._locate(rows):
            for position, value in zip(
                positions.tolist(), piece[name].take(pa.array(numbers)).to_pylist(), strict=True
            ):
                out[position] = value
        return out

    def codes(self, name: str) -> NDArray[np.int64]:
        """A text column as numbers, equal for equal texts of one source; -1 where it is null."""
        out = np.full(len(self), -1, dtype=np.int64)
        code_of: dict[tuple[int, str], int] = {}
        for number, piece in enumerate(self.pieces):
            column = piece[name].combine_chunks()
            if column.null_count == len(column):
                continue
            start = int(self.starts[number])
            coded = column.dictionary_encode()
            source = int(self.source[start])
            names = np.array(
                [code_of.setdefault((source, text), len(code_of)) for text in coded.dictionary.to_pylist()]
            )
            codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            out[start : start + len(piece)] = np.where(codes >= 0, names[codes], -1)
        return out

    def thumbs(self, rows: Rows) -> NDArray[np.uint8]:
        """Grey thumbnails (n, 48, 48) of some rows, in their order."""
        out = np.empty((len(rows), THUMB, THUMB), dtype=np.uint8)
        for piece, numbers, positions in self._locate(rows):
            out[positions] = _rows(piece, "thumb", THUMB)[numbers, ..., 0]
        return out

    def _locate(self, rows: Rows) -> Iterator[tuple[pa.Table, Rows, Rows]]:
        """(piece, rows in it, their positions in `rows`) for every piece that holds some."""
        piece = np.searchsorted(self.starts, rows, side="right") - 1
        order = np.argsort(piece, kind="stable")
        bounds = np.flatnonzero(np.diff(piece[order])) + 1
        for positions in np.split(order, bounds) if len(rows) else []:
            number = int(piece[positions[0]])
            yield self.pieces[number], rows[positions] - self.starts[number], positions

    def crops(self, keep: NDArray[np.bool_], size: int, *, grey: bool) -> Iterator[NDArray[np.uint8]]:
        """Crops (k, size, size, 1 or 3) of the rows that are kept, in order, piece by piece."""
        for number, piece in enumerate(self.pieces):
            kept = np.flatnonzero(keep[self.starts[number] : self.starts[number + 1]])
            if not len(kept):
                continue
            rows = _rows(piece, "crop", size)[kept]
            if grey and rows.shape[-1] == 3:
                rows = to_grey(rows)
            yield np.repeat(rows, 3, axis=-1) if not grey and rows.shape[-1] == 1 else rows


def _rows(piece: pa.Table, name: str, side: int) -> NDArray[np.uint8]:
    """A column of images as an array (n, side, side, channels), without a copy."""
    column = piece[name].chunk(0)
    width = column.type.byte_width
    flat = np.frombuffer(column.buffers()[1], np.uint8, count=len(column) * width, offset=column.offset * width)
    return flat.reshape(len(column), side, side, width // side**2)


def fingerprint_of(source: Source) -> str:
    """A cheap fingerprint of a source's content: tables by their bytes, images by size and time of change."""
    return _joined(source, (fingerprint(items) for items in chunks(source, CHUNK)))


def _joined(source: Source, fingerprints: Iterable[str]) -> str:
    return hashlib.sha256("\n".join([source.table_hash(), *fingerprints]).encode()).hexdigest()


def collect(
    sources: list[Source], scratch: Scratch, recipe: Recipe, engine: Engine, *, max_rejected: float
) -> Collection:
    """Load all sources in order. Stops with an `InputError` when too large a share is rejected."""
    names = _load_pieces(sources, scratch, recipe, engine)
    if not names:
        raise InputError("The sources hold no rows.", rule="An index needs images.")
    pieces = [scratch.open(name) for _, name in names]
    starts = np.cumsum([0] + [len(piece) for piece in pieces])
    source = np.repeat(np.array([s for s, _ in names], np.int16), np.diff(starts))
    contents = [Content(s.table_hash()) for s in sources]
    for (number, _), piece in zip(names, pieces, strict=True):
        digests = piece["digest"].chunk(0)
        contents[number].add(piece["path"].to_pylist(), bytes(digests.buffers()[1])[: 32 * len(digests)])
    rejected = np.concatenate([piece["reason"].is_valid().to_numpy() for piece in pieces])
    image, first = _distinct(pieces, rejected)
    collection = Collection(
        sources=sources,
        pieces=pieces,
        starts=starts,
        source=source,
        label=np.concatenate([p["label"].to_numpy() for p in pieces]),
        official=np.concatenate([p["official"].to_numpy() for p in pieces]),
        rejected=rejected,
        image=image,
        first=first,
        content=[c.value() for c in contents],
        fingerprints=[
            _joined(s, (scratch.fingerprint(name) for number, name in names if number == i))
            for i, s in enumerate(sources)
        ],
    )
    _check_rejected(collection, max_rejected)
    return collection


def _load_pieces(sources: list[Source], scratch: Scratch, recipe: Recipe, engine: Engine) -> list[tuple[int, str]]:
    """Make every piece that is not there; (source number, name) of all, in order."""
    names: list[tuple[int, str]] = []
    missing: list[tuple[str, int]] = []

    def tasks() -> Iterator[Task]:
        for number, source in enumerate(sources):
            for part, items in enumerate(chunks(source, CHUNK)):
                name = f"{number:02}-{part:06}"
                names.append((number, name))
                if scratch.has(name) and scratch.verified(name) and scratch.fingerprint(name) == fingerprint(items):
                    progress.skip(len(items))
                    continue
                missing.append((name, len(items)))
                yield Task(items, recipe, source.cropped)

    done = 0
    with meter("reading images", sum(len(source) for source in sources)) as progress:
        for payload in engine.map(load, tasks()):
            name, rows = missing[done]
            scratch.put(name, payload)
            done += 1
            progress.advance(rows)
    return names


def _distinct(pieces: list[pa.Table], rejected: NDArray[np.bool_]) -> tuple[Rows, Rows]:
    """The image that each row shows, numbered by first appearance, and the first row of each."""
    keys = np.concatenate([_halves(piece) for piece in pieces])
    rows = np.flatnonzero(~rejected)
    order = rows[np.lexsort((rows, keys[rows, 1], keys[rows, 0]))]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (keys[order[1:]] != keys[order[:-1]]).any(1)
    first = order[new]  # lexsort is stable in the row number: the first of each run is its first row
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    image = np.full(len(rejected), -1, dtype=np.int64)
    image[order] = rank[np.cumsum(new) - 1] if len(order) else []
    return image, np.sort(first)


def _halves(piece: pa.Table) -> NDArray[np.uint64]:
    """The first 128 bits of every image id, (n, 2): two distinct images that share them are not to be expected."""
    column = piece["image_id"].chunk(0)
    return np.frombuffer(column.buffers()[1], "<u8").reshape(-1, 4)[: len(column), :2]


def _check_rejected(collection: Collection, limit: float) -> None:
    count = int(collection.rejected.sum())
    if count <= limit * len(collection):
        return
    first = np.flatnonzero(collection.rejected)
    reasons = Counter(collection.texts("reason", first))
    [path], [reason], [detail] = (collection.texts(name, first[:1]) for name in ("path", "reason", "detail"))
    raise InputError(
        f"{count} of {len(collection)} images were rejected ({', '.join(sorted(reasons))}); the first is {path}: "
        f"{reason}, {detail}.",
        rule=f"At most {limit:.0%} may be.",
        fix="Repair or remove them, or raise --max-rejected.",
    )
