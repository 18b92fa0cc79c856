"""Sources to the parts of an index: load, join duplicates, split, cap, pack."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import mien
from mien.core.artifacts.index import OCCURRENCES, REJECTED, SCHEMA, IndexParts, PixelScratch
from mien.core.config.index import IndexConfig
from mien.core.errors import InputError
from mien.core.geometry import CropSpec
from mien.core.labels import LABELS
from mien.data.audit import audit
from mien.data.collect import Collection, collect
from mien.data.duplicates import Decision, decide
from mien.data.sources import Source
from mien.data.splits import assign, order_key, water_level


def build(config: IndexConfig, sources: list[Source], folder: Path) -> IndexParts:
    """Make an index's parts; the packed pixels are written below `folder`."""
    with PixelScratch(folder, config.size) as scratch:
        return _build(config, sources, folder, scratch)


def _build(config: IndexConfig, sources: list[Source], folder: Path, scratch: PixelScratch) -> IndexParts:
    found = collect(sources, scratch, size=config.size, min_side=config.min_side, max_rejected=config.max_rejected)
    decisions = {picture_id: decide(picture) for picture_id, picture in found.pictures.items()}
    kept = sorted(picture_id for picture_id, decision in decisions.items() if decision.label is not None)
    if not kept:
        raise InputError(
            "No picture with a label is left.", rule="Every row was rejected or dropped; see the sources' rules."
        )
    sides = _split(config, kept, decisions, found)
    capped = _cap(config, kept, decisions, sides)
    why = {i: decisions[i].why for i in decisions if decisions[i].label is None} | dict.fromkeys(capped, "cap")
    kept = [picture_id for picture_id in kept if picture_id not in capped]
    grey = all(found.pictures[i].grey for i in kept) if config.color == "auto" else config.color == "grey"
    scratch.pack(folder, np.array([found.pictures[i].number for i in kept], dtype=np.int64), grey=grey)
    licenses = {source.name: source.license for source in sources}
    table = _table(kept, found, decisions, sides, licenses)
    dropped = Counter(reason for picture_id, reason in why.items() for _ in found.pictures[picture_id].rows)
    return IndexParts(
        table=table,
        occurrences=_occurrences(found, decisions, why),
        rejected=pa.table(list(map(pa.array, zip(*found.rejected, strict=True))), schema=REJECTED) if found.rejected else REJECTED.empty_table(),
        audit=audit(table, found, decisions, dropped),
        provenance=_provenance(config, sources, found, dropped),
        crop=CropSpec(size=config.size, color="grey" if grey else "rgb", scale=config.crop_scale, shift_y=config.crop_shift_y),
    )  # fmt: skip


def _unit(picture_id: str, decision: Decision) -> str:
    """What may not be torn apart by a split: a subject's pictures, else the picture itself."""
    subject = decision.first.subject
    return f"subject:{subject}" if subject is not None else f"group:{picture_id[:16]}"


def _split(config: IndexConfig, kept: list[str], decisions: dict[str, Decision], found: Collection) -> dict[str, str]:
    stated: dict[str, set[str]] = {}
    for picture in found.pictures.values():
        for _, item in picture.rows:
            if item.official_split is not None:
                stated.setdefault(item.path.split(":")[0], set()).add(item.official_split)
    chosen = [decisions[i] for i in kept]
    sides = assign(
        [d.official for d in chosen],
        [_unit(i, d) for i, d in zip(kept, chosen, strict=True)],
        [str(d.label) for d in chosen],
        [d.first.path.split(":")[0] for d in chosen],
        val=config.val_fraction, test=config.test_fraction, calib=config.calib_fraction, seed=config.seed, stated=stated,
    )  # fmt: skip
    return dict(zip(kept, sides, strict=True))


def _cap(config: IndexConfig, kept: list[str], decisions: dict[str, Decision], sides: dict[str, str]) -> set[str]:
    """Train pictures beyond the caps. Only train is capped: the other sides keep their natural shares."""
    by_class: dict[str, list[str]] = {name: [] for name in LABELS}
    for picture_id in kept:
        if sides[picture_id] == "train":
            by_class[str(decisions[picture_id].label)].append(picture_id)
    limit = config.max_per_class or max(map(len, by_class.values()))
    if config.max_train is not None:
        limit = min(limit, water_level([min(len(members), limit) for members in by_class.values()], config.max_train))
    over: set[str] = set()
    for members in by_class.values():
        members.sort(key=lambda picture_id: order_key(config.seed, "cap", picture_id))
        over.update(members[limit:])
    return over


def _table(
    kept: list[str], found: Collection, decisions: dict[str, Decision], sides: dict[str, str], licenses: dict[str, str]
) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for picture_id in kept:
        decision, picture = decisions[picture_id], found.pictures[picture_id]
        source = decision.first.path.split(":")[0]
        rows.append({
            "image_id": picture_id, "path": decision.first.path, "source": source, "license": licenses[source],
            "split": sides[picture_id], "label": decision.label, "votes": decision.votes,
            "group_id": picture_id[:16], "subject_id": decision.first.subject, "phash": picture.phash,
            "width": picture.width, "height": picture.height,
        })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _occurrences(found: Collection, decisions: dict[str, Decision], why: dict[str, str]) -> pa.Table:
    rows = []
    for picture_id, picture in found.pictures.items():
        label = decisions[picture_id].label
        for _, item in picture.rows:
            rows.append({
                "image_id": picture_id, "path": item.path, "source": item.path.split(":")[0],
                "official_split": item.official_split, "source_label": item.source_label,
                "label": item.label, "kept": label is not None and picture_id not in why, "why": why.get(picture_id, ""),
            })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=OCCURRENCES)


def _provenance(config: IndexConfig, sources: list[Source], found: Collection, dropped: Counter[str]) -> dict[str, Any]:
    return {
        "mien": mien.__version__,
        "config": config.model_dump(mode="json", exclude={"source"}),
        "sources": [
            {"name": s.name, "what": s.describe(), "rows": len(s), "license": s.license, "content": s.content_hash()}
            for s in sources
        ],
        "label_rule": "the source named first decides; among its rows the majority; none: dropped",
        "dropped": dict(sorted(dropped.items())),
        "rejected": len(found.rejected),
    }
