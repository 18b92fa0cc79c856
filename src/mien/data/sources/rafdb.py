"""RAF-DB, basic expressions (Li, Deng & Du, CVPR 2017): real-world faces with their owners' split.

```
ROOT/EmoLabel/list_patition_label.txt             train_00001.jpg 5        (so spelt; list_partition_label.txt too)
ROOT/Image/aligned/train_00001_aligned.jpg        100×100 crops, taken when they are there
ROOT/Image/original/train_00001.jpg               whole images, with
ROOT/Annotation/boundingbox/train_00001_boundingbox.txt    x0 y0 x1 y1
ROOT/Annotation/manual/train_00001_manu_attri.txt          five points (the eyes first), gender, race, age
```

The set is given to signed agreements alone, so that this adapter was tested on this layout filled with
drawn faces, not on the set itself. The codes of the attributes are those of its owners' readme as public
readers of the set quote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mien.core.artifacts.base import sha256_file
from mien.core.errors import InputError
from mien.core.geometry import Box
from mien.core.labels import RAFDB
from mien.data.sources.base import (
    Attributes,
    FileImage,
    Item,
    Points,
    Source,
    hash_text,
    inside,
    need_folder,
    what_is_in,
)

TABLES = ("list_patition_label.txt", "list_partition_label.txt")
_EXPECTED = "RAF-DB's basic folder: EmoLabel/list_patition_label.txt, Image/aligned or Image/original"
_GENDER = ("male", "female", "unsure")
_RACE = ("Caucasian", "African-American", "Asian")
_AGE = ("0-3", "4-19", "20-39", "40-69", "70+")
_POINTS = 5


class RafDb(Source):
    """RAF-DB basic with gender, race and age band where they are annotated."""

    name = "rafdb"
    license = "RAF-DB: signed agreement, non-commercial research only, no redistribution"
    form = "rafdb=FOLDER (the folder `basic`)"
    get = "whdeng.cn/RAF/model1.html: an agreement that a permanent member of an institution signs"

    def __init__(self, where: str, *, seed: int, size: int) -> None:
        super().__init__(where, seed=seed, size=size)
        self.root = need_folder(where, _EXPECTED)
        table = next((p for name in TABLES if (p := self.root / "EmoLabel" / name).is_file()), None)
        if table is None:
            raise InputError(
                f"{self.root} has no EmoLabel/{TABLES[0]}; found {what_is_in(self.root)}.",
                rule=f"Expected {_EXPECTED}.",
            )
        self.aligned = (self.root / "Image" / "aligned").is_dir()
        if not self.aligned and not (self.root / "Image" / "original").is_dir():
            raise InputError(
                f"{self.root} has neither Image/aligned nor Image/original.", rule=f"Expected {_EXPECTED}."
            )
        self._table = table
        self._rows = list(self._read(table))

    @property
    def cropped(self) -> bool:
        """Aligned images are crops; originals are not."""
        return self.aligned

    def _read(self, table: Path) -> Iterator[tuple[str, int]]:
        for number, line in enumerate(table.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            parts = line.split()
            if not parts:
                continue
            if len(parts) != 2 or not parts[1].isdigit() or int(parts[1]) not in RAFDB:
                raise InputError(
                    f"{table}, line {number}: {line!r}.", rule="A line is an image's name and a number from 1 to 7."
                )
            if not parts[0].startswith(("train", "test")):
                raise InputError(f"{table}, line {number}: {parts[0]!r}.", rule="Names begin with train or test.")
            yield inside(self.root, parts[0], table), int(parts[1])

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Item]:
        root = str(self.root)
        for name, number in self._rows:
            stem, _, suffix = name.rpartition(".")
            relative = f"Image/aligned/{stem}_aligned.{suffix}" if self.aligned else f"Image/original/{name}"
            points, attributes = self._manual(stem)
            # The annotations are in the original's pixels.
            image = FileImage(root, relative) if self.aligned else FileImage(root, relative, self._box(stem), points)
            split = "train" if name.startswith("train") else "test"
            yield Item(f"rafdb:{relative}", image, split, str(number), RAFDB[number], attributes=attributes)

    def _numbers(self, path: Path) -> list[float] | None:
        if not path.is_file():
            return None
        try:
            return [float(part) for part in path.read_text(encoding="utf-8", errors="replace").split()]
        except ValueError:
            raise InputError(
                f"{path} holds something that is no number.", rule="RAF-DB's annotations are numbers."
            ) from None

    def _box(self, stem: str) -> Box | None:
        values = self._numbers(self.root / "Annotation" / "boundingbox" / f"{stem}_boundingbox.txt")
        if values is None or len(values) < 4:
            return None
        x0, y0, x1, y1 = values[:4]
        return x0, y0, x1 - x0, y1 - y0

    def _manual(self, stem: str) -> tuple[Points | None, Attributes]:
        values = self._numbers(self.root / "Annotation" / "manual" / f"{stem}_manu_attri.txt")
        if values is None or len(values) < 2 * _POINTS:
            return None, ()
        points = tuple((values[2 * i], values[2 * i + 1]) for i in range(_POINTS))
        codes = [int(value) for value in values[2 * _POINTS : 2 * _POINTS + 3]]
        named = (("gender", _GENDER), ("race", _RACE), ("age", _AGE))
        attributes = {
            key: names[code] for (key, names), code in zip(named, codes, strict=False) if 0 <= code < len(names)
        }
        return points, tuple(sorted(attributes.items()))

    def hash_table(self) -> str:
        """Hash of the label table and of all annotations."""
        notes = sorted(p for kind in ("manual", "boundingbox") for p in (self.root / "Annotation" / kind).glob("*.txt"))
        return hash_text(str(self.aligned), sha256_file(self._table), *(f"{p.name} {sha256_file(p)}" for p in notes))
