"""Predictions made elsewhere: a CSV, Parquet or NPZ file to checked ids, labels, splits and logits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mien.core.config.judge import ImportConfig
from mien.core.errors import InputError, MienError, UsageError, nearest
from mien.core.labels import AFFECTNET, EXPW, FER2013, INDEX, LABELS, RAFDB, parse_label
from mien.data.sources.base import SPLIT_NAMES

SPLITS = ("val", "calib", "test")
TESTS = {name for name, split in SPLIT_NAMES.items() if split == "test"}  # names of test in data sets
NUMBERS: dict[str, dict[int, str | None]] = {
    "mien": dict(enumerate(LABELS)),
    "fer2013": dict(FER2013),
    "rafdb": dict(RAFDB),
    "affectnet": dict(AFFECTNET),
    "expw": dict(EXPW),
}
PREFIXES = {
    "logit": "logits",
    "logits": "logits",
    "prob": "probabilities",
    "probs": "probabilities",
    "probability": "probabilities",
    "p": "probabilities",
}
SUM_TOLERANCE = 1e-3
FLOOR = 1e-12
Columns = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Imported:
    """Rows of a file: ids (n,), splits (n,), labels (n,) or None, logits (n, 7), what the numbers were, and the columns
    that look like classes and were left out."""

    ids: NDArray[np.str_]
    splits: NDArray[np.str_]
    labels: NDArray[np.int64] | None
    logits: NDArray[np.float64]
    kind: str
    left_out: tuple[str, ...] = ()


def read_file(path: Path, config: ImportConfig) -> Imported:
    """Read and check a file; every fault is an `InputError` that says what to give."""
    columns = _load(path, config)
    values, kind = _values(columns, path, config)
    n = len(values)
    for name in (config.id_column, config.label_column, config.split_column):
        if name in columns and columns[name].shape != (n,):
            raise InputError(
                f"{path}: {name!r} has shape {columns[name].shape} for {n} rows of numbers.", rule="One entry a row."
            )
    if not n:
        raise InputError(f"{path} has no rows.")
    ids = _texts(_column(columns, config.id_column, path, "--id-column"), path, config.id_column)
    unique, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        twice = unique[counts > 1]
        raise InputError(
            f"{path} names {len(twice)} images more than once, e.g. {str(twice[0])!r}.",
            rule="One row an image, over all splits.",
        )
    labels = _labels(columns, path, config)
    splits = _splits(columns, n, path, config)
    logits = _logits(values, kind, ids, path)
    used = {config.id_column, config.label_column, config.split_column}
    extra = tuple(
        n
        for n in columns
        if n not in used and _suffix(path) != ".npz" and _prefix(n) is not None and not _names_class(n)
    )
    return Imported(ids, splits, labels, logits, kind, extra)


def _texts(column: NDArray[np.generic], path: Path, name: str) -> NDArray[np.str_]:
    """A column as texts; empty entries are refused, bytes are decoded."""
    out = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in column.tolist()]
    empty = [i for i, v in enumerate(out) if v is None or v == "" or (isinstance(v, float) and np.isnan(v))]
    if empty:
        raise InputError(
            f"{path} has {len(empty)} rows without {name!r}, first row {empty[0] + 1}.", rule="Each row has one."
        )
    return np.array([str(v) for v in out])


def _prefix(name: str) -> str | None:
    """The kind that a column's prefix names, None where it names none."""
    head, sep, _ = name.rpartition("_")
    return PREFIXES.get(head.lower()) if sep else None


def _names_class(name: str) -> bool:
    try:
        parse_label(name.rpartition("_")[2])
    except MienError:
        return False
    return True


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _load(path: Path, config: ImportConfig) -> Columns:
    if not path.is_file():
        raise UsageError(f"No file {path}.", rule="Predictions come as .csv, .parquet or .npz.")
    try:
        if _suffix(path) == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                return {name: data[name] for name in data.files}
        if _suffix(path) in (".csv", ".parquet"):
            # Ids and splits stay the texts they are: 007 is not 7.
            texts = pacsv.ConvertOptions(column_types={config.id_column: pa.string(), config.split_column: pa.string()})
            table = pacsv.read_csv(path, convert_options=texts) if _suffix(path) == ".csv" else pq.read_table(path)
            twice = {n for n in table.column_names if table.column_names.count(n) > 1}
            if twice:
                raise InputError(
                    f"{path} has two columns {sorted(twice)[0]!r}.", rule="Columns have names of their own."
                )
            return {n: table[n].to_numpy(zero_copy_only=False) for n in table.column_names}
    except (pa.ArrowException, ValueError, OSError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read as {path.suffix[1:]}: {str(error).splitlines()[0][:200]}") from None
    raise UsageError(f"{path} is no .csv, .parquet or .npz file.", rule="Predictions come in one of these.")


def _column(columns: Columns, name: str, path: Path, flag: str) -> NDArray[np.generic]:
    if name not in columns:
        raise InputError(
            f"{path} has no column {name!r}; it has {', '.join(columns)}.{nearest(name, columns)}",
            fix=f"Name it: {flag} COLUMN.",
        )
    return columns[name]


def _values(columns: Columns, path: Path, config: ImportConfig) -> tuple[NDArray[np.float64], str]:
    """The numbers (n, 7) in our order of classes, and whether they are logits or probabilities."""
    if _suffix(path) == ".npz":
        numbers = _from_array(columns, path, config)
        kind = PREFIXES.get(config.values, config.values if config.values in PREFIXES.values() else "?")
    else:
        names, kind = _class_columns(list(columns), path, config)
        try:
            numbers = np.column_stack([columns[name].astype(np.float64) for name in names])
        except ValueError as error:
            raise InputError(f"{path} has numbers that are none: {error}") from None
    kind = config.kind if config.kind != "auto" else kind
    if kind == "?":
        raise UsageError(
            f"{path} does not say whether its numbers are logits or probabilities.",
            fix="Say it: --kind logits or --kind probabilities.",
        )
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers).all(1))[0])
        raise InputError(f"{path} has NaN, Inf or empty numbers, first in row {row + 1}.", rule="All are finite.")
    return numbers, kind


def _from_array(columns: Columns, path: Path, config: ImportConfig) -> NDArray[np.float64]:
    array = _column(columns, config.values, path, "--values")
    if array.ndim != 2 or array.shape[1] != len(LABELS):
        raise InputError(f"{path}: {config.values!r} has shape {array.shape}.", rule=f"(n, {len(LABELS)}).")
    if array.dtype.kind not in "fiub":
        raise InputError(f"{path}: {config.values!r} holds {array.dtype}.", rule="Real numbers.")
    classes = config.classes.split(",") if config.classes else columns.get("classes")
    if isinstance(classes, np.ndarray):
        classes = np.atleast_1d(classes).tolist()
    if classes is None:
        raise UsageError(
            f"{path} does not say in which order its classes are.",
            rule="An array's columns have no names, and a wrong order is the commonest bug.",
            fix=f"Name them: --classes {','.join(LABELS)} (in your order), or store an array `classes`.",
        )
    order = [parse_label(str(name)) for name in classes]
    _check_complete(order, path)
    return np.asarray(array[:, [order.index(name) for name in LABELS]], dtype=np.float64)


def _class_columns(names: list[str], path: Path, config: ImportConfig) -> tuple[list[str], str]:
    """Each class's column, in our order, and the kind that their prefixes name ('?' for none)."""
    named: dict[str, str] = {}
    for entry in config.column:
        label, sep, column = entry.partition("=")
        if not sep or column not in names:
            raise UsageError(
                f"--column {entry}: {path} has no such column.{nearest(column, names)}", rule="CLASS=COLUMN."
            )
        if parse_label(label) in named or column in named.values():
            raise UsageError(f"--column {entry} names a class or a column a second time.", rule="One column a class.")
        named[parse_label(label)] = column
    kinds: set[str] = set()
    columns = dict(named)
    for name in names:
        prefix, _, rest = name.rpartition("_")
        try:
            label = parse_label(rest or name)
        except MienError:
            continue
        if (prefix and prefix.lower() not in PREFIXES) or label in named or name in named.values():
            continue
        if label in columns:
            raise InputError(
                f"{path} has two columns for {label}: {columns[label]!r} and {name!r}.", fix=f"--column {label}=COLUMN"
            )
        columns[label] = name
        kinds.add(PREFIXES.get(prefix.lower(), "?"))
    missing = [label for label in LABELS if label not in columns]
    if missing:
        raise InputError(
            f"{path} has no column for {', '.join(missing)}; it has {', '.join(names)}.",
            rule="One column a class, e.g. logit_angry or prob_angry.",
            fix=f"Name them: --column {missing[0]}=COLUMN.",
        )
    return [columns[label] for label in LABELS], kinds.pop() if len(kinds) == 1 else "?"


def _check_complete(order: list[str], path: Path) -> None:
    if sorted(order) != sorted(LABELS):
        raise InputError(
            f"{path}: the classes are {', '.join(order)}.", rule=f"Each of {', '.join(LABELS)} once, in any order."
        )


def _labels(columns: Columns, path: Path, config: ImportConfig) -> NDArray[np.int64] | None:
    if config.label_column not in columns:
        return None
    raw = columns[config.label_column]
    names = _texts(raw, path, config.label_column)
    if np.issubdtype(raw.dtype, np.number):
        if config.label_numbers == "none":
            raise UsageError(
                f"The labels of {path} are numbers.",
                rule="Data sets number the classes differently.",
                fix=f"Say whose they are: --label-numbers {' or '.join(NUMBERS)}.",
            )
        classes = NUMBERS[config.label_numbers]
        bad = sorted({float(v) for v in raw} - {float(k) for k, v in classes.items() if v is not None})
        if bad:
            raise InputError(
                f"{path} has the label {bad[0]:g}, which is none of the seven classes in {config.label_numbers}'s "
                "numbers."
            )
        return np.array([INDEX[str(classes[int(v)])] for v in raw], dtype=np.int64)
    return np.array([INDEX[parse_label(name)] for name in names.tolist()], dtype=np.int64)


def _splits(columns: Columns, n: int, path: Path, config: ImportConfig) -> NDArray[np.str_]:
    if config.split is not None:
        _check_no_splits(columns, n, path, config)
        return np.full(n, config.split)
    renamed = dict.fromkeys(SPLITS, "") | {s: s for s in SPLITS}
    for entry in config.split_name:
        name, _, split = entry.partition("=")
        if split not in SPLITS:
            raise UsageError(f"--split-name {entry}.", rule=f"THEIRS=OURS with {', '.join(SPLITS)}.")
        plain = _plain(name)
        if (plain in SPLITS and plain != split) or (_says_test(name) and split != "test"):
            kept = plain if plain in SPLITS else "test"
            raise UsageError(
                f"--split-name {entry}: {name!r} is {kept}.",
                rule="val, calib and test stay what they are: test rows do not become others.",
                fix=f"--split-name {name}={kept}",
            )
        renamed[name] = split
    column = _column(columns, config.split_column, path, "--split-column (or --split for all rows)")
    raw = _texts(column, path, config.split_column)
    unknown = sorted(set(raw.tolist()) - set(renamed))
    if unknown:
        raise InputError(
            f"{path} has the split {unknown[0]!r}.",
            rule=f"Splits are {', '.join(SPLITS)}; train rows are not judged.",
            fix=f"--split-name {unknown[0]}=val, or leave those rows out.",
        )
    return np.array([renamed[name] for name in raw.tolist()])


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _says_test(name: str) -> bool:
    """Whether a word of a name begins or ends with "test"; not where the name is that of another split (PublicTest)."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]
    split = SPLIT_NAMES.get(_plain(name), "test")
    return split == "test" and any(word.startswith("test") or word.endswith("test") for word in words)


def _check_no_splits(columns: Columns, n: int, path: Path, config: ImportConfig) -> None:
    """Raise where --split would name rows anew that the file calls something else, in whatever column."""
    if config.split_column in columns:
        raise UsageError(f"--split was given, and {path} has a column {config.split_column!r}.", rule="One of them.")
    for name, column in columns.items():
        if column.shape == (n,) and column.dtype.kind in "OUS":
            texts = set(map(str, column.tolist()))
            few = len(texts) <= n / 2  # names of splits, not of images
            if config.split != "test" and any(_plain(v) in TESTS or (few and _says_test(v)) for v in texts):
                raise UsageError(
                    f"--split {config.split} was given, and {path} has test rows by its column {name!r}.",
                    rule="Test rows do not become others.",
                    fix=f"--split-column {name} instead of --split.",
                )


def _logits(values: NDArray[np.float64], kind: str, ids: NDArray[np.str_], path: Path) -> NDArray[np.float64]:
    if kind == "logits":
        return values
    off = np.abs(values.sum(1) - 1)
    if values.min() < 0 or off.max() > SUM_TOLERANCE:
        row = int(np.argmax(np.where((values < 0).any(1), np.inf, off)))
        raise InputError(
            f"{path}: the probabilities of {str(ids[row])!r} are {np.round(values[row], 4).tolist()}, which sum to "
            f"{values[row].sum():.4f}.",
            rule="Probabilities are not negative and sum to 1.",
            fix="If they are logits, say --kind logits.",
        )
    return np.asarray(np.log(np.maximum(values / values.sum(1, keepdims=True), FLOOR)))


def check_order(logits: NDArray[np.float64], labels: NDArray[np.int64], path: Path) -> None:
    """Raise when the labels say that the columns stand in another order of classes.

    The best one-to-one renaming of predicted classes is found; it must not be much better than none.
    """
    if len(labels) < 50:
        return
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415  (slow to import)

    k = len(LABELS)
    counts = np.bincount(labels * k + logits.argmax(1), minlength=k * k).reshape(k, k)
    rows, renamed = linear_sum_assignment(-counts)
    as_named, at_best = np.trace(counts) / len(labels), counts[rows, renamed].sum() / len(labels)
    if at_best > as_named + 0.15 and at_best > 0.35:
        order = ", ".join(LABELS[int(np.flatnonzero(renamed == column)[0])] for column in range(k))
        raise InputError(
            f"{path}: the columns look to be in another order of classes: as named {as_named:.0%} are right, as "
            f"{order} {at_best:.0%}.",
            rule="A wrong order is the field's commonest bug.",
            fix="Check the order of the columns (--classes, --column) and of the labels (--label-numbers).",
        )
