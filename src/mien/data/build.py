"""Sources to the parts of an index: load, join duplicates, decide labels, split, cap; the tables follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

import mien
from mien.core.artifacts.audit import Provenance
from mien.core.artifacts.index import IndexParts
from mien.core.artifacts.scratch import Scratch
from mien.core.config.index import IndexConfig
from mien.core.errors import InputError
from mien.core.geometry import CropSpec
from mien.data import curate, tables
from mien.data.audit.counts import audit
from mien.data.audit.suspicious import CONSTANT
from mien.data.curate import DROP
from mien.data.duplicates.near import Pairs, components, find
from mien.data.label_votes import NONE, VoteOutcome, check_source, decide, ranks
from mien.data.loading.collect import Collection, collect
from mien.data.loading.engines import Engine
from mien.data.loading.load import NO_CODE, SPLIT_CODE, Finder, Recipe
from mien.data.plan import Moved, Plan, SourceSplit
from mien.data.sources import Source
from mien.data.splits import Codes, Shares, assign, strictest

TRAIN = SPLIT_CODE["train"]


def recipe_of(config: IndexConfig, make_finder: Callable[[], Finder] | None) -> Recipe:
    """How rows are loaded."""
    crop = CropSpec(
        size=config.size,
        scale=config.crop_scale,
        shift_y=config.crop_shift_y,
        align="eyes" if config.align == "eyes" else "none",
    )
    aligns = config.align != "none"
    return Recipe(
        crop,
        "plain" if config.near_duplicates == "off" else config.near_duplicates,
        config.min_side,
        config.max_pixels,
        drop_unaligned=config.unaligned == "drop",
        make_finder=make_finder if aligns else None,
    )


def build(
    config: IndexConfig,
    sources: list[Source],
    scratch: Scratch,
    engine: Engine,
    make_finder: Callable[[], Finder] | None = None,
) -> tuple[IndexParts, Collection]:
    """An index's parts, and the rows they were made of. Pieces of work are kept in `scratch`."""
    recipe = recipe_of(config, make_finder)
    rank = ranks(sources, config.priority)
    filters = [curate.parse_filter(text) for text in config.keep]
    names = [source.alias for source in sources]
    caps = curate.parse_caps(config.max_per_source, names)
    for name in config.fallback:
        check_source(name, names, "--fallback")
    for rule in filters:
        if rule.source is not None:
            check_source(rule.source, names, "--keep")
    new_labels = curate.read_relabels(config.relabel) if config.relabel is not None else {}
    collection = collect(sources, scratch, recipe, engine, max_rejected=config.max_rejected)
    usable = collection.label.copy()
    failing = ~curate.passing(collection, filters)
    usable[failing] = NONE
    decisions = decide(collection, usable, rank, config.fallback)
    for image in list(decisions.why):
        if failing[decisions.row[image]] and collection.label[decisions.row[image]] != NONE:
            decisions.why[image] = "filter"
    ids = collection.image_ids(collection.first)
    relabels: list[dict[str, str | None]] = []
    if new_labels and config.relabel is not None:
        decisions.label, relabels = curate.relabelled(collection, decisions.label, ids, new_labels, config.relabel)
        numbers = {identity.hex(): i for i, identity in enumerate(ids)}
        for change in relabels:
            image = numbers[str(change["image_id"])]
            decisions.why.pop(image, None)
            decisions.votes[image] = None  # they belong to the old label
            if change["to"] == DROP:
                decisions.why[image] = "relabel_drop"
    if not (decisions.label != NONE).any():
        _nothing_left(collection, decisions)
    pairs = _near(config, collection, scratch, engine)
    plan = _plan(config, collection, usable, decisions, ids, pairs, caps)
    plan.relabelled = relabels
    return _parts(config, plan), collection


def _nothing_left(collection: Collection, decisions: VoteOutcome) -> None:
    """Say why no image is left."""
    lost = np.flatnonzero(collection.rejected)
    reasons = Counter(collection.texts("reason", lost)) + Counter(decisions.why.values())
    example = collection.texts("path", lost[:1] if len(lost) else decisions.row[:1])[0]
    raise InputError(
        f"No image with a label is left of {len(collection)}: "
        f"{', '.join(f'{why} {n}' for why, n in reasons.most_common())}; the first is {example}.",
        rule="An image needs one label: the majority of the rows that show it, in the source that decides.",
        fix="See docs/data.md on labels, --keep, --relabel and --fallback.",
    )


def _near(config: IndexConfig, collection: Collection, scratch: Scratch, engine: Engine) -> Pairs:
    if config.near_duplicates == "off" or all(source.distinct for source in collection.sources):
        none = np.empty(0, np.int64)
        return Pairs(none, none, np.empty(0, np.float32))
    distinct = np.array([source.distinct for source in collection.sources])
    # Images of one grey level have no useful hash: any two of them would be candidates.
    empty = collection.numbers("deviation", np.float32)[collection.first] < CONSTANT
    compared = np.flatnonzero(~distinct[collection.source[collection.first]] & ~empty)
    path = scratch.folder / "hashes.npy"
    tables.write_hashes(collection, collection.first[compared], path)
    pairs = find(
        path,
        lambda images: collection.thumbs(collection.first[compared[images]]),
        kind=config.near_duplicates,
        radius=config.near_radius,
        threshold=config.near_threshold,
        engine=engine,
        members=_members(collection, compared) if len(collection.sources) > 1 else (),
    )
    return Pairs(compared[pairs.a], compared[pairs.b], pairs.score)


def _members(collection: Collection, images: NDArray[np.int64]) -> list[NDArray[np.bool_]]:
    """For each source which of some images it shows."""
    out = []
    for number in range(len(collection.sources)):
        mask = np.zeros(len(collection.first), dtype=bool)
        mask[collection.image[(collection.source == number) & (collection.image >= 0)]] = True
        out.append(mask[images])
    return out


def _plan(
    config: IndexConfig,
    collection: Collection,
    usable: NDArray[np.int8],
    decisions: VoteOutcome,
    ids: list[bytes],
    pairs: Pairs,
    caps: dict[str, int],
) -> Plan:
    n = len(ids)
    subjects = _subject_links(collection)
    whole = components(n, *(np.concatenate([x, y]) for x, y in zip((pairs.a, pairs.b), subjects, strict=True)))
    source_splits = _split_sources(config, collection, usable, decisions, ids, pairs, subjects)
    final = np.full(n, NO_CODE, dtype=np.int8)
    own_sides = np.full(n, TRAIN, dtype=np.int8)
    deciding = collection.source[decisions.row]
    for split in source_splits:
        np.maximum.at(final, split.images, split.sides)
        np.maximum.at(own_sides, split.images, split.own_sides)
    final = strictest(final, whole)
    kept, why = decisions.label != NONE, dict(decisions.why)
    moved = _moved(whole, source_splits, final, kept)
    if config.leaks != "move":
        leaking = np.flatnonzero(
            kept & (final > own_sides) & (_official(source_splits, whole) if config.leaks == "auto" else True)
        )
        kept[leaking] = False
        why.update(dict.fromkeys(leaking.tolist(), "leak"))
    train = np.flatnonzero(kept & (final == TRAIN))
    over = train[
        curate.capped(
            decisions.label[train],
            deciding[train],
            [ids[i] for i in train.tolist()],
            names=[s.alias for s in collection.sources],
            seed=config.seed,
            max_train=config.max_train,
            max_per_class=config.max_per_class,
            per_source=caps,
        )
    ]
    kept[over] = False
    why.update(dict.fromkeys(over.tolist(), "cap"))
    group = components(n, pairs.a, pairs.b)
    return Plan(
        collection,
        decisions,
        ids,
        pairs,
        _named_by_smallest(group, ids),
        final,
        own_sides,
        kept,
        why,
        moved,
        [],
    )


def _official(source_splits: list[SourceSplit], whole: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Images (n,) whose group holds an image of a source with an official val or test."""
    out = np.zeros(int(whole.max(initial=-1)) + 1, dtype=bool)
    for split in source_splits:
        if split.official:
            out[whole[split.images]] = True
    return np.asarray(out[whole])


def _subject_links(collection: Collection) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of images that show one person, enough to join all of a person's images."""
    codes = collection.codes("subject")
    rows = np.flatnonzero((codes >= 0) & (collection.image >= 0))
    if not len(rows):
        return rows, rows
    first = np.full(int(codes.max()) + 1, -1, dtype=np.int64)
    first[codes[rows[::-1]]] = collection.image[rows[::-1]]
    return collection.image[rows], first[codes[rows]]


def _split_sources(
    config: IndexConfig,
    collection: Collection,
    usable: NDArray[np.int8],
    decisions: VoteOutcome,
    ids: list[bytes],
    pairs: Pairs,
    subjects: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> list[SourceSplit]:
    """For each source its images, their sides and own sides."""
    shares = Shares(config.val_fraction, config.test_fraction, config.calib_fraction, config.seed)
    out = []
    for number in range(len(collection.sources)):
        rows = np.flatnonzero((collection.source == number) & (collection.image >= 0))
        images, first, inverse = np.unique(collection.image[rows], return_index=True, return_inverse=True)
        official = np.full(len(images), NO_CODE, dtype=np.int8)
        np.maximum.at(official, inverse, collection.official[rows])
        labels = usable[rows[first]].copy()
        for local, image in enumerate(images.tolist()):
            if (number, image) in decisions.by_source:
                labels[local] = decisions.by_source[number, image]
        links = [_within(images, *link) for link in ((pairs.a, pairs.b), subjects)]
        units = components(len(images), *(np.concatenate(side) for side in zip(*links, strict=True)))
        sides, own_sides = assign(official, units, [ids[i] for i in images.tolist()], labels, shares)
        out.append(SourceSplit(images, rows[first], sides, own_sides, bool((official > SPLIT_CODE["calib"]).any())))
    return out


def _within(
    images: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Those pairs of which both lie in `images` (ascending), as positions in it."""
    positions = [np.minimum(np.searchsorted(images, x), len(images) - 1) if len(images) else x[:0] for x in (a, b)]
    if not len(images) or not len(a):
        return a[:0], b[:0]
    both = (images[positions[0]] == a) & (images[positions[1]] == b)
    return positions[0][both], positions[1][both]


def _named_by_smallest(group: NDArray[np.int64], ids: Sequence[bytes]) -> NDArray[np.int64]:
    """Each cluster by its member with the smallest id: a name that does not depend on the sources' order."""
    out = np.arange(len(group))
    members = np.flatnonzero(np.bincount(group, minlength=len(group))[group] > 1)
    best: dict[int, int] = {}
    for image in members.tolist():
        head = int(group[image])
        if head not in best or ids[image] < ids[best[head]]:
            best[head] = image
    out[members] = [best[int(group[image])] for image in members.tolist()]
    return out


def _moved(
    whole: NDArray[np.int64], source_splits: list[SourceSplit], final: Codes, kept: NDArray[np.bool_]
) -> list[Moved]:
    """Every source's rows whose images went to a stricter side than it gives them, in order."""
    changed = [np.flatnonzero(kept[split.images] & (final[split.images] > split.own_sides)) for split in source_splits]
    units = {
        int(u) for split, positions in zip(source_splits, changed, strict=True) for u in whole[split.images[positions]]
    }
    reason: dict[int, int] = {}
    for split in source_splits:
        standing = np.flatnonzero(split.own_sides == final[split.images])
        for position in standing[np.isin(whole[split.images[standing]], list(units))].tolist():
            reason.setdefault(int(whole[split.images[position]]), int(split.rows[position]))
    return [
        Moved(int(split.rows[i]), int(split.own_sides[i]), reason[int(whole[split.images[i]])])
        for split, positions in zip(source_splits, changed, strict=True)
        for i in positions.tolist()
    ]


def _parts(config: IndexConfig, plan: Plan) -> IndexParts:
    collection = plan.collection
    grey = (
        bool(collection.numbers("grey", np.bool_)[plan.decisions.row[plan.kept]].all())
        if config.color == "auto"
        else config.color == "grey"
    )
    crop = recipe_of(config, None).crop.model_copy(update={"color": "grey" if grey else "rgb"})
    counts = np.bincount(collection.image[collection.image >= 0], minlength=len(plan.ids))
    dropped = Counter(reason for image, reason in plan.why.items() for _ in range(int(counts[image])))
    keep = np.zeros(len(collection), dtype=bool)
    keep[plan.decisions.row[plan.kept]] = True
    return IndexParts(
        rows=tables.rows(plan, keep),
        occurrences=tables.occurrences(plan),
        rejected=tables.rejected(collection),
        duplicates=tables.duplicates(plan),
        moved=tables.moved(plan),
        pixels=collection.crops(keep, config.size, grey=grey),
        count=int(keep.sum()),
        audit=audit(plan, keep, dropped),
        provenance=_provenance(config, plan, dropped),
        crop=crop,
    )


def _provenance(config: IndexConfig, plan: Plan, dropped: Counter[str]) -> Provenance:
    collection = plan.collection
    order = sorted(range(len(collection.sources)), key=lambda i: int(ranks(collection.sources, config.priority)[i]))
    return {
        "mien": mien.__version__,
        "config": config.model_dump(mode="json", exclude={"source", "relabel", "detector_model"}),
        "sources": [
            {
                "name": s.alias,
                "kind": s.name,
                "what": s.describe(),
                "rows": len(s),
                "license": s.license,
                "content": content,
            }
            for s, content in zip(collection.sources, collection.content, strict=True)
        ],
        "label_rule": (
            "the first of these sources that shows an image decides; among its rows the majority; none: the fallback, "
            "or dropped"
        ),
        "priority": [collection.sources[i].alias for i in order],
        "fallback": list(config.fallback),
        "dropped": dict(sorted(dropped.items())),
        "rejected": int(collection.rejected.sum()),
        "moved": len(plan.moved),
        "relabelled": plan.relabelled,
    }
