"""What changed between two indexes: images, labels, splits, groups."""

from __future__ import annotations

from collections import Counter
from typing import TypedDict

import numpy as np

from mien.core.artifacts.audit import SplitCounts
from mien.core.artifacts.index import SPLITS, Index
from mien.core.labels import LABELS

_EXAMPLES = 10


class ListedImages(TypedDict):
    """Images of one index alone: how many, by split and label, and paths of some."""

    count: int
    by: dict[str, int]
    examples: list[str]


Change = TypedDict("Change", {"image_id": str, "path": str, "from": str, "to": str})


class Changes(TypedDict):
    """Images whose label or split changed: how many, by what became what, and some of them."""

    count: int
    changes: dict[str, int]
    examples: list[Change]


class IndexDifference(TypedDict):
    """From index `a` to index `b`; lists have a number or counts for each of the two."""

    a: str
    b: str
    rows: list[int]
    same_pictures: int
    same_index: bool
    removed: ListedImages
    added: ListedImages
    label_changed: Changes
    split_changed: Changes
    group_changed: int
    distribution: dict[str, list[SplitCounts]]


def diff(a: Index, b: Index) -> IndexDifference:
    """From `a` to `b`: images added and removed, labels and splits changed, with examples and tables of changes."""
    columns = ["label", "split", "path", "group_id"]
    before, after = (
        dict(
            zip(
                index.table["image_id"].to_pylist(),
                zip(*(index.table[c].to_pylist() for c in columns), strict=True),
                strict=True,
            )
        )
        for index in (a, b)
    )
    both = [i for i in before if i in after]
    labels = [i for i in both if before[i][0] != after[i][0]]
    splits = [i for i in both if before[i][1] != after[i][1]]
    return {
        "a": str(a.folder),
        "b": str(b.folder),
        "rows": [len(before), len(after)],
        "same_pictures": len(both),
        "same_index": a.content_hash == b.content_hash,
        "removed": _listed([i for i in before if i not in after], before),
        "added": _listed([i for i in after if i not in before], after),
        "label_changed": {
            "count": len(labels),
            "changes": _changes(labels, before, after, 0),
            "examples": [_example(i, before, after, 0) for i in labels[:_EXAMPLES]],
        },
        "split_changed": {
            "count": len(splits),
            "changes": _changes(splits, before, after, 1),
            "examples": [_example(i, before, after, 1) for i in splits[:_EXAMPLES]],
        },
        "group_changed": sum(before[i][3] != after[i][3] for i in both),
        "distribution": {name: [_counts(a, i), _counts(b, i)] for i, name in enumerate(LABELS)},
    }


def _listed(ids: list[str], rows: dict[str, tuple[str, ...]]) -> ListedImages:
    by = Counter(f"{rows[i][1]} {rows[i][0]}" for i in ids)
    return {"count": len(ids), "by": dict(sorted(by.items())), "examples": [rows[i][2] for i in ids[:_EXAMPLES]]}


def _changes(
    ids: list[str], before: dict[str, tuple[str, ...]], after: dict[str, tuple[str, ...]], column: int
) -> dict[str, int]:
    return dict(Counter(f"{before[i][column]} -> {after[i][column]}" for i in ids).most_common())


def _example(i: str, before: dict[str, tuple[str, ...]], after: dict[str, tuple[str, ...]], column: int) -> Change:
    return {"image_id": i, "path": after[i][2], "from": before[i][column], "to": after[i][column]}


def _counts(index: Index, label: int) -> SplitCounts:
    splits = index.splits[index.labels == label]
    return {split: int(np.sum(splits == split)) for split in SPLITS}
