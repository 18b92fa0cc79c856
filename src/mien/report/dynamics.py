"""The section on trainings: curves, early peaks, divergence, cost."""

from __future__ import annotations

from mien.core.artifacts.run import best_epoch, validated_epochs
from mien.core.labels import LABELS
from mien.report import figures
from mien.report.blocks import Block, Figure, Items, Rounding, Section, Span, Spans, Table, Text, row
from mien.report.material import Material
from mien.report.node import Node, combined


def section(material: Material) -> Section:
    """Every training that ran here; empty where none did."""
    models = [m for m in material.models if m.value["training"] is not None and m.value["name"] in material.histories]
    part = Section("training", "Training dynamics")
    if not models:
        return part
    histories = {m.value["name"]: material.histories[m.value["name"]] for m in models}
    plain = {name: h.value for name, h in histories.items()}
    part.blocks += [
        *_events(models),
        Items(tuple(_in_words(m, histories[m.value["name"]]) for m in models)),
        Table(
            "peaks",
            "Trainings: val macro-F1 at its peak, whose weights are kept, and at the end",
            ("run", "peak", "at epoch", "of", "at the end", "fall since", "raw weights at the peak"),
            tuple(_peak(m, histories[m.value["name"]]) for m in models),
            note=(
                "Kept and evaluated are the moving averages of the weights, where a run has them; "
                "the last column is what the weights themselves scored."
            ),
        ),
        Figure(
            "training-curves",
            "Training curves: loss, val macro-F1, learning rate and margin over epochs",
            figures.curves(plain),
            "Four panels over epochs, a line a run: training loss, val macro-F1, learning rate, margin",
            _epochs(histories),
        ),
        *_class_curves(histories),
        Table(
            "training-cost",
            "Cost of the trainings",
            ("run", "steps", "precision", "device", "processes", "seconds"),
            tuple(_cost(m) for m in models),
        ),
    ]
    return part


def _line(history: Node, epoch: int) -> Node:
    return next(line for line in history if line.value["epoch"] == epoch)


def _ends(history: Node) -> tuple[Node, Node]:
    """The epochs whose weights are kept and with which val was validated last."""
    best, last = best_epoch(history.value), validated_epochs(history.value)[-1]
    return _line(history, best["epoch"]), _line(history, last["epoch"])


def _peak(model: Node, history: Node) -> tuple[Span | Spans, ...]:
    best, last = _ends(history)
    raw = best.get("val_raw")
    peak, end = best.at("val", "macro_f1"), last.at("val", "macro_f1")
    fall = combined("difference", [peak, end], Rounding())
    return (
        model["name"].quote(),
        peak.number(),
        best["epoch"].number(0),
        model["epochs"].number(0),
        end.number(),
        fall,
        "the same" if raw is None else raw["macro_f1"].number(),
    )


def _in_words(model: Node, history: Node) -> Spans:
    """Whether a run peaked early, and what it lost since."""
    best, last = _ends(history)
    epochs, epoch = model.value["epochs"], best.value["epoch"]
    name: Spans = (model["name"].quote(), " ")
    if epoch >= last.value["epoch"]:
        return (*name, "was best at its last epoch; whether more epochs would help was not tried.")
    fall = combined("difference", [best.at("val", "macro_f1"), last.at("val", "macro_f1")], Rounding())
    early = "peaked early, at epoch " if epoch <= epochs / 2 else "was best at epoch "
    return (
        *name,
        early,
        best["epoch"].number(0),
        " of ",
        model["epochs"].number(0),
        ", and lost ",
        fall,
        " of macro-F1 on val by the end. The weights of that epoch are kept.",
    )


def _events(models: list[Node]) -> list[Block]:
    blocks: list[Block] = []
    for model in models:
        for event in model.at("training", "events"):
            blocks.append(
                Text(
                    (
                        model["name"].quote(),
                        ", ",
                        event["kind"].quote(),
                        ": ",
                        event["text"].quote(),
                        ". The best weights before were kept.",
                    ),
                    "warning",
                )
            )
    return blocks or [Text("No training diverged or collapsed.")]


def _epochs(histories: dict[str, Node]) -> Table:
    rows = []
    for name, history in histories.items():
        for line in history:
            validated = line.get("val")
            score = "not validated" if validated is None else validated["macro_f1"].number()
            rows.append(
                row(
                    f"`{name}`",
                    line["epoch"].number(0),
                    line["train_loss"].number(),
                    score,
                    line["lr"].number(2, style="significant"),
                    line["margin"].number(),
                )
            )
    return Table(
        "epochs",
        "Epochs of each run",
        ("run", "epoch", "training loss", "val macro-F1", "learning rate", "margin"),
        tuple(rows),
    )


def _class_curves(histories: dict[str, Node]) -> list[Block]:
    whole = {
        name: h
        for name, h in histories.items()
        if all("per_class_f1" in line["val"] for line in validated_epochs(h.value))
    }
    if not whole:
        return []
    rows = tuple(
        row(f"`{name}`", line["epoch"].number(0), *(line.at("val", "per_class_f1", label).number() for label in LABELS))
        for name, history in whole.items()
        for line in history
        if "val" in line.value
    )
    return [
        Figure(
            "class-curves",
            "F1 of each class on val over epochs",
            figures.class_curves({name: h.value for name, h in whole.items()}),
            "A panel a run, a line a class: F1 on val over epochs",
            Table("class-epochs", "F1 of each class on val by epoch", ("run", "epoch", *LABELS), rows),
        )
    ]


def _cost(model: Node) -> tuple[Span | Spans, ...]:
    t = model["training"]
    return (
        model["name"].quote(),
        t["steps"].count(),
        t["precision"].quote() if t.value["precision"] != "no" else "single",
        t["device"].quote(),
        t["processes"].count(),
        t["seconds"].number(0, style="count"),
    )
