"""The section on data: what there is of each class and source, duplicates, and what was left out."""

from __future__ import annotations

from mien.core.labels import LABELS, MINORITY
from mien.report import figures
from mien.report.blocks import Blank, Block, Figure, Rounding, Section, Span, Spans, Table, Text
from mien.report.material import SPLITS, Material, listed
from mien.report.node import Node, combined, named


def section(material: Material) -> Section:
    """The index; empty where there is none."""
    audit = material.index
    if audit is None:
        return Section("data", "Data")
    crop = audit["crop"]
    blocks: list[Block] = [
        Text(
            (
                combined("sum", [count for _, count in audit["source_rows"].items()], Rounding(0, style="count")),
                " source rows became ",
                audit.at("totals", "total").count(),
                " distinct images; the others repeat one of these, or were left out (below). ",
                *_shares(audit),
            )
        ),
        _distribution(audit),
        Figure(
            "composition",
            "Distinct images by class, a panel a split",
            figures.composition(audit.value["distribution"], SPLITS),
            "Bars: the number of images of each class in train, val, calib and test",
            "class-distribution",
        ),
        _sources(material, audit),
        Figure(
            "sources-by-split",
            "Distinct images of each source, by split",
            figures.stacked(audit.value["by_source"], SPLITS),
            "Bars: the images of each source, cut by split",
            "sources",
        ),
        _facts(audit),
        Text(
            (
                "Every image is packed as ",
                crop["size"].count(),
                " × ",
                crop["size"].count(),
                " pixels, ",
                crop["color"].quote(),
                (
                    ". An image that official splits show in several of them stands in the strictest: "
                    "test over val over calib over train."
                ),
            )
        ),
        *_suspicious(audit),
    ]
    if material.sheet:
        blocks.append(
            Figure(
                "contact-sheet",
                "Drawn faces of the train split, a row a class",
                figures.contact_sheet(material.sheet),
                "Rows of drawn faces, one row a class",
                None,
            )
        )
    return Section("data", "Data", blocks)


def _shares(audit: Node) -> Spans:
    shares = audit.at("minority", "share")
    parts: list[Span | Spans] = [(shares[s].percent(2), f" per cent of {s}") for s in SPLITS]
    return (
        f"Minority-F1 is the mean F1 of {', '.join(MINORITY)}, which recognisers confuse most; they are ",
        *listed(parts),
        ", ",
        shares["total"].percent(2),
        " per cent of all.",
    )


def _distribution(audit: Node) -> Table:
    rows: list[tuple[Span | Spans, ...]] = []
    for name in LABELS:
        row = audit.at("distribution", name)
        rows.append((name, *(row[s].count() for s in (*SPLITS, "total")), row["share"].percent(2)))
    totals = audit["totals"]
    shares = audit.at("minority", "share")
    whole = combined("ratio", [totals["total"], totals["total"]], Rounding(2, 100))
    rows.append(("all classes", *(totals[s].count() for s in (*SPLITS, "total")), whole))
    rows.append(
        ("minority classes (%)", *(shares[s].percent(2) for s in (*SPLITS, "total")), shares["total"].percent(2))
    )
    head = ("class", *SPLITS, "total", "share (%)")
    return Table(
        "class-distribution", "Distinct images by class and split", head, tuple(rows), frozenset({len(LABELS)})
    )


def _sources(material: Material, audit: Node) -> Table:
    licenses = {}
    if material.provenance is not None:
        licenses = {entry.value["name"]: entry["license"] for entry in material.provenance["sources"]}
    rows: list[tuple[Span | Spans, ...]] = []
    for name, counts in audit["by_source"].items():
        terms = (
            licenses[name].quote()
            if name in licenses
            else Blank("not recorded", "mien index build --source NAME=WHERE --out DIR")
        )
        cells = [counts[s].count() for s in SPLITS]
        rows.append((named(name, counts), audit.at("source_rows", name).count(), *cells, terms))
    return Table("sources", "Sources, and their terms", ("source", "source rows", *SPLITS, "terms"), tuple(rows))


def _facts(audit: Node) -> Table:
    dup, near = audit["duplicates"], audit["near_duplicates"]
    rows: list[tuple[Span | Spans, ...]] = [
        ("groups of pixel-identical images", dup["identical_groups"].count()),
        ("source rows in them", dup["pictures_in_groups"].count()),
        ("such groups that cross the official splits", dup["groups_crossing_official_splits"].count()),
        ("official val rows whose image also stood in train", dup.at("official_rows_also_in_train", "val").count()),
        ("official test rows whose image also stood in train", dup.at("official_rows_also_in_train", "test").count()),
        ("groups with conflicting labels", dup["groups_with_conflicting_labels"].count()),
        ("clusters of near-duplicates, verified on the pixels", near["clusters"].count()),
        ("distinct images in them", near["pictures"].count()),
        ("clusters that cross the official splits", near["groups_crossing_official_splits"].count()),
        (
            "official val rows with a copy in train, identical or near",
            near.at("official_rows_also_in_train", "val").count(),
        ),
        (
            "official test rows with a copy in train, identical or near",
            near.at("official_rows_also_in_train", "test").count(),
        ),
        ("groups that stand in two splits of this index", audit["groups_on_two_sides"].count()),
    ]
    for key, words in (("moved", "moved by their group"), ("dropped", "dropped"), ("rejected", "rejected")):
        rows += [((f"{words}: ", named(what, count)), count.count()) for what, count in audit[key].items()]
    return Table("duplicates", "Duplicates, and what was left out", ("what", "count"), tuple(rows))


def _suspicious(audit: Node) -> list[Block]:
    findings = audit.get("suspicious")
    if not findings:
        return []
    rows = tuple((finding["what"].quote(), finding["count"].count(), finding["rule"].quote()) for finding in findings)
    return [Table("suspicious", "What looks unusual in this index", ("what", "count", "rule"), rows)]
