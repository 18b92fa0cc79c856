"""AffectNet (Mollahosseini, Hasani & Mahoor, arXiv 1708.03985): both of its releases.

The folder release holds face crops; its own validation set is what the field tests on, and is `test` here:

```
ROOT/train_set/images/12.jpg   ROOT/train_set/annotations/12_exp.npy  12_val.npy  12_aro.npy  12_lnd.npy
ROOT/val_set/…
```

The manually annotated release holds whole images and tables with boxes and 68 points:

```
ROOT/Manually_Annotated_file_lists/training.csv, validation.csv  (or beside the images)
ROOT/Manually_Annotated_Images/1/….jpg
```

Contempt is none of the seven classes; `none`, `uncertain` and `no face` are no expression: such rows are
dropped and counted. The set is given to signed agreements alone, so that this adapter was tested on these
layouts filled with drawn faces, not on the set itself.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mien.core.artifacts.base import sha256_file
from mien.core.errors import InputError
from mien.core.geometry import Box
from mien.core.labels import AFFECTNET, AFFECTNET_NONE
from mien.data.sources.base import FileImage, Item, Points, Source, hash_text, inside, need_folder, what_is_in

_SETS = {"train_set": "train", "val_set": "test"}
_LISTS = {"training.csv": "train", "validation.csv": "test"}
_COLUMNS = ("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression")
_IMAGES = (
    "Manually_Annotated_Images",
    "Manually_Annotated/Manually_Annotated_Images",
    "Manually_Annotated_compressed/Manually_Annotated_Images",
    "Manually_Annotated",
    ".",
)
_LEFT_EYE, _RIGHT_EYE = slice(36, 42), slice(42, 48)  # of the 68 points (iBUG's order)
_EXPECTED = (
    "train_set and val_set with images and annotations, or Manually_Annotated_file_lists with training.csv and "
    "validation.csv"
)


@dataclass(frozen=True)
class _Row:
    name: str
    split: str
    code: int
    box: Box | None
    eyes: Points | None
    valence: str
    arousal: str


class AffectNet(Source):
    """AffectNet with valence and arousal as attributes."""

    name = "affectnet"
    license = "AffectNet: signed agreement, non-commercial research only, no redistribution"
    form = "affectnet=FOLDER"
    get = "mohammadmahoor.com/pages/databases/affectnet: an agreement that the head of a laboratory signs"

    def __init__(self, where: str, *, seed: int, size: int) -> None:
        super().__init__(where, seed=seed, size=size)
        self.root = need_folder(where, _EXPECTED)
        sets = [name for name in _SETS if (self.root / name / "annotations").is_dir()]
        lists = [p for name in _LISTS for p in sorted(self.root.glob(f"**/{name}"))[:1]]
        self._hashes: list[str] = []
        if sets:
            self._rows = [row for name in sets for row in self._folder(name)]
        elif lists:
            self._rows = [row for path in lists for row in self._table(path)]
        else:
            raise InputError(
                f"{self.root} is not AffectNet; found {what_is_in(self.root)}.", rule=f"Expected {_EXPECTED}."
            )
        if not self._rows:
            raise InputError(f"{self.root} names no images.", rule=f"Expected {_EXPECTED}.")

    def _folder(self, name: str) -> Iterator[_Row]:
        notes = self.root / name / "annotations"
        for path in sorted(notes.glob("*_exp.npy"), key=lambda p: (len(p.name), p.name)):
            stem = path.name.removesuffix("_exp.npy")
            values = {key: self._value(notes / f"{stem}_{key}.npy") for key in ("exp", "val", "aro")}
            self._hashes.append(f"{name}/{stem} {values}")
            code = self._code(values["exp"], path)
            yield _Row(f"{name}/images/{stem}.jpg", _SETS[name], code, None, None, values["val"], values["aro"])

    def _value(self, path: Path) -> str:
        """The one value of an annotation file: a number, written as text."""
        if not path.is_file():
            return ""
        try:
            array = np.load(path, allow_pickle=False)
            return str(array.reshape(-1)[0]).strip()
        except (ValueError, OSError, EOFError, IndexError) as error:
            raise InputError(
                f"{path} cannot be read: {error}.", rule="An annotation is a .npy file with one value."
            ) from None

    def _code(self, text: str, where: object) -> int:
        try:
            code = int(float(text))
        except ValueError:
            code = -1
        if code not in AFFECTNET:
            raise InputError(
                f"{where}: expression {text!r}.", rule=f"Expressions are numbers from 0 to {max(AFFECTNET)}."
            )
        return code

    def _table(self, path: Path) -> Iterator[_Row]:
        self._hashes.append(sha256_file(path))
        folder = next((f for f in _IMAGES if f != "." and (self.root / f).is_dir()), ".")
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                missing = set(_COLUMNS) - set(reader.fieldnames or ())
                if missing:
                    raise InputError(
                        f"{path} lacks the columns {', '.join(sorted(missing))}.", rule="It is AffectNet's own table."
                    )
                for number, row in enumerate(reader):
                    yield self._row(path, number, folder, row)
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path} is no table of text: {error}.", rule="It is AffectNet's own table.") from None

    def _row(self, path: Path, number: int, folder: str, row: dict[str, str]) -> _Row:
        where = f"{path}, row {number}"
        try:
            x, y, width, height = (float(row[f"face_{key}"]) for key in ("x", "y", "width", "height"))
        except (TypeError, ValueError):
            x = y = width = height = -1.0  # rows without a face have no box
        name = inside(self.root, row["subDirectory_filePath"], path)
        return _Row(
            name if folder == "." else f"{folder}/{name}",
            _LISTS[path.name],
            self._code(row["expression"], where),
            (x, y, width, height) if width > 0 and height > 0 else None,
            _eyes(row["facial_landmarks"]),
            row.get("valence") or "",
            row.get("arousal") or "",
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Item]:
        root = str(self.root)
        for row in self._rows:
            label = AFFECTNET[row.code]
            attributes = tuple(
                (key, value) for key, value in (("arousal", row.arousal), ("valence", row.valence)) if value
            )
            yield Item(
                f"affectnet:{row.name}",
                FileImage(root, row.name, row.box, row.eyes),
                row.split,
                str(row.code),
                label,
                "" if label else AFFECTNET_NONE[row.code],
                attributes=attributes,
            )

    def hash_table(self) -> str:
        """Hash of all annotations."""
        return hash_text(*self._hashes)


def _eyes(text: str | None) -> Points | None:
    """The two eyes' centres from 68 points as x;y;x;y…, None where they are not all there."""
    try:
        points = np.array([float(part) for part in (text or "").split(";") if part.strip()]).reshape(-1, 2)
    except ValueError:
        return None
    if len(points) != 68:
        return None
    centres = (points[_LEFT_EYE].mean(0), points[_RIGHT_EYE].mean(0))
    return tuple((float(x), float(y)) for x, y in centres)
