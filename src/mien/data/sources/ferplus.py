"""FER+ (Barsoum et al. 2016, arXiv 1608.01041): ten votes a picture over FER2013's pictures.

The rules of its authors, as their reading code applies them for the majority label:

* a class with a single vote is an outlier and is dropped;
* the class with most votes must hold more than half of what is left;
* `unknown` and `NF` (not a face) are no expression, `contempt` is none of the seven: a picture whose
  majority is one of these is dropped and counted under that name.

Soft votes are the votes that are left on the seven classes, normalised; votes for contempt, unknown
and NF take part in deciding whether there is a majority, and are then left out.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from mien.core.errors import InputError
from mien.core.labels import FERPLUS, LABELS
from mien.data.sources.base import SPLIT_NAMES, FilePicture, Item, Source, hash_files, need_folder

TABLE = "fer2013new.csv"
FOLDERS = {"training": "FER2013Train", "publictest": "FER2013Valid", "privatetest": "FER2013Test"}
_EXPECTED = f"a folder with {TABLE} and {', '.join(FOLDERS.values())}"


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
        ours = FERPLUS[name]
        if ours is not None:
            counts[ours] += count
    return label, "", tuple(counts[name] / sum(counts.values()) for name in LABELS)


class FerPlus(Source):
    """FER2013's pictures under FER+'s votes."""

    name = "ferplus"
    license = "FER+ votes: MIT; pictures: FER2013, gathered for research, no redistribution right known"
    form = "ferplus=FOLDER"

    def __init__(self, where: str, *, seed: int, size: int) -> None:
        super().__init__(where, seed=seed, size=size)
        self.root = need_folder(where, _EXPECTED)
        path = self.root / TABLE
        if not path.is_file():
            found = ", ".join(sorted(p.name for p in self.root.iterdir())[:6]) or "nothing"
            raise InputError(f"{self.root} has no {TABLE}; found {found}.", rule=f"Expected {_EXPECTED}.")
        try:
            self._rows = self._read(path)
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path} is no table of text: {error}.", rule="It is FER+'s own table, UTF-8.") from None

    def _read(self, path: Path) -> list[tuple[str, str, tuple[int, ...]]]:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"Usage", "Image name", *FERPLUS} - set(reader.fieldnames or ())
            if missing:
                raise InputError(
                    f"{path} lacks the columns {', '.join(sorted(missing))}.", rule="It is FER+'s own table."
                )
            return [self._row(path, number, row) for number, row in enumerate(reader)]

    @staticmethod
    def _row(path: Path, number: int, row: dict[str, str]) -> tuple[str, str, tuple[int, ...]]:
        usage = row["Usage"].strip().lower()
        try:
            votes = tuple(int(row[name]) for name in FERPLUS)
        except (TypeError, ValueError):
            raise InputError(f"{path}, row {number}: a vote is no whole number.", rule="Votes are 0 to 10.") from None
        if usage not in FOLDERS or min(votes) < 0:
            raise InputError(
                f"{path}, row {number}: Usage {row['Usage']!r}, votes {votes}.",
                rule="Usage is Training, PublicTest or PrivateTest; votes are not negative.",
            )
        return usage, row["Image name"].strip(), votes

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Item]:
        for usage, name, votes in self._rows:
            relative = f"{FOLDERS[usage]}/{name}"
            label, why, soft = majority(votes)
            source_label = "/".join(map(str, votes))
            yield Item(
                f"ferplus:{relative}",
                FilePicture(self.root / relative),
                SPLIT_NAMES[usage],
                source_label,
                label,
                why,
                soft,
            )

    def content_hash(self) -> str:
        """Hash of the vote table and of all pictures."""
        files = [self.root / TABLE, *(self.root / FOLDERS[usage] / name for usage, name, _ in self._rows if name)]
        return hash_files(self.root, files)
