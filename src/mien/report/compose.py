"""A study's figures as a document: no table is left to be filled in."""

from __future__ import annotations

from typing import Any

import numpy as np

from mien.core.labels import LABELS, MINORITY
from mien.report import elsewhere, figures, judging, sections
from mien.report.blocks import Block, Document, Figure, Section, Table, Text
from mien.report.study_view import HEADLINE, SPLITS, chosen_of, fixed, is_synthetic, models_of, parameters_of, with_ci


def compose(
    study: dict[str, Any],
    histories: dict[str, list[dict[str, Any]]],
    evaluations: dict[str, dict[str, Any]],
    sheet: dict[str, np.ndarray[Any, Any]] | None,
) -> Document:
    """The document of a finished study.

    `histories` are epochs of each run, `evaluations` the test results of each model by its name,
    `sheet` pictures of each class where showing them is allowed (drawn faces).
    """
    document = Document(f"mien: {study['name']}", _subtitle(study))
    parts = [
        _summary(study), _data(study, sheet) if study["index"] else None, sections.singles(study), judging.calibration(study, evaluations), judging.answers(study), judging.ensembles(study),
        judging.selection(study), sections.student(study) if study["student"] else None, elsewhere.section(study), sections.training(study, histories) if histories else None,
        sections.classes(study), sections.cost(study), sections.care(study),
    ]  # fmt: skip
    document.sections = [part for part in parts if part is not None and part.blocks]
    return document


def _subtitle(study: dict[str, Any]) -> str:
    revision = f"mien revision {study['git'] or 'released'}"
    if study["index"] is None:
        return f"{len(study['teachers'])} models and what can be made of them; {revision}"
    sources = ", ".join(f"{n:,} rows of {name}" for name, n in study["index"]["source_rows"].items())
    return f"{sources}; seed {study['seed']}; {revision}"


def _summary(study: dict[str, Any]) -> Section:
    chosen, best, student = chosen_of(study), study["selected"]["best_single"], study["student"]
    single = next(e for e in study["ensembles"] if e["name"] == best)
    section = Section("Summary")
    if is_synthetic(study):
        section.blocks.append(
            Text(
                "All pictures of this study are drawn by mien. Its figures show that every stage works; they say nothing about real faces.",
                "note",
            )
        )
    rows = [("selected teacher", chosen), ("best single", single)] + ([("student", student)] if student else [])
    table = tuple(
        (kind, model["name"], *(with_ci(model["test"], key) for key in HEADLINE), fixed(model["test"]["ece_floor"]))
        for kind, model in rows
    )
    table += tuple(
        (name, "–", fixed(row["accuracy"]), fixed(row["macro_f1"]), fixed(row["minority_f1"]), "–", "–")
        for name, row in study["baselines"]["test"].items()
    )
    head = ("", "model", "accuracy", "macro-F1", "minority-F1", "ECE", "ECE floor")
    n = chosen["test"]["n"]
    section.blocks += [
        Table(f"Test ({n:,} pictures), calibrated, with 95 % bootstrap intervals", head, table, frozenset({0})),
        Text(
            f"Minority-F1 is the mean F1 of {', '.join(MINORITY)}. The ECE floor is what a perfectly calibrated model would show at this number of pictures."
        ),
    ]
    shown = [*models_of(study), chosen]
    said = tuple((m["name"], text) for m in shown for text in m["warnings"])
    if said:
        section.blocks.append(Table("What to be careful with", ("model", "warning"), tuple(dict.fromkeys(said))))
    if student:
        section.blocks.append(
            Text(
                f"The student keeps {100 * student['retention_macro_f1']:.1f} % [{100 * student['retention_ci95'][0]:.1f}, {100 * student['retention_ci95'][1]:.1f}] of its teacher's macro-F1 with {student['params'] / 1e6:.2f} M parameters instead of {parameters_of(study, chosen) / 1e6:.2f} M."
            )
        )
    return section


def _data(study: dict[str, Any], sheet: dict[str, np.ndarray[Any, Any]] | None) -> Section:
    audit = study["index"]
    rows = [
        (
            name,
            *(f"{audit['distribution'][name][s]:,}" for s in SPLITS),
            f"{audit['distribution'][name]['total']:,}",
            f"{100 * audit['distribution'][name]['share']:.2f}",
        )
        for name in LABELS
    ]
    rows.append(("total", *(f"{audit['totals'][s]:,}" for s in SPLITS), f"{audit['totals']['total']:,}", "100.00"))
    shares = audit["minority"]["share"]
    rows.append(
        (
            f"share of {', '.join(MINORITY)} (%)",
            *(f"{100 * shares[s]:.2f}" for s in SPLITS),
            f"{100 * shares['total']:.2f}",
            "",
        )
    )
    sources = tuple(
        (name, *(f"{counts[s]:,}" for s in SPLITS), f"{audit['source_rows'][name]:,}")
        for name, counts in audit["by_source"].items()
    )
    dup, near = audit["duplicates"], audit["near_duplicates"]
    facts = [
        ("groups of pixel-identical pictures", f"{dup['identical_groups']:,}"),
        ("source rows in them", f"{dup['pictures_in_groups']:,}"),
        ("groups that cross the official splits", f"{dup['groups_crossing_official_splits']:,}"),
        ("official val rows whose picture also stood in train", f"{dup['official_rows_also_in_train']['val']:,}"),
        ("official test rows whose picture also stood in train", f"{dup['official_rows_also_in_train']['test']:,}"),
        ("groups with conflicting labels", f"{dup['groups_with_conflicting_labels']:,}"),
        ("clusters of near-duplicates, verified on the pixels", f"{near['clusters']:,}"),
        ("distinct pictures in them", f"{near['pictures']:,}"),
        ("clusters that cross the official splits", f"{near['groups_crossing_official_splits']:,}"),
        (
            "official val rows with a copy in train, identical or near",
            f"{near['official_rows_also_in_train']['val']:,}",
        ),
        (
            "official test rows with a copy in train, identical or near",
            f"{near['official_rows_also_in_train']['test']:,}",
        ),
        *((f"moved by their group: {what}", f"{count:,}") for what, count in audit["moved"].items()),
        ("groups on two sides of this index", f"{audit['groups_on_two_sides']:,}"),
        *((f"dropped: {reason}", f"{count:,}") for reason, count in audit["dropped"].items()),
        *((f"rejected: {reason}", f"{count:,}") for reason, count in audit["rejected"].items()),
    ]
    crop = audit["crop"]
    blocks: list[Block] = [
        Table(
            "Distinct pictures by class and split",
            ("class", *SPLITS, "total", "share (%)"),
            tuple(rows),
            frozenset({len(LABELS)}),
        ),
        Figure(
            "Composition",
            figures.composition(audit["distribution"], SPLITS),
            "Bars of pictures of each class on each split",
        ),
        Table("Sources", ("source", *SPLITS, "source rows"), sources, note="Terms: " + "; ".join(audit["licenses"])),
        Table("Duplicates, and what was left out", ("", "count"), tuple(facts)),
        Text(
            f"Every picture is packed as {crop['size']}×{crop['size']} pixels, {crop['color']}. A picture that official splits show on several sides stands on the strictest (test over val over calib over train)."
        ),
    ]
    if sheet:
        blocks.append(
            Figure(
                "Drawn faces of the train split, a row a class",
                figures.contact_sheet(sheet),
                "Rows of drawn faces, one row a class",
            )
        )
    return Section("Data", blocks)
