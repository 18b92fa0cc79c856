"""The same images under the labels of another source: what a comparison of labels needs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mien.core.artifacts.audit import Provenance, RestrictedAudit
from mien.core.artifacts.index import DUPLICATES, MOVED, REJECTED, SCHEMA, SPLITS, Index, IndexParts
from mien.core.errors import InputError, UsageError, nearest
from mien.core.labels import INDEX, LABELS
from mien.data.label_votes import NONE, vote

_CHUNK = 4096


def under_labels(index: Index, occurrences: pa.Table, provenance: Provenance, source: str) -> IndexParts:
    """Parts of an index of those images that every source of `index` labels, with the labels of `source`.

    Splits, groups and pixels are those of `index`, so that two such indexes differ in their labels alone. A source's
    label of an image is the majority of its rows that show it. Votes are left out: they are of one source.

    Raises:
        UsageError: `source` is none of the index's.
        InputError: no image has a label from every source.
    """
    names = [entry["name"] for entry in provenance["sources"]]
    if source not in names:
        raise UsageError(
            f"labels = {source!r} is no source of the index.{nearest(source, names)}",
            rule=f"Its sources: {', '.join(names)}.",
        )
    labels = _labels(occurrences)
    ids = index.image_ids.tolist()
    rows = np.array(
        [i for i, image in enumerate(ids) if all(labels.get((name, image), NONE) != NONE for name in names)], int
    )
    if not len(rows):
        raise InputError(
            f"No image has a label from each of {', '.join(names)}.", fix="Name sources of the same images."
        )
    new_labels = np.array([labels[source, ids[i]] for i in rows.tolist()])
    table = index.table.take(pa.array(rows))
    changed = {"label": np.array(LABELS)[new_labels].tolist(), "votes": [None] * len(rows)}
    for name, values in changed.items():
        position = SCHEMA.get_field_index(name)
        table = table.set_column(position, SCHEMA.field(name), pa.array(values, SCHEMA.field(name).type))
    kept = pc.and_(pc.is_in(occurrences["image_id"], table["image_id"]), pc.equal(occurrences["source"], source))
    return IndexParts(
        rows=table.combine_chunks().to_batches(),
        occurrences=occurrences.filter(kept).to_batches(),
        rejected=REJECTED.empty_table().to_batches(),
        duplicates=DUPLICATES.empty_table().to_batches(),
        moved=MOVED.empty_table().to_batches(),
        pixels=_pixels(index, rows),
        count=len(rows),
        audit=_audit(index, rows, new_labels, source),
        provenance={**provenance, "labels": source, "of": index.content_hash},
        crop=index.crop,
    )


def _labels(occurrences: pa.Table) -> dict[tuple[str, str], int]:
    """The label that each source gives each image, by (source, image_id)."""
    labels: dict[tuple[str, str], list[int]] = {}
    columns = (occurrences[name].to_pylist() for name in ("source", "image_id", "label"))
    for source, image, label in zip(*columns, strict=True):
        labels.setdefault((source, image), []).append(NONE if label is None else INDEX[label])
    return {key: vote(votes)[0] for key, votes in labels.items()}


def _pixels(index: Index, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(rows), _CHUNK):
        yield np.asarray(index.pixels[rows[start : start + _CHUNK]])


def _audit(index: Index, rows: NDArray[np.int64], labels: NDArray[np.int64], source: str) -> RestrictedAudit:
    """Counts by class and split, and how many of the images kept have another label in `index`."""
    splits = index.splits[rows]

    def count(inside: NDArray[np.bool_]) -> dict[str, int]:
        return {split: int((splits[inside] == split).sum()) for split in SPLITS} | {"total": int(inside.sum())}

    return {
        "labels": source,
        "distribution": {name: count(labels == c) for c, name in enumerate(LABELS)},
        "totals": count(np.ones(len(rows), dtype=bool)),
        "left_out": len(index.labels) - len(rows),
        "labelled_otherwise": int((index.labels[rows] != labels).sum()),
    }
