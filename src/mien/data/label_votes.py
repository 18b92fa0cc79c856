"""What becomes of an image that several source rows show.

The rule for labels: of the sources that show it the one that comes first in the priorities decides.
Among its rows the majority label holds; without a majority, or when that source gives the image no
label, a fallback source is asked if one was named; else the image is dropped and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.core.errors import UsageError, nearest
from mien.core.labels import LABELS
from mien.data.loading.collect import Collection
from mien.data.sources import Source

NONE = -1
Rows = NDArray[np.int64]


@dataclass
class VoteOutcome:
    """The one row that each distinct image becomes. Arrays have one entry an image."""

    row: Rows
    """The source row that gave the label (or the reason why there is none)."""
    label: NDArray[np.int8]
    """Class number, -1 where the image is dropped."""
    why: dict[int, str]
    """Why images without a label have none."""
    votes: dict[int, tuple[float, ...] | None]
    """Mean votes of images that several rows of the deciding source show; None for an image that was relabelled."""
    conflict: NDArray[np.bool_]
    """Whether its rows name several classes."""
    by_source: dict[tuple[int, int], int]
    """(source, image) to the label that the source alone gives it, where it has several rows of it."""


def ranks(sources: list[Source], priority: Sequence[str]) -> NDArray[np.int16]:
    """The rank of each source: lower decides. A relabelling source comes before those whose images it labels anew."""
    aliases = [source.alias for source in sources]
    for name in priority:
        check_source(name, aliases, "--priority")
    order = list(dict.fromkeys((*priority, *aliases)))
    for source in sources:
        for older in (other.alias for other in sources if other.name in source.relabels):
            position = order.index(older)
            if not {older, source.alias} <= set(priority) and position < order.index(source.alias):
                order.remove(source.alias)
                order.insert(position, source.alias)
    return np.array([order.index(name) for name in aliases], dtype=np.int16)


def check_source(name: str, names: Sequence[str], flag: str) -> None:
    """Refuse a source that was not given."""
    if name not in names:
        raise UsageError(
            f"{flag} names {name!r}, which is no source of this index.{nearest(name, names)}",
            rule=f"Its sources: {', '.join(names)}.",
        )


def vote(labels: Sequence[int]) -> tuple[int, str]:
    """(majority label, "") of some rows' labels, or (-1, why not)."""
    counts = Counter(label for label in labels if label != NONE)
    if not counts:
        return NONE, ""
    (label, most), *others = counts.most_common()
    return (NONE, "label_conflict") if others and others[0][1] == most else (label, "")


def decide(
    collection: Collection, usable: NDArray[np.int8], rank: NDArray[np.int16], fallback: Sequence[str]
) -> VoteOutcome:
    """Apply the rule to every distinct image. `usable` are the rows' labels after filters, -1 for none."""
    names = [source.alias for source in collection.sources]
    spare = [s for name in fallback for s, alias in enumerate(names) if alias == name]
    n = len(collection.first)
    rows = np.flatnonzero(collection.image >= 0)
    rows = rows[np.lexsort((rows, rank[collection.source[rows]], collection.image[rows]))]
    bounds = np.append(np.searchsorted(collection.image[rows], np.arange(n)), len(rows))
    out = VoteOutcome(rows[bounds[:-1]].copy(), usable[rows[bounds[:-1]]].copy(), {}, {}, np.zeros(n, bool), {})
    several = np.flatnonzero(np.diff(bounds) > 1)
    texts = _Texts(collection, rows[np.isin(collection.image[rows], several)])
    for image in several.tolist():
        _decide(collection, usable, rank, spare, rows[bounds[image] : bounds[image + 1]], image, out, texts)
    lost = np.flatnonzero((out.label == NONE) & (np.diff(bounds) == 1))
    out.why.update(zip(lost.tolist(), [w or "no_label" for w in collection.texts("why", out.row[lost])], strict=True))
    return out


class _Texts:
    """What some rows say, fetched at once: a column's values one by one cost a search in all pieces each."""

    def __init__(self, collection: Collection, rows: Rows) -> None:
        self.why = dict(zip(rows.tolist(), collection.texts("why", rows), strict=True))
        self.votes = dict(zip(rows.tolist(), collection.votes(rows), strict=True))


def _decide(
    collection: Collection,
    usable: NDArray[np.int8],
    rank: NDArray[np.int16],
    spare: list[int],
    rows: Rows,
    image: int,
    out: VoteOutcome,
    texts: _Texts,
) -> None:
    source, labels = collection.source[rows], usable[rows]
    order = rank[source]
    out.conflict[image] = len(set(labels[labels != NONE].tolist())) > 1
    for number in np.unique(source).tolist():
        out.by_source[number, image] = vote(labels[source == number].tolist())[0]
    top = rows[order == order[0]]
    label, why = vote(usable[top].tolist())
    for number in spare:
        if label != NONE:
            break
        others = rows[source == number]
        if len(others) and number != int(source[0]):
            label, _ = vote(usable[others].tolist())
            top = others if label != NONE else top
    out.label[image] = label
    if label == NONE:
        out.row[image] = top[0]
        out.why[image] = why or texts.why[int(top[0])] or "no_label"
        return
    giving = top[usable[top] == label]
    out.row[image] = giving[0]
    if len(top) > 1:
        votes = [v for v in map(texts.votes.get, top.tolist()) if v is not None]
        if votes:
            out.votes[image] = tuple(float(x) for x in np.mean(votes, axis=0))


def label_name(code: int) -> str | None:
    """A class's name; None for -1."""
    return None if code == NONE else LABELS[code]
