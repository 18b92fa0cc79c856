"""What a user leaves out or labels anew: filters, caps and relabelling files, all counted."""

from __future__ import annotations

import csv
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.core.errors import InputError, UsageError, nearest
from mien.core.labels import INDEX, LABELS, parse_label
from mien.data.label_votes import NONE, check_source
from mien.data.loading.collect import Collection
from mien.data.splits import order_keys, water_level

_FILTER = re.compile(r"(?:(?P<source>[\w-]+):)?(?P<field>[\w.-]+)\s*(?P<op>>=|<=|!=|==|=|>|<)\s*(?P<value>.+)")
Compare = Callable[[Any, Any], object]  # of numbers, arrays of them, or texts
_OPERATORS: dict[str, Compare] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_SIZES = ("side", "width", "height")


@dataclass(frozen=True)
class Filter:
    """A condition that rows must meet; rows of other sources than `source` are not asked."""

    text: str
    source: str | None
    field: str
    op: str
    value: str


def parse_filter(text: str) -> Filter:
    """Read `[SOURCE:]FIELD<OP>VALUE`."""
    match = _FILTER.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"--keep {text!r} is no condition.",
            rule="Its form is [SOURCE:]FIELD<OP>VALUE with >=, <=, >, <, = or !=.",
            fix="E.g. --keep 'ferplus:agreement>=0.6'.",
        )
    return Filter(text, match["source"], match["field"], match["op"], match["value"].strip())


def passing(collection: Collection, filters: Sequence[Filter]) -> NDArray[np.bool_]:
    """Which rows meet every filter. A row without the attribute does not meet a filter on it."""
    out = np.ones(len(collection), dtype=bool)
    names = [source.alias for source in collection.sources]
    for rule in filters:
        applies = np.ones(len(collection), dtype=bool)
        if rule.source is not None:
            applies = np.isin(collection.source, [i for i, name in enumerate(names) if name == rule.source])
        rows = np.flatnonzero(applies & ~collection.rejected)
        out[rows] &= _meets(collection, rows, rule)
    return out


def _meets(collection: Collection, rows: NDArray[np.int64], rule: Filter) -> NDArray[np.bool_]:
    compare = _OPERATORS[rule.op]
    if rule.field in _SIZES:
        width, height = collection.numbers("width", np.int32)[rows], collection.numbers("height", np.int32)[rows]
        sizes = {"width": width, "height": height, "side": np.minimum(width, height)}[rule.field]
        return np.asarray(compare(sizes, _number(rule)))
    if rule.field == "label":
        if rule.op not in {"=", "==", "!="}:
            raise UsageError(f"--keep {rule.text!r} orders labels.", rule="Labels are compared with = or !=.")
        return np.asarray(compare(collection.label[rows], INDEX[parse_label(rule.value)]))
    values = [dict(pairs).get(rule.field) for pairs in collection.attributes(rows)]
    if not any(value is not None for value in values):
        attributes = sorted({key for pairs in collection.attributes(rows[:2048]) for key, _ in pairs})
        raise UsageError(
            f"--keep {rule.text!r}: no row has the attribute "
            f"{rule.field!r}.{nearest(rule.field, [*attributes, *_SIZES, 'label'])}",
            rule=f"Fields are {', '.join([*_SIZES, 'label', *attributes])}.",
        )
    if rule.op in {"=", "==", "!="}:
        return np.array([value is not None and compare(value, rule.value) for value in values], dtype=bool)
    limit = _number(rule)
    return np.array(
        [value is not None and _compare_numbers(compare, value, limit, rule) for value in values], dtype=bool
    )


def _number(rule: Filter) -> float:
    try:
        return float(rule.value)
    except ValueError:
        raise UsageError(f"--keep {rule.text!r}: {rule.value!r} is no number.") from None


def _compare_numbers(compare: Compare, value: str, limit: float, rule: Filter) -> bool:
    try:
        return bool(compare(float(value), limit))
    except ValueError:
        raise UsageError(f"--keep {rule.text!r}: the attribute is {value!r} somewhere, no number.") from None


DROP = "drop"


def read_relabels(path: Path) -> dict[str, str]:
    """{image_id or path: class or "drop"} from a CSV with the columns image_id or path, and label."""
    rule = "A relabelling file is a CSV with the columns image_id or path, and label (one of the classes, or drop)."
    if not path.is_file():
        raise InputError(f"No file {path}.", rule=rule)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            key = next((name for name in ("image_id", "path") if name in columns), None)
            if key is None or "label" not in columns:
                raise InputError(f"{path} has the columns {', '.join(columns) or 'none'}.", rule=rule)
            out: dict[str, str] = {}
            for number, row in enumerate(reader):
                name, label = (row[key] or "").strip(), (row["label"] or "").strip()
                label = DROP if label.lower() == DROP else parse_label(label)
                if out.get(name, label) != label:
                    raise InputError(f"{path}, row {number}: {name} is labelled twice, differently.", rule=rule)
                out[name] = label
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no table of text: {error}.", rule=rule) from None
    if not out:
        raise InputError(f"{path} has no rows.", rule=rule)
    return out


def relabelled(
    collection: Collection, labels: NDArray[np.int8], ids: list[bytes], new_labels: dict[str, str], path: Path
) -> tuple[NDArray[np.int8], list[dict[str, str | None]]]:
    """Labels after a relabelling file, and what it changed; names that are nowhere are an error."""
    numbers = {identity.hex(): number for number, identity in enumerate(ids)}
    paths = {name for name in new_labels if name not in numbers}
    if paths:
        rows = np.flatnonzero(~collection.rejected)
        numbers |= {
            name: int(collection.image[row])
            for row, name in zip(rows, collection.texts("path", rows), strict=True)
            if name in paths
        }
    unknown = [name for name in new_labels if name not in numbers]
    if unknown:
        raise InputError(
            f"{path} names {len(unknown)} images that this index does not have, first {unknown[0]!r}.",
            rule="Every row names an image_id or a path (source:relative/file) of an image that was read.",
        )
    out = labels.copy()
    changes: list[dict[str, str | None]] = []
    for name, label in new_labels.items():
        number = numbers[name]
        new = NONE if label == DROP else INDEX[label]
        old = int(labels[number])
        if new != old:
            out[number] = new
            changes.append({"image_id": ids[number].hex(), "from": None if old == NONE else LABELS[old], "to": label})
    return out, changes


def parse_caps(texts: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Read `SOURCE=COUNT` caps."""
    out = {}
    for text in texts:
        name, _, count = text.partition("=")
        if not count.isdigit() or not int(count):
            raise UsageError(f"--max-per-source {text!r}.", rule="Its form is SOURCE=COUNT with a count from 1.")
        check_source(name, names, "--max-per-source")
        out[name] = int(count)
    return out


def capped(
    labels: NDArray[np.int8],
    sources: NDArray[np.int16],
    ids: list[bytes],
    *,
    names: Sequence[str],
    seed: int,
    max_train: int | None,
    max_per_class: int | None,
    per_source: dict[str, int],
) -> NDArray[np.bool_]:
    """Which train images are beyond the caps. Only train is capped: the other sides keep their natural shares."""
    keys = order_keys(seed, "cap", ids)
    over = np.zeros(len(labels), dtype=bool)
    for name, limit in per_source.items():
        members = np.flatnonzero(np.isin(sources, [i for i, source in enumerate(names) if source == name]))
        over[_beyond(members, labels, keys, limit, None)] = True
    members = np.flatnonzero(~over)
    if max_train is not None or max_per_class is not None:
        over[_beyond(members, labels, keys, max_train, max_per_class)] = True
    return over


def _beyond(
    members: NDArray[np.int64],
    labels: NDArray[np.int8],
    keys: NDArray[np.uint64],
    total: int | None,
    per_class: int | None,
) -> NDArray[np.int64]:
    """Members beyond a cap of each class and a total, which is spread over the classes as evenly as they allow."""
    classes = [members[labels[members] == label] for label in range(len(LABELS))]
    limit = per_class or max(map(len, classes), default=0)
    if total is not None:
        limit = min(limit, water_level([min(len(c), limit) for c in classes], total))
    ordered = [c[np.lexsort((c, keys[c]))] for c in classes]
    return np.concatenate([c[limit:] for c in ordered])
