"""`audit.json` and `provenance.json` of an index: what it holds, and what it was made of."""

from __future__ import annotations

from typing import NotRequired, TypedDict

SplitCounts = dict[str, int]
"""Images by split, and `total`."""
ClassCounts = dict[str, float]
"""Images of one class by split, `total`, and their `share` of all images."""


class Finding(TypedDict):
    """Something in an index that looks wrong."""

    what: str
    count: int
    rule: str
    examples: list[str]


class Absent(TypedDict):
    """Splits without rows, and for each other split the classes of which it has none."""

    splits: list[str]
    classes: dict[str, list[str]]


class Minority(TypedDict):
    """The minority classes, and their share of each split."""

    classes: list[str]
    share: dict[str, float]


class AttributeCounts(TypedDict):
    """Rows that have an attribute: for each of its values the rows, in all and by class, or the number of values."""

    rows: int
    values: dict[str, dict[str, int]] | str


class OfficialLeaks(TypedDict):
    """Groups that cross the sources' own splits, and official val and test rows whose group is in train too."""

    groups_crossing_official_splits: int
    official_rows_also_in_train: dict[str, int]


class IdenticalCounts(OfficialLeaks):
    """Pixel-identical images."""

    identical_groups: int
    pictures_in_groups: int
    groups_with_conflicting_labels: int


class NearDuplicateCounts(OfficialLeaks):
    """Clusters of near-duplicates."""

    pairs: int
    clusters: int
    pictures: int
    largest: int
    groups_with_conflicting_labels: int


class Audit(TypedDict):
    """`audit.json`."""

    rows: int
    suspicious: list[Finding]
    source_rows: dict[str, int]
    distribution: dict[str, ClassCounts]
    totals: SplitCounts
    absent: Absent
    minority: Minority
    by_source: dict[str, SplitCounts]
    by_license: dict[str, SplitCounts]
    by_attribute: dict[str, AttributeCounts]
    licenses: list[str]
    with_votes: int
    groups: int
    groups_on_two_sides: int
    subjects_on_two_sides: int
    duplicates: IdenticalCounts
    near_duplicates: NearDuplicateCounts
    moved: dict[str, int]
    aligned: dict[str, int]
    relabelled: int
    dropped: dict[str, int]
    rejected: dict[str, int]


class RestrictedAudit(TypedDict):
    """`audit.json` of an index that was restricted to what all its sources label, under the `labels` of one."""

    labels: str
    distribution: dict[str, SplitCounts]
    totals: SplitCounts
    left_out: int
    labelled_otherwise: int


class SourceProvenance(TypedDict):
    """A source of an index; `content` is the hash of its rows."""

    name: str
    kind: str
    what: str
    rows: int
    license: str
    content: str


class Provenance(TypedDict):
    """`provenance.json`; `labels` and `of` where an index was restricted to what all its sources label."""

    mien: str
    config: dict[str, object]
    sources: list[SourceProvenance]
    label_rule: str
    priority: list[str]
    fallback: list[str]
    dropped: dict[str, int]
    rejected: int
    moved: int
    relabelled: list[dict[str, str | None]]
    labels: NotRequired[str]
    of: NotRequired[str]
