"""ExpW, Expression in the Wild (Zhang, Luo, Loy & Tang, arXiv 1609.06426): 91,793 faces in larger images.

```
ROOT/label.lst (or ROOT/data/label/label.lst)
ROOT/origin/….jpg (or ROOT/image/origin, ROOT/data/image/origin)
```

A line of `label.lst`: image name, face id, top, left, right, bottom, confidence, label, with FER2013's
numbers. A face is its box; one image may show several. The set states no split. The set's terms
allow research only, and it was not at hand: this adapter was tested on this layout filled with drawn faces.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mien.core.artifacts.base import sha256_file
from mien.core.errors import InputError
from mien.core.geometry import Box
from mien.core.labels import EXPW
from mien.data.sources.base import FileImage, Item, Source, inside, need_folder, what_is_in

_TABLES = ("label.lst", "label/label.lst", "data/label/label.lst")
_IMAGES = ("origin", "image/origin", "data/image/origin", "image")
_EXPECTED = f"{_TABLES[0]} and {_IMAGES[0]} (or {_TABLES[2]} and {_IMAGES[2]})"


class ExpW(Source):
    """ExpW; every row is a box in an image."""

    name = "expw"
    license = "ExpW: for research, as its owners state; no redistribution right known"
    form = "expw=FOLDER"
    get = "mmlab.ie.cuhk.edu.hk/projects/socialrelation: download by its terms"

    def __init__(self, where: str, *, seed: int, size: int) -> None:
        super().__init__(where, seed=seed, size=size)
        self.root = need_folder(where, _EXPECTED)
        table = next((p for name in _TABLES if (p := self.root / name).is_file()), None)
        folder = next((name for name in _IMAGES if (self.root / name).is_dir()), None)
        if table is None or folder is None:
            raise InputError(f"{self.root} is not ExpW; found {what_is_in(self.root)}.", rule=f"Expected {_EXPECTED}.")
        self._path = table
        self._rows = list(self._read(table, folder))

    def _read(self, table: Path, folder: str) -> Iterator[tuple[str, str, Box, str, int]]:
        for number, line in enumerate(table.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            parts = line.split()
            if not parts:
                continue
            try:
                name, face = parts[0], parts[1]
                top, left, right, bottom = (float(part) for part in parts[2:6])
                confidence, label = float(parts[6]), int(parts[7])
            except (ValueError, IndexError):
                raise InputError(
                    f"{table}, line {number}: {line[:80]!r}.",
                    rule="A line is name, face id, top, left, right, bottom, confidence, label.",
                ) from None
            if label not in EXPW or len(parts) != 8:
                raise InputError(f"{table}, line {number}: {line[:80]!r}.", rule="Labels are numbers from 0 to 6.")
            yield (
                f"{folder}/{inside(self.root, name, table)}",
                face,
                (left, top, right - left, bottom - top),
                f"{confidence:g}",
                label,
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Item]:
        root = str(self.root)
        for name, face, box, confidence, label in self._rows:
            yield Item(
                f"expw:{name}#{face}",
                FileImage(root, name, box),
                None,
                str(label),
                EXPW[label],
                attributes=(("confidence", confidence),),
            )

    def hash_table(self) -> str:
        """Hash of the table."""
        return sha256_file(self._path)
