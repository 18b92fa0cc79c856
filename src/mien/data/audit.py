"""Counts of an index: the report's table of classes and splits, sources, duplicates, what was dropped."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from mien.core.artifacts.index import SPLITS
from mien.core.labels import LABELS, MINORITY
from mien.data.collect import Collection
from mien.data.duplicates import Decision


def audit(table: pa.Table, found: Collection, decisions: dict[str, Decision], dropped: Counter[str]) -> dict[str, Any]:
    """All counts that `audit.json` holds."""
    labels = np.array(table["label"].to_pylist(), dtype=str)
    splits = np.array(table["split"].to_pylist(), dtype=str)
    sources = np.array(table["source"].to_pylist(), dtype=str)
    counts = {name: {s: int(((labels == name) & (splits == s)).sum()) for s in SPLITS} for name in LABELS}
    totals = {s: int((splits == s).sum()) for s in SPLITS}
    n = len(labels)
    return {
        "rows": n,
        "source_rows": dict(sorted(found.source_rows.items())),
        "distribution": {name: {**counts[name], "total": sum(counts[name].values()), "share": _share(sum(counts[name].values()), n)} for name in LABELS},
        "totals": {**totals, "total": n},
        "minority": {
            "classes": list(MINORITY),
            "share": {s: _share(sum(counts[m][s] for m in MINORITY), totals[s]) for s in SPLITS}
            | {"total": _share(sum(sum(counts[m].values()) for m in MINORITY), n)},
        },
        "by_source": {name: {s: int(((sources == name) & (splits == s)).sum()) for s in SPLITS} for name in sorted(set(sources.tolist()))},
        "licenses": sorted(set(table["license"].to_pylist())),
        "with_votes": int(n - table["votes"].null_count),
        "groups": len(set(table["group_id"].to_pylist())),
        "groups_on_two_sides": _crossing(table["group_id"].to_pylist(), splits),
        "subjects_on_two_sides": _crossing(table["subject_id"].to_pylist(), splits),
        "duplicates": _duplicates(found, decisions),
        "dropped": dict(sorted(dropped.items())),
        "rejected": dict(sorted(Counter(reason for _, _, reason, _ in found.rejected).items())),
    }  # fmt: skip


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _crossing(groups: list[str | None], splits: np.ndarray[Any, np.dtype[np.str_]]) -> int:
    sides: dict[str, set[str]] = {}
    for group, split in zip(groups, splits.tolist(), strict=True):
        if group is not None:
            sides.setdefault(group, set()).add(split)
    return sum(len(s) > 1 for s in sides.values())


def _duplicates(found: Collection, decisions: dict[str, Decision]) -> dict[str, Any]:
    """Pixel-identical groups, and how the official splits leak through them."""
    groups = [picture for picture in found.pictures.values() if len(picture.rows) > 1]
    leaked = Counter[str]()
    crossing = 0
    for picture in groups:
        sides = Counter(item.official_split for _, item in picture.rows if item.official_split is not None)
        crossing += len(sides) > 1
        if "train" in sides:
            leaked.update({side: count for side, count in sides.items() if side != "train"})
    return {
        "identical_groups": len(groups),
        "pictures_in_groups": sum(len(picture.rows) for picture in groups),
        "groups_crossing_official_splits": crossing,
        "official_rows_also_in_train": {"val": leaked["val"], "test": leaked["test"]},
        "groups_with_conflicting_labels": sum(
            decisions[i].conflict for i, p in found.pictures.items() if len(p.rows) > 1
        ),
    }
