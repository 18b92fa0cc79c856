"""What an index says of itself: the documents in `audit.json` and `provenance.json`."""

from __future__ import annotations

from typing import NotRequired, TypedDict

Counts = dict[str, int]
"""By name: a split or `total`, a reason, a source …"""


class Finding(TypedDict):
    """What looks wrong: `count` images, classes or groups that the `rule` names."""

    what: str
    count: int
    rule: str
    examples: list[str]


class Absent(TypedDict):
    """Splits without rows, and by split the classes of which it has none."""

    splits: list[str]
    classes: dict[str, list[str]]


class Minority(TypedDict):
    """The minority classes, and their share by split."""

    classes: list[str]
    share: dict[str, float]


class AttributeCounts(TypedDict):
    """Rows that have an attribute, and for each of its values those of each class; words where the values are many."""

    rows: int
    values: dict[str, Counts] | str


class OfficialLeaks(TypedDict):
    """Groups that cross the sources' own splits, and official val and test rows whose group is in train too."""

    groups_crossing_official_splits: int
    official_rows_also_in_train: Counts


class IdenticalCounts(OfficialLeaks):
    """Groups of pixel-identical rows."""

    identical_groups: int
    pictures_in_groups: int
    groups_with_conflicting_labels: int


class NearCounts(OfficialLeaks):
    """Clusters of near-duplicate images."""

    pairs: int
    clusters: int
    pictures: int
    largest: int
    groups_with_conflicting_labels: int


class Audit(TypedDict):
    """All counts of an index that was built of sources."""

    rows: int
    suspicious: list[Finding]
    source_rows: Counts
    distribution: dict[str, dict[str, float]]
    totals: Counts
    absent: Absent
    minority: Minority
    by_source: dict[str, Counts]
    by_license: dict[str, Counts]
    by_attribute: dict[str, AttributeCounts]
    licenses: list[str]
    with_votes: int
    groups: int
    groups_on_two_sides: int
    subjects_on_two_sides: int
    duplicates: IdenticalCounts
    near_duplicates: NearCounts
    moved: Counts
    aligned: Counts
    relabelled: int
    dropped: Counts
    rejected: Counts


class LabelsAudit(TypedDict):
    """Counts of an index that has the labels of one source of another index."""

    labels: str
    distribution: dict[str, Counts]
    totals: Counts
    left_out: int
    labelled_otherwise: int


class SourceDescription(TypedDict):
    """A source of an index: its name there, its kind, what was named, its rows, terms and content hash."""

    name: str
    kind: str
    what: str
    rows: int
    license: str
    content: str


# What a relabelling file changed; `from` is None where the image had no label, `to` may be `drop`.
Relabelling = TypedDict("Relabelling", {"image_id": str, "from": str | None, "to": str})


class Provenance(TypedDict):
    """What an index was made of, and how; `labels` and `of` where it has the labels of one source of another index."""

    mien: str
    config: dict[str, object]
    sources: list[SourceDescription]
    label_rule: str
    priority: list[str]
    fallback: list[str]
    dropped: Counts
    rejected: int
    moved: int
    relabelled: list[Relabelling]
    labels: NotRequired[str]
    of: NotRequired[str]
