"""What a build decides of every distinct image, before its tables are written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.data.duplicates.near import Pairs
from mien.data.label_votes import VoteOutcome
from mien.data.loading.collect import Collection
from mien.data.splits import Codes


@dataclass(frozen=True)
class Moved:
    """A source's row whose image went to a stricter side than that source alone gives it."""

    row: int
    side: int
    because: int
    """A row that stands on that stricter side by itself."""


@dataclass(frozen=True)
class SourceSplit:
    """What one source by itself makes of its images; arrays have one entry an image of its own."""

    images: NDArray[np.int64]
    rows: NDArray[np.int64]
    sides: Codes
    own_sides: Codes
    official: bool
    """Whether the source states a val or test of its own."""


@dataclass
class Plan:
    """What becomes of every distinct image; arrays have one entry an image."""

    collection: Collection
    decisions: VoteOutcome
    ids: list[bytes]
    pairs: Pairs
    group: NDArray[np.int64]
    """Near-duplicate cluster, by its member with the smallest id."""
    sides: Codes
    own_sides: Codes
    """The strictest side that any source gives the image by itself, whatever it is a duplicate of."""
    kept: NDArray[np.bool_]
    why: dict[int, str]
    moved: list[Moved]
    relabelled: list[dict[str, str | None]]
