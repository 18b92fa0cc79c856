"""Counts of an index: the report's table of classes and splits, sources, duplicates, what looks wrong."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.audit import AttributeCounts, Audit, IdenticalCounts, NearDuplicateCounts, OfficialLeaks
from mien.core.artifacts.index import SPLITS
from mien.core.labels import LABELS, MINORITY
from mien.data.audit.suspicious import suspicious
from mien.data.loading.load import ALIGNED, SPLIT_CODE
from mien.data.plan import Plan

_CODES = [SPLIT_CODE[name] for name in SPLITS]
_MOST_VALUES = 24  # an attribute with more values than this is counted, not listed


def audit(plan: Plan, keep: NDArray[np.bool_], dropped: Counter[str]) -> Audit:
    """All counts that `audit.json` holds. `keep` are the source rows that the index shows."""
    collection = plan.collection
    rows = np.flatnonzero(keep)
    voted = keep.copy()
    voted[plan.decisions.row[[i for i, votes in plan.decisions.votes.items() if votes is None]]] = False
    image = collection.image[rows]
    labels, sides, sources = plan.decisions.label[image], plan.sides[image], collection.source[rows]
    counts = {name: _by_split(sides[labels == i]) for i, name in enumerate(LABELS)}
    totals, n = _by_split(sides), len(rows)
    names = [source.alias for source in collection.sources]
    licenses = np.array([source.license for source in collection.sources], dtype=object)[sources]
    subjects = collection.codes("subject")[rows]
    source_rows: Counter[str] = Counter()
    for source in collection.sources:
        source_rows[source.alias] += len(source)
    shares = {s: _share(sum(counts[m][s] for m in MINORITY), totals[s]) for s in (*SPLITS, "total")}
    return {
        "rows": n,
        "suspicious": suspicious(plan, rows),
        "source_rows": dict(sorted(source_rows.items())),
        "distribution": {name: {**counts[name], "share": _share(counts[name]["total"], n)} for name in LABELS},
        "totals": totals,
        "absent": {"splits": [s for s in SPLITS if not totals[s]], "classes": _absent_classes(counts, totals)},
        "minority": {"classes": list(MINORITY), "share": shares},
        "by_source": {
            name: _by_split(sides[np.isin(sources, [i for i, s in enumerate(names) if s == name])])
            for name in sorted(set(names))
        },
        "by_license": {text: _by_split(sides[licenses == text]) for text in sorted(set(licenses.tolist()))},
        "by_attribute": _attributes(plan, rows, labels),
        "licenses": sorted(set(licenses.tolist())),
        "with_votes": sum(
            int(piece["votes"].is_valid().to_numpy()[voted[a:b]].sum())
            for piece, a, b in zip(collection.pieces, collection.starts[:-1], collection.starts[1:], strict=True)
        ),
        "groups": len(set(plan.group[image].tolist())),
        "groups_on_two_sides": _crossing(plan.group[image], sides),
        "subjects_on_two_sides": _crossing(subjects[subjects >= 0], sides[subjects >= 0]),
        "duplicates": _identical(plan),
        "near_duplicates": _near(plan),
        "moved": dict(
            Counter(
                f"{SPLIT_NAMES[plan.own_sides[i]]} -> {SPLIT_NAMES[plan.sides[i]]}"
                for i in np.flatnonzero(plan.kept & (plan.sides > plan.own_sides)).tolist()
            )
        ),
        "aligned": {
            ALIGNED[code]: int(count)
            for code, count in enumerate(
                np.bincount(collection.numbers("aligned", np.int8)[rows], minlength=len(ALIGNED))
            )
            if count
        },
        "relabelled": len(plan.relabelled),
        "dropped": dict(sorted(dropped.items())),
        "rejected": dict(sorted(Counter(collection.texts("reason", np.flatnonzero(collection.rejected))).items())),
    }


SPLIT_NAMES = {code: name for name, code in SPLIT_CODE.items()}


def _by_split(sides: NDArray[np.int8]) -> dict[str, int]:
    return {name: int((sides == code).sum()) for name, code in zip(SPLITS, _CODES, strict=True)} | {"total": len(sides)}


def _absent_classes(counts: dict[str, dict[str, int]], totals: dict[str, int]) -> dict[str, list[str]]:
    """For each split that has rows the classes of which it has none; splits with all seven are left out."""
    absent = {s: [name for name in LABELS if not counts[name][s]] for s in SPLITS if totals[s]}
    return {split: names for split, names in absent.items() if names}


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _crossing(groups: NDArray[np.int64], sides: NDArray[np.int8]) -> int:
    """How many groups stand on more than one side."""
    pairs = np.unique(groups * len(SPLIT_CODE) + sides)
    return int((np.unique(pairs // len(SPLIT_CODE), return_counts=True)[1] > 1).sum())


def _attributes(plan: Plan, rows: NDArray[np.int64], labels: NDArray[np.int8]) -> dict[str, AttributeCounts]:
    """Per attribute: how many rows have it, and for each of its values (if they are few) the rows and classes."""
    counters: dict[str, dict[str, Counter[str]]] = {}
    for start in range(0, len(rows), 1 << 15):
        part = slice(start, start + (1 << 15))
        for pairs, label in zip(plan.collection.attributes(rows[part]), labels[part].tolist(), strict=True):
            for key, value in pairs:
                values = counters.setdefault(key, {})
                if value in values or len(values) <= _MOST_VALUES:
                    values.setdefault(value, Counter())[LABELS[label]] += 1
                else:
                    values.setdefault("", Counter())["" if value else LABELS[label]] += 1
    out: dict[str, AttributeCounts] = {}
    for key, values in sorted(counters.items()):
        total = sum(sum(counter.values()) for counter in values.values())
        listed = {v: {"total": sum(c.values()), **dict(sorted(c.items()))} for v, c in sorted(values.items())}
        out[key] = {"rows": total, "values": listed if len(values) <= _MOST_VALUES else f"more than {_MOST_VALUES}"}
    return out


def _identical(plan: Plan) -> IdenticalCounts:
    """Pixel-identical groups, and how the official splits leak through them."""
    collection = plan.collection
    rows = np.flatnonzero(collection.image >= 0)
    image, official = collection.image[rows], collection.official[rows]
    counts = np.bincount(image, minlength=len(plan.ids))
    return {
        "identical_groups": int((counts > 1).sum()),
        "pictures_in_groups": int(counts[counts > 1].sum()),
        **_official_leaks(image, official, len(plan.ids)),
        "groups_with_conflicting_labels": int(plan.decisions.conflict.sum()),
    }


def _near(plan: Plan) -> NearDuplicateCounts:
    """Near-duplicate clusters of distinct images; how the official splits leak through identical and near ones."""
    collection = plan.collection
    size = np.bincount(plan.group, minlength=len(plan.ids))
    rows = np.flatnonzero(collection.image >= 0)
    image = collection.image[rows]
    labelled = np.flatnonzero((plan.decisions.label >= 0) & (size[plan.group] > 1))
    kinds = np.unique(plan.group[labelled] * len(LABELS) + plan.decisions.label[labelled])
    return {
        "pairs": len(plan.pairs),
        "clusters": int((size > 1).sum()),
        "pictures": int(size[size > 1].sum()),
        "largest": int(size.max(initial=0)),
        **_official_leaks(plan.group[image], collection.official[rows], len(plan.ids)),
        "groups_with_conflicting_labels": int((np.unique(kinds // len(LABELS), return_counts=True)[1] > 1).sum()),
    }


def _official_leaks(group: NDArray[np.int64], official: NDArray[np.int8], n: int) -> OfficialLeaks:
    """Groups that cross the sources' own splits, and official val and test rows whose group is in train too."""
    stands = np.zeros((n, len(SPLIT_CODE)), dtype=bool)
    has_split = official >= 0
    stands[group[has_split], official[has_split]] = True
    in_train = stands[:, SPLIT_CODE["train"]]
    return {
        "groups_crossing_official_splits": int((stands.sum(1) > 1).sum()),
        "official_rows_also_in_train": {
            side: int((in_train[group] & (official == SPLIT_CODE[side])).sum()) for side in ("val", "test")
        },
    }
