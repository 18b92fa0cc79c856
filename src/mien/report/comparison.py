"""Two reports beside each other: the same test images, what differs in settings, data and figures."""

from __future__ import annotations

from mien.core.labels import LABELS
from mien.report import figures
from mien.report.blocks import Block, Constant, Document, Figure, Items, Section, Span, Spans, Table, Text, phrase, row
from mien.report.decision import LEVEL, difference
from mien.report.material import SPLITS, excludes_zero, scores
from mien.report.node import Node, counted, shortened
from mien.report.settings import setting


def compose_comparison(comparison: Node, first: Node, second: Node) -> Document:
    """The document of a `comparison`, whose studies are `first` and `second` (`study.json`)."""
    both = (comparison["first"].quote(), comparison["second"].quote())
    sections = [
        _outcome(comparison, first, second),
        _models(comparison),
        _settings(comparison),
        _data(comparison, first, second),
    ]
    title = f"mien: {comparison['second'].text} beside {comparison['first'].text}"
    subtitle = phrase("{} test images, the same for {} and {}", comparison["n"].count(), *both)
    return Document(title, subtitle, [s for s in sections if s.blocks])


def _outcome(comparison: Node, first: Node, second: Node) -> Section:
    """The two adopted models, paired."""
    entry = comparison["selected"]
    names = (entry["second"].quote(), comparison["second"].quote(), entry["first"].quote(), comparison["first"].quote())
    less = difference(entry, "macro_f1")
    clear = "includes zero, so that these images do not show a difference"
    if excludes_zero(entry.at("ci95", "macro_f1")):
        clear = "excludes zero"
    rows = []
    for study, role in ((first, "first"), (second, "second")):
        name = study.at("selected", "name").value
        chosen = next(e for e in study["ensembles"] if e.value["name"] == name)
        rows.append(
            row(
                chosen["name"].quote(),
                comparison[role].quote(),
                *scores(chosen["test"]),
                chosen.at("test", "nll").number(),
            )
        )
    head = ("adopted model", "of", "accuracy", "macro-F1", "minority-F1", "ECE", "NLL")
    blocks: list[Block] = [
        Text(phrase("Macro-F1 of {} ({}) less that of {} ({}): {}. The interval {}.", *names, less, clear)),
        Table("adopted", phrase("The adopted models on test, with {} bootstrap intervals", LEVEL), head, tuple(rows)),
        _table("adopted-paired", "Paired difference of the adopted models: second less first", [entry]),
        Text(
            (
                "Both were chosen on their own val, and test images are the same, so that the difference is paired. "
                "Reports that were opened on test before, and then changed, are optimistic."
            ),
            "note",
        ),
    ]
    return Section("outcome", "The outcome", blocks)


def _table(name: str, caption: str, entries: list[Node]) -> Table:
    head = ("model", "accuracy", "macro-F1", "minority-F1", "ECE", "Brier", "NLL", "McNemar p", "p, corrected")
    rows = []
    for entry in entries:
        label: Spans = (entry["second"].quote(),)
        if entry.value["first"] != entry.value["second"]:
            label = phrase("{} less {}", entry["second"].quote(), entry["first"].quote())
        cells = (difference(entry, key) for key in ("accuracy", "macro_f1", "minority_f1", "ece", "brier", "nll"))
        corrected: Span = (
            "one comparison" if entry.get("p_holm") is None else entry["p_holm"].number(2, style="significant")
        )
        rows.append(row(label, *cells, entry.at("mcnemar", "p").number(2, style="significant"), corrected))
    note = phrase(
        (
            "Intervals are {} paired bootstrap intervals and not corrected; p is of McNemar's test of accuracy, "
            "corrected by Holm for the number of rows."
        ),
        LEVEL,
    )
    return Table(name, caption, head, tuple(rows), note=note)


def _models(comparison: Node) -> Section:
    """Models that both have by one name."""
    entries = list(comparison["models"])
    part = Section("models", "Models of one name")
    if not entries:
        part.blocks.append(Text("No candidate has the same name in both."))
        return part
    drawn = {e.value["second"]: (e.value["delta"]["macro_f1"], *e.value["ci95"]["macro_f1"]) for e in reversed(entries)}
    clear = [e for e in entries if e.value["p_holm"] < 0.05]
    words = phrase("{} candidates have the same name in both.", counted(entries))
    if clear:
        words += phrase(
            " After correction {} of them differ in accuracy at the level of {}.",
            counted(clear),
            Constant("5 %", "level"),
        )
    else:
        words += (" After correction no pair differs in accuracy beyond chance.",)
    part.blocks += [
        Text(words),
        _table("same-name", "Paired differences on test, model by model: second less first", entries),
        Figure(
            "same-name-differences",
            "Difference in macro-F1, second less first, with intervals",
            figures.differences(drawn),
            "Dots with intervals around zero, a row a model",
            "same-name",
        ),
    ]
    return part


def _settings(comparison: Node) -> Section:
    """Settings that the two do not share."""
    part = Section("settings", "What differs in settings")
    heads = (comparison["first"].quote(), comparison["second"].quote())
    rows = tuple(
        row(f"`{e['key'].text}`", e["of"].quote(), _value(e, "first"), _value(e, "second"))
        for e in comparison["settings"]
    )
    if rows:
        part.blocks.append(Table("settings-that-differ", "Settings that differ", ("setting", "of", *heads), rows))
    else:
        part.blocks.append(Text("No setting of the studies or of models of one name differs."))
    alone = [
        phrase(
            "Only {} has: {}.",
            comparison[which].quote(),
            ", ".join(f"`{n}`" for n in comparison.at("only", which).value),
        )
        for which in ("first", "second")
        if comparison.at("only", which).value
    ]
    if alone:
        part.blocks.append(Items(tuple(alone)))
    return part


def _value(entry: Node, which: str) -> Span | Spans:
    value = entry[which]
    if isinstance(value.value, (list, tuple)):
        return (f"`{', '.join(map(str, value.value))}`" if value.value else "nothing",)
    return setting(value)


def _data(comparison: Node, first: Node, second: Node) -> Section:
    """Images of each split and class in the two indexes."""
    part = Section("data", "What differs in data")
    heads = (comparison["first"].quote(), comparison["second"].quote())
    audits = [study.get("index") for study in (first, second)]
    if any(audit is None for audit in audits):
        part.blocks.append(
            Text(
                "At least one of the two has imported predictions alone, without an index. "
                "The test images and labels were compared and are the same."
            )
        )
        return part
    a, b = (audit for audit in audits if audit is not None)
    if a.value["fingerprint"] == b.value["fingerprint"]:
        part.blocks.append(Text(("Both have the same index, ", shortened(a["fingerprint"]), "….")))
        return part
    rows = [row("source rows", a["rows"].count(), b["rows"].count())]
    rows += [row(f"images of {s}", a.at("totals", s).count(), b.at("totals", s).count()) for s in (*SPLITS, "total")]
    rows += [row(f"train images of {n}", *(x.at("distribution", n, "train").count() for x in (a, b))) for n in LABELS]
    rows.append(row("index", shortened(a["fingerprint"]), shortened(b["fingerprint"])))
    part.blocks.append(Table("data-that-differ", "The two indexes", ("what", *heads), tuple(rows)))
    return part
