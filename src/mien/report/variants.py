"""Several trainings of one network beside each other: what was changed, and its effect."""

from __future__ import annotations

from mien.report.blocks import Block, Heading, Items, Span, Spans, Table, phrase, row
from mien.report.decision import difference
from mien.report.material import Material, excludes_zero, listed
from mien.report.node import Node, named
from mien.report.settings import setting


def variants(material: Material) -> list[Block]:
    """Every training of a network that was trained before with other settings; nothing where none was."""
    entries = material.study.get("variants")
    if not entries:
        return []
    models = {m.value["name"]: m for m in material.study["teachers"]}
    rows: list[tuple[Span | Spans, ...]] = []
    first_names = set()
    for entry in entries:
        first, again = (models[entry.value[key]] for key in ("first", "name"))
        if first.value["name"] not in first_names:
            first_names.add(first.value["name"])
            rows.append(_row(material, first, "first run", "it is the first"))
        rows.append(_row(material, again, _changes(entry), difference(entry, "macro_f1")))
    head = ("run", "network", "changed", "accuracy", "macro-F1", "minority-F1", "difference in macro-F1", "source")
    caption = "Trainings of one network with other settings, on test; the difference is paired, from the first"
    return [
        Heading("The same network, trained again"),
        Items(tuple(_verdict(entry) for entry in entries)),
        Table("variants", caption, head, tuple(rows)),
    ]


def _row(material: Material, model: Node, changed: Span | Spans, less: Span) -> tuple[Span | Spans, ...]:
    name = model.value["name"]
    evaluation = material.evaluations.get(name)
    source = "not read" if evaluation is None else f"`{evaluation.file}`"
    scores = (model["test"].scored(key) for key in ("accuracy", "macro_f1", "minority_f1"))
    return row(model["name"].quote(), model["backbone"].quote(), changed, *scores, less, source)


def _changes(entry: Node) -> Spans:
    """Settings with their value, and in brackets the first run's."""
    parts: list[Span | Spans] = [
        (f"`{key}` ", setting(both[0]), " (", setting(both[1]), ")") for key, both in entry["differs"].items()
    ]
    return listed(parts, ", ") if parts else ("nothing",)


def _verdict(entry: Node) -> Spans:
    better = entry.at("delta", "macro_f1").value > 0
    words = "no clear difference"
    if excludes_zero(entry.at("ci95", "macro_f1")):
        words = f"{'better' if better else 'worse'} by more than chance explains"
    settings = listed([named(f"`{key}`", both) for key, both in entry["differs"].items()])
    return phrase(
        "{} differs from {} in {}: macro-F1 {}, {}.",
        entry["name"].quote(),
        entry["first"].quote(),
        settings or "nothing",
        difference(entry, "macro_f1"),
        words,
    )
