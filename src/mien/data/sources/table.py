"""A CSV table of images: `path` and `label`, optionally `split` and `subject`; other columns are attributes.

Paths are relative to the table's folder. `x`, `y`, `width`, `height` (pixels) name a face's box in a
larger image, and `left_eye_x` … `right_eye_y` its eyes. A row whose label is missing is read, takes part
in finding duplicates, and is dropped as `no_label`; one whose label is among `drop` likewise, under its name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from mien.core.artifacts.base import sha256_file
from mien.core.errors import InputError
from mien.core.geometry import Box
from mien.core.labels import parse_or_drop
from mien.data.sources.base import SPLIT_NAMES, FileImage, Item, NamedSource, Points, inside

_RULE = (
    "The table is a CSV (commas, UTF-8) with a header that has path and label, and may have split, subject, x, y, "
    "width, height; paths are relative to its folder."
)
_BOX = ("x", "y", "width", "height")
_EYES = ("left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y")


class Table(NamedSource):
    """Any images that a CSV table lists."""

    name = "csv"
    license = "as its owner states"
    form = "csv=TABLE.csv (columns path, label[, split, subject, x, y, width, height, …]; paths relative to the table)"
    get = "your own images"

    def __init__(self, where: str, *, seed: int, size: int, drop: frozenset[str] = frozenset()) -> None:
        super().__init__(where, seed=seed, size=size, drop=drop)
        self.path = Path(where)
        if not self.path.is_file():
            raise InputError(f"No file {self.path}.", rule=_RULE)
        try:
            self._items = list(self._read())
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{self.path} is no table of text: {error}.", rule=_RULE) from None
        if not self._items:
            raise InputError(f"{self.path} has no rows.", rule=_RULE)

    @property
    def cropped(self) -> bool:
        """Not known: `--align` says."""
        return False

    def _read(self) -> Iterator[Item]:
        with self.path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [name.strip().lower() for name in reader.fieldnames or ()]
            if not {"path", "label"} <= set(columns):
                other = next((mark for mark in (";", "\t") if len(columns) == 1 and mark in columns[0]), None)
                fix = f"It seems to be separated by {other!r}: use commas." if other else ""
                raise InputError(f"{self.path} has the columns {', '.join(columns) or 'none'}.", rule=_RULE, fix=fix)
            reader.fieldnames = columns
            for number, row in enumerate(reader):
                yield self._item(
                    number, reader.line_num, {k: (v or "").strip() for k, v in row.items() if isinstance(k, str)}
                )

    def _item(self, number: int, line: int, row: dict[str, str]) -> Item:
        where = f"{self.path}, line {line}"
        name, label = inside(self.path.parent, row["path"], self.path), row["label"]
        split = row.get("split", "").lower()
        if split and split not in SPLIT_NAMES:
            raise InputError(f"{where}: split {split!r}.", rule=f"Splits: {', '.join(SPLIT_NAMES)}, or empty.")
        try:
            class_name, why = parse_or_drop(label, self.drop)
        except InputError as error:
            raise InputError(f"{where}: {error.seen}", rule=error.rule, fix=error.fix) from None
        box = self._numbers(row, _BOX, where)
        eyes = self._numbers(row, _EYES, where)
        special = {"path", "label", "split", "subject", *_BOX, *_EYES}
        attributes = tuple(sorted((key, value) for key, value in row.items() if key not in special and value))
        points: Points | None = ((eyes[0], eyes[1]), (eyes[2], eyes[3])) if eyes else None
        return Item(
            f"csv:{name}" if box is None else f"csv:{name}#{number}",
            FileImage(str(self.path.parent), name, box, points),
            SPLIT_NAMES[split] if split else None,
            label,
            class_name,
            why,
            subject=row.get("subject") or None,
            attributes=attributes,
        )

    def _numbers(self, row: dict[str, str], names: tuple[str, ...], where: str) -> Box | None:
        texts = [row.get(name, "") for name in names]
        if not any(texts):
            return None
        try:
            a, b, c, d = (float(text) for text in texts)
        except ValueError:
            raise InputError(
                f"{where}: {', '.join(names)} are {texts}.", rule="All four are numbers, or all empty."
            ) from None
        return a, b, c, d

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def hash_table(self) -> str:
        """Hash of the table."""
        return sha256_file(self.path)
