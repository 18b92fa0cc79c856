"""Drawn faces: the embedded source that needs no licence and no network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.base import canonical
from mien.core.errors import UsageError
from mien.core.labels import LABELS
from mien.data.sources.base import Item, Source, SourceImage
from mien.synthetic.faces import PER_PERSON, draw_face

# Raise when the drawing changes, so that indexes made before are known to differ.
DRAWING = 1


@dataclass(frozen=True)
class SyntheticImage(SourceImage):
    """A face that is drawn when it is loaded."""

    seed: int
    number: int
    size: int
    label: str

    def read(self) -> bytes:
        """Nothing: its numbers say all."""
        return b""

    def decode(self, data: bytes, *, min_side: int, max_pixels: int) -> NDArray[np.uint8]:
        """Draw it."""
        return draw_face(self.seed, self.number, self.size, label=self.label).image


class Synthetic(Source):
    """`synthetic=COUNT`: that many drawn faces, equally many of each class, five of each person."""

    name = "synthetic"
    license = "CC0: drawn by mien, shows no person"
    form = "synthetic=COUNT"
    distinct = True  # drawings share their strokes, which the check on the pixels takes for one photograph
    get = "nothing to get: drawn when the index is built"

    def __init__(self, where: str, *, seed: int, size: int) -> None:
        super().__init__(where, seed=seed, size=size)
        if not where.isdigit() or not 0 < int(where) <= 10_000_000:
            raise UsageError(
                f"synthetic={where!r}.",
                rule="The synthetic source takes a count from 1 to 10,000,000.",
                fix="E.g. synthetic=7000.",
            )
        self.count = int(where)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Item]:
        for number in range(self.count):
            label = LABELS[number % len(LABELS)]
            image = SyntheticImage(self.seed, number, self.size, label)
            person = f"{self.seed}-{number // PER_PERSON}"
            yield Item(f"synthetic:{self.seed}#{number}", image, None, label, label, subject=person)

    def hash_table(self) -> str:
        """The drawing's version and parameters."""
        return canonical({"drawing": DRAWING, "seed": self.seed, "count": self.count, "size": self.size})

    def describe(self) -> str:
        """The count."""
        return f"{self.count} drawn faces, seed {self.seed}, {self.size} px"
