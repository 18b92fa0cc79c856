"""The ICML 2013 challenge's `fer2013.csv`: emotion, 48×48 grey pixels as text, Usage.

Goodfellow et al. 2013, arXiv 1307.0414. Usage: Training is train, PublicTest val, PrivateTest test.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from mien.core.artifacts.base import sha256_file
from mien.core.errors import InputError, RejectedImage
from mien.core.labels import FER2013
from mien.data.sources.base import SPLIT_NAMES, Item, Source, SourceImage

SIDE = 48
_RULE = "fer2013.csv has the columns emotion, pixels, Usage (kaggle's icml_face_data.csv too)."


@dataclass(frozen=True)
class PixelText(SourceImage):
    """An image as 2,304 numbers in a text."""

    text: str

    def read(self) -> bytes:
        """Nothing: the table holds it."""
        return b""

    def decode(self, data: bytes, *, min_side: int, max_pixels: int) -> NDArray[np.uint8]:
        """Parse it; raises `RejectedImage` (a damaged row is `truncated`)."""
        if not self.text:
            raise RejectedImage("empty", "no pixels")
        try:
            values = np.array(self.text.split(" "), dtype=np.int16)
        except (ValueError, OverflowError):
            raise RejectedImage("truncated", "pixels are no numbers") from None
        if values.shape != (SIDE * SIDE,) or values.min() < 0 or values.max() > 255:
            raise RejectedImage("truncated", f"{len(values)} values, {SIDE * SIDE} from 0 to 255 expected")
        return values.astype(np.uint8).reshape(SIDE, SIDE, 1)


class Fer2013(Source):
    """FER2013 with its own labels."""

    name = "fer2013"
    license = "FER2013: web images gathered for research; no redistribution right known"
    form = "fer2013=PATH/fer2013.csv"
    get = (
        "kaggle.com, challenge 'Representation Learning: Facial Expression Recognition' (an account that accepts its "
        "rules)"
    )

    def __init__(self, where: str, *, seed: int, size: int) -> None:
        super().__init__(where, seed=seed, size=size)
        self.path = Path(where) / "fer2013.csv" if Path(where).is_dir() else Path(where)
        if not self.path.is_file():
            raise InputError(
                f"No file {self.path}.", rule="FER2013 is one CSV file.", fix="Name it: --source fer2013=…/fer2013.csv."
            )
        self._table = self._read()

    def _read(self) -> pa.Table:
        options = pacsv.ConvertOptions(strings_can_be_null=False)
        read = pacsv.ReadOptions(block_size=1 << 24)
        try:
            table = pacsv.read_csv(self.path, read_options=read, convert_options=options)
        except pa.ArrowInvalid as error:
            raise InputError(f"{self.path} is no CSV table: {str(error).splitlines()[0]}.", rule=_RULE) from None
        table = table.rename_columns([name.strip() for name in table.column_names])
        if any(table.column_names.count(name) != 1 for name in ("emotion", "pixels", "Usage")):
            columns = ", ".join(table.column_names[:8])[:120]
            raise InputError(f"{self.path} is not FER2013: its columns are {columns}.", rule=_RULE)
        if not pa.types.is_integer(table["emotion"].type) or not pa.types.is_string(table["pixels"].type):
            raise InputError(
                f"{self.path} is not FER2013: emotion is {table['emotion'].type}, pixels {table['pixels'].type}.",
                rule=_RULE,
            )
        _check_column(self.path, "emotion", table["emotion"].to_pylist(), set(FER2013))
        usages = [str(value).strip().lower() for value in table["Usage"].to_pylist()]
        _check_column(self.path, "Usage", usages, {"training", "publictest", "privatetest"})
        return table

    def __len__(self) -> int:
        return len(self._table)

    def pixels(self) -> list[PixelText]:
        """Every row's image."""
        return [PixelText(text) for text in self._table["pixels"].to_pylist()]

    def __iter__(self) -> Iterator[Item]:
        row = 0
        for batch in self._table.select(["emotion", "pixels", "Usage"]).to_batches(max_chunksize=4096):
            for emotion, pixels, usage in zip(*(batch.column(i).to_pylist() for i in range(3)), strict=True):
                label = FER2013[emotion]
                yield Item(
                    f"fer2013:{self.path.name}#{row}",
                    PixelText(pixels),
                    SPLIT_NAMES[usage.strip().lower()],
                    str(emotion),
                    label,
                )
                row += 1

    def hash_table(self) -> str:
        """Hash of the file, which holds the images too."""
        return sha256_file(self.path)


def _check_column(path: Path, name: str, values: Sequence[object], allowed: Collection[object]) -> None:
    for row, value in enumerate(values):
        if value not in allowed:
            raise InputError(
                f"{path}, row {row}: {name} is {value!r}.",
                rule=f"{name} is one of {', '.join(map(str, sorted(allowed, key=str)))}.",
            )
