"""The section on images other than clean test ones: corrupted, of a group, of another source."""

from __future__ import annotations

from mien.report import figures
from mien.report.blocks import Block, Figure, Heading, Rounding, Section, Span, Spans, Table, Text, plain, row
from mien.report.material import WHAT, Material, listed, scores
from mien.report.node import Node, combined, estimate, named, shortened

_KEYS = ("accuracy", "macro_f1", "ece")
_GROUP_KEYS = ("accuracy", "macro_f1_present", "ece")  # a group may lack a class


def section(material: Material) -> Section:
    """Corruptions, groups, other sources and labels in doubt; what was not run names its command."""
    models_by_name = {
        m.value["name"]: m
        for m in (material.chosen, material.best_single, *([material.student] if material.student else []))
    }
    models = list(models_by_name.values())
    return Section(
        "elsewhere",
        "Robustness, groups and other sources",
        [*_corruptions(models), *_groups(models), *_transfers(material.models), *_noise(material)],
    )


def _corruptions(models: list[Node]) -> list[Block]:
    heading: list[Block] = [Heading("Corrupted images")]
    models = [m for m in models if m.get("corruptions")]
    if not models:
        return [
            *heading,
            Text(
                "Corrupted images were not tried. `mien evaluate ENS --index DIR --all --corruptions` shows blur, "
                "noise, darkness and covered faces."
            ),
        ]
    rows, changes = [], []
    for name in models[0].value["corruptions"]:
        for m in models:
            levels = m.at("corruptions", name)
            last = levels[-1]
            rows.append(
                row(WHAT.get(name, "other"), m["name"].quote(), *(level["accuracy"].number() for level in levels))
            )
            change = last.at("change", "accuracy")
            changes.append(
                row(
                    WHAT.get(name, "other"),
                    m["name"].quote(),
                    estimate(change["value"], change["ci95"], style="signed"),
                    *(last[k].number() for k in ("macro_f1", "ece", "mean_confidence")),
                )
            )
    strengths = next(iter(models[0]["corruptions"].items()))[1]
    head: tuple[Span | Spans, ...] = (
        "corruption",
        "model",
        *(("accuracy at ", level["strength"].number(0)) for level in strengths),
    )
    return [
        *heading,
        Figure(
            "corruptions",
            (
                "Accuracy on corrupted test images over strength, with intervals of the change; "
                "strength zero is the image as it is"
            ),
            figures.degradations({m.value["name"]: m.value["corruptions"] for m in models}, WHAT),
            "Accuracy over strength, a panel a corruption, a line a model",
            "corruption-accuracy",
        ),
        Table("corruption-accuracy", "Corrupted test images, five strengths", head, tuple(rows)),
        Table(
            "corruption-change",
            "At the strongest: change of accuracy from the same images unharmed, paired",
            ("corruption", "model", "change of accuracy", "macro-F1", "ECE", "mean confidence"),
            tuple(changes),
        ),
    ]


def _groups(models: list[Node]) -> list[Block]:
    blocks: list[Block] = [Heading("Groups")]
    attributes = sorted({name for m in models for name in m.value["groups"]})
    if not attributes:
        return [
            *blocks,
            Text(
                "The index has no attributes such as age or sex, so that groups cannot be compared. "
                "A source with such columns (`mien index sources`) makes it possible."
            ),
        ]
    for attribute in attributes:
        rows, gaps = [], list[Span | Spans]()
        for m in models:
            by_group = m["groups"].get(attribute)
            if by_group is None:
                continue
            for value, score in by_group["groups"].items():
                if "accuracy" in score.value:
                    rows.append(
                        row(named(value, score), m["name"].quote(), score["n"].count(), *scores(score, _GROUP_KEYS))
                    )
            if by_group.get("accuracy_gap"):
                gaps.append((m["name"].quote(), " ", by_group["accuracy_gap"].number()))
        note: Spans = (
            (
                "Largest difference in accuracy between two groups: ",
                *listed(gaps),
                ". Macro-F1 is the mean over the classes that a group has; groups of too few images are left out.",
            )
            if gaps
            else ("Macro-F1 is the mean over the classes that a group has; groups of too few images are left out.",)
        )
        if rows:
            rows.sort(key=lambda cells: plain(cells[0]))
            blocks.append(
                Table(
                    f"group-{_slug(attribute)}",
                    ("Test by ", named(attribute, models[0]["groups"])),
                    ("group", "model", "images", "accuracy", "macro-F1", "ECE"),
                    tuple(rows),
                    note=note,
                )
            )
    return blocks


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower())


def _transfers(models: list[Node]) -> list[Block]:
    heading: list[Block] = [Heading("Other sources")]
    rows = tuple(
        row(
            (*listed([s.quote() for s in t["on_sources"]]), " (", shortened(t["on"], 8), ")"),
            m["name"].quote(),
            t.at("test", "n").count(),
            _left_out(t),
            *scores(t["test"], _KEYS),
        )
        for m in models
        for t in m["transfer"]
    )
    if not rows:
        return [
            *heading,
            Text("No model was tried on the test images of another source. `mien evaluate RUN --on INDEX` does it."),
        ]
    return [
        *heading,
        Table(
            "other-sources",
            "On other sources' test images",
            ("sources (index)", "model", "images", "left out", "accuracy", "macro-F1", "ECE"),
            rows,
            note="Left out: images that the model may have seen, or that look like such.",
        ),
    ]


def _left_out(transfer: Node) -> Span:
    parts = [count for _, count in transfer["left_out"].items()]
    return combined("sum", parts, Rounding(0, style="count")) if parts else "no image"


def _noise(material: Material) -> list[Block]:
    """Whether any training treated labels in doubt."""
    treated = [
        name
        for name, config in material.configs.items()
        if config.value["settings"].get("suspects", {}).get("value") is not None
    ]
    blocks: list[Block] = [Heading("Label noise")]
    if treated:
        return [
            *blocks,
            Text(
                (
                    "Trained with labels in doubt treated: ",
                    *listed([f"`{name}`" for name in treated]),
                    ". Which labels these are stands in the suspects folder that the run's settings name.",
                )
            ),
        ]
    audit = material.index
    conflicts: Spans = (
        ()
        if audit is None
        else (
            " In this index ",
            audit.at("duplicates", "groups_with_conflicting_labels").count(),
            " groups of identical images have conflicting labels.",
        )
    )
    return [
        *blocks,
        Text(
            (
                (
                    "No training treated labels in doubt. `mien suspects --index DIR --out FOLDER --backbone cnn` "
                    "finds them."
                ),
                *conflicts,
            )
        ),
    ]
