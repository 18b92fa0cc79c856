"""What becomes of a picture that several source rows show.

The rule for labels: the source that was named first decides. Among its rows the majority label
holds; without a majority (or when that source drops the picture) the picture is dropped and counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from mien.data.collect import Distinct
from mien.data.sources import Item
from mien.data.splits import strictest


@dataclass(frozen=True)
class Decision:
    """The one row that a distinct picture becomes; `label` is None when it is dropped, for `why`."""

    label: str | None
    why: str
    first: Item
    votes: tuple[float, ...] | None
    official: str | None
    conflict: bool


def decide(picture: Distinct) -> Decision:
    """Apply the rule to one distinct picture."""
    top = min(priority for priority, _ in picture.rows)
    rows = [item for priority, item in picture.rows if priority == top]
    sides = [item.official_split for _, item in picture.rows if item.official_split is not None]
    official = strictest(sides) if sides else None
    named = Counter(item.label for item in rows if item.label is not None)
    every = {item.label for _, item in picture.rows if item.label is not None}
    conflict = len(every) > 1
    if not named:
        return Decision(None, rows[0].why, rows[0], None, official, conflict)
    (label, most), *others = named.most_common()
    if others and others[0][1] == most:
        return Decision(None, "label_conflict", rows[0], None, official, conflict)
    first = next(item for item in rows if item.label == label)
    votes = [item.votes for item in rows if item.votes is not None]
    mean = tuple(float(v) for v in np.mean(votes, axis=0)) if votes else None
    return Decision(label, "", first, mean, official, conflict)
