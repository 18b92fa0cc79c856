"""FER+ (Barsoum et al. 2016, arXiv 1608.01041): ten votes an image over FER2013's images.

The rules of its authors, as their reading code applies them for the majority label:

* a class with a single vote is an outlier and is dropped;
* the class with most votes must hold more than half of what is left;
* `unknown` and `NF` (not a face) are no expression, `contempt` is none of the seven: an image whose
  majority is one of these is dropped and counted under that name.

The images lie in the folders that its authors' script makes, or in the challenge's own `fer2013.csv`
beside the table, whose rows are the table's rows.

Soft votes are the votes that are left on the seven classes, normalised; votes for contempt, unknown
and NF take part in deciding whether there is a majority, and are then left out.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from mien.core.artifacts.base import sha256_file
from mien.core.errors import InputError
from mien.core.labels import FERPLUS, LABELS
from mien.data.sources.base import (
    SPLIT_NAMES,
    Attributes,
    FileImage,
    Item,
    Source,
    hash_text,
    inside,
    need_folder,
    what_is_in,
)
from mien.data.sources.fer2013 import Fer2013, PixelText

TABLE = "fer2013new.csv"
FOLDERS = {"training": "FER2013Train", "publictest": "FER2013Valid", "privatetest": "FER2013Test"}
PIXELS = "fer2013.csv"
_EXPECTED = f"a folder with {TABLE} and {', '.join(FOLDERS.values())} (or {PIXELS} beside it)"


def majority(votes: Sequence[int]) -> tuple[str | None, str, tuple[float, ...] | None]:
    """Apply FER+'s rules to ten votes: (label or None, why not, soft votes of the seven or None)."""
    kept = [count if count > 1 else 0 for count in votes]
    total, most = sum(kept), max(kept)
    if total == 0 or most * 2 <= total:
        return None, "no_majority", None
    column = list(FERPLUS)[kept.index(most)]
    label = FERPLUS[column]
    if label is None:
        return None, {"NF": "not_a_face"}.get(column, column), None
    counts = dict.fromkeys(LABELS, 0)
    for name, count in zip(FERPLUS, kept, strict=True):
        class_name = FERPLUS[name]
        if class_name is not None:
            counts[class_name] += count
    return label, "", tuple(counts[name] / sum(counts.values()) for name in LABELS)


@lru_cache(maxsize=1 << 14)  # most rows' votes are those of other rows too
def _outcome(votes: tuple[int, ...]) -> tuple[str | None, str, tuple[float, ...] | None, str, Attributes]:
    """What votes say: label, why not, soft votes, the votes as text, attributes."""
    total = sum(votes)
    agreement = max(votes) / total if total else 0.0
    attributes = (("agreement", f"{agreement:.3f}"), ("votes", str(total)))
    return *majority(votes), "/".join(map(str, votes)), attributes


@dataclass(frozen=True)
class _Row:
    number: int
    usage: str
    name: str
    votes: tuple[int, ...]


class _Columns(NamedTuple):
    """Where the table's columns stand: a row as a dictionary would cost more than all else that is done with it."""

    usage: int
    name: int
    votes: tuple[int, ...]


class FerPlus(Source):
    """FER2013's images under FER+'s votes."""

    name = "ferplus"
    license = "FER+ votes: MIT; pictures: FER2013, gathered for research, no redistribution right known"
    form = "ferplus=FOLDER"
    get = f"`mien index get ferplus --out FOLDER` for the votes; put FER2013's {PIXELS} beside them"
    relabels = ("fer2013",)

    def __init__(self, where: str, *, seed: int, size: int) -> None:
        super().__init__(where, seed=seed, size=size)
        self.root = need_folder(where, _EXPECTED)
        path = self.root / TABLE
        if not path.is_file():
            raise InputError(
                f"{self.root} has no {TABLE}; found {what_is_in(self.root)}.", rule=f"Expected {_EXPECTED}."
            )
        try:
            rows = self._read(path)
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path} is no table of text: {error}.", rule="It is FER+'s own table, UTF-8.") from None
        self._rows = [row for row in rows if row.name]  # rows without a name are no faces
        self._hash = sha256_file(path)
        self._pixels = self._pixel_rows(len(rows))

    def _pixel_rows(self, rows: int) -> list[PixelText] | None:
        """The challenge's images, where there are no image folders."""
        path = self.root / PIXELS
        if any((self.root / folder).is_dir() for folder in FOLDERS.values()) or not path.is_file():
            return None
        source = Fer2013(str(path), seed=self.seed, size=self.size)
        if len(source) != rows:
            raise InputError(
                f"{path} has {len(source)} rows, {TABLE} {rows}.", rule="Row by row they name the same images."
            )
        self._hash = hash_text(self._hash, source.table_hash())
        return source.pixels()

    def _read(self, path: Path) -> list[_Row]:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            missing = {"Usage", "Image name", *FERPLUS} - set(header)
            if missing:
                raise InputError(
                    f"{path} lacks the columns {', '.join(sorted(missing))}.", rule="It is FER+'s own table."
                )
            columns = _Columns(header.index("Usage"), header.index("Image name"), tuple(map(header.index, FERPLUS)))
            return [self._row(path, number, row, columns) for number, row in enumerate(row for row in reader if row)]

    def _row(self, path: Path, number: int, row: list[str], columns: _Columns) -> _Row:
        try:
            usage, name, votes = (
                row[columns.usage],
                row[columns.name].strip(),
                tuple(int(row[i]) for i in columns.votes),
            )
        except (IndexError, ValueError):
            raise InputError(f"{path}, row {number}: a vote is no whole number.", rule="Votes are 0 to 10.") from None
        key = usage.strip().lower()
        if key not in FOLDERS or min(votes) < 0:
            raise InputError(
                f"{path}, row {number}: Usage {usage!r}, votes {votes}.",
                rule="Usage is Training, PublicTest or PrivateTest; votes are not negative.",
            )
        return _Row(number, key, inside(self.root, name, path) if name else "", votes)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Item]:
        root = str(self.root)
        for row in self._rows:
            relative = f"{FOLDERS[row.usage]}/{row.name}"
            label, why, soft, text, attributes = _outcome(row.votes)
            image = FileImage(root, relative) if self._pixels is None else self._pixels[row.number]
            yield Item(
                f"ferplus:{relative}",
                image,
                SPLIT_NAMES[row.usage],
                text,
                label,
                why,
                soft,
                attributes=attributes,
            )

    def hash_table(self) -> str:
        """Hash of the vote table (and of the images' table, where they lie in one)."""
        return self._hash
