"""The sections on single models: settings as they were used, scores on test, each class."""

from __future__ import annotations

from mien.core.labels import LABELS
from mien.report import figures
from mien.report.blocks import Block, Figure, Number, Rounding, Section, Span, Spans, Table, Text, phrase, row
from mien.report.material import Material, listed, scores
from mien.report.node import Node, combined, estimate
from mien.report.settings import setting
from mien.report.variants import variants

# What a reader looks for first; all else that differs between runs follows in a table of its own.
_MAIN = ("backbone", "pretrained", "head", "loss", "optimizer", "lr", "epochs", "batch_size")
_NO_RESULT = {"save_every_steps", "tracker", "eval_every", "eval_raw"}  # settings that change no result


def settings(material: Material) -> Section:
    """Architectures and settings as they were really used; empty where nothing was trained here."""
    configs = {name: config["settings"] for name, config in material.configs.items() if config.get("settings")}
    section = Section("settings", "Architectures and settings")
    if not configs:
        return section
    models_by_name = {m.value["name"]: m for m in material.models}
    rows = tuple(
        row(
            models_by_name[name]["name"].quote(),
            *(setting(config[key]["value"]) for key in _MAIN),
            material.parameters(models_by_name[name]),
        )
        for name, config in configs.items()
        if name in models_by_name
    )
    head = ("run", *(key.replace("_", " ") for key in _MAIN), "parameters (M)")
    section.blocks.append(Table("main-settings", "Main settings of each run", head, rows))
    keys = [
        key
        for key in next(iter(configs.values())).value
        if key not in _NO_RESULT and all(key in c.value for c in configs.values())
    ]
    differing = [key for key in keys if len({str(c.value[key]["value"]) for c in configs.values()}) > 1]
    section.blocks += _differing(configs, [key for key in differing if key not in _MAIN])
    first = next(iter(configs.values()))
    shared = [key for key in keys if key not in differing]
    rows = tuple(row(f"`{key}`", setting(first[key]["value"]), first[key]["from"].quote()) for key in shared)
    section.blocks.append(
        Table(
            "shared-settings",
            "Settings that are the same in all runs, and where each came from",
            ("setting", "value", "from"),
            rows,
        )
    )
    return section


def _differing(configs: dict[str, Node], keys: list[str]) -> list[Block]:
    rows: list[tuple[Span | Spans, ...]] = [
        (f"`{key}`", f"`{name}`", setting(config[key]["value"]), config[key]["from"].quote())
        for key in keys
        for name, config in configs.items()
    ]
    return (
        [
            Table(
                "differing-settings",
                "Other settings that differ between runs",
                ("setting", "run", "value", "from"),
                tuple(rows),
            )
        ]
        if rows
        else []
    )


def singles(material: Material) -> Section:
    """Every model alone on test."""
    models = material.models
    best = material.study.value["selected"]["best_single"]
    strong = frozenset(i for i, m in enumerate(models) if m.value["name"] == best)
    rows = tuple(row(m["name"].quote(), *scores(m["test"]), m.at("test", "ece_floor").number()) for m in models)
    rows = tuple((*cells, _note(material, m)) for cells, m in zip(rows, models, strict=True))
    head = ("model", "accuracy", "macro-F1", "minority-F1", "ECE", "ECE floor", "note")
    more = tuple(
        row(
            m["name"].quote(),
            m["backbone"].quote(),
            material.parameters(m),
            m.at("test", "brier").number(),
            m.at("test", "nll").number(),
            m.at("calibration", "T").number(),
            *_epoch(m),
        )
        for m in models
    )
    columns: tuple[str, ...] = ("model", "backbone", "parameters (M)", "Brier", "NLL", "temperature")
    if any(m.value["training"] is not None for m in models):
        columns += ("epoch kept",)
    more = tuple(row[: len(columns)] for row in more)
    blocks: list[Block] = [
        Table(
            "single-models",
            "Single models on test, calibrated on calib",
            head,
            rows,
            strong,
            "The marked row is the best single model, fixed on val by macro-F1.",
        ),
        Table("single-models-more", "The same models: size, proper scores, temperature", columns, more, strong),
        *variants(material),
        *_as_distributed([*models, *material.joined]),
    ]
    return Section("single-models-section", "Single models", blocks)


def _note(material: Material, model: Node) -> Spans:
    """A note on a single model: its role, and the epoch whose weights it has."""
    role = {material.study.value["selected"]["best_single"]: "best single model on val; "}
    student = material.student is not None and model.value["name"] == material.student.value["name"]
    words = "student; " if student else role.get(model.value["name"], "")
    if model.value["training"] is None:
        return (f"{words}trained elsewhere",)
    early = ", an early peak" if model.value["best_epoch"] <= model.value["epochs"] / 2 else ""
    return phrase(
        f"{words}weights of epoch {{}} of {{}}{early}", model["best_epoch"].number(0), model["epochs"].number(0)
    )


def _epoch(model: Node) -> tuple[Span | Spans, ...]:
    if model.value["training"] is None:
        return ("trained elsewhere",)
    return ((model["best_epoch"].number(0), " of ", model["epochs"].number(0)),)


def _as_distributed(models: list[Node]) -> list[Block]:
    """Test as its source distributes it, for comparison with published figures; nothing without official rows."""
    rows = []
    for m in models:
        distributed = m.get("test_as_distributed")
        if distributed is not None:
            cells: list[Number] = []
            for score in (m["test"], distributed):
                cells += [score["n"].count(), score["accuracy"].number(), score["macro_f1"].number()]
            rows.append(row(m["name"].quote(), *cells, distributed["left_out"].count()))
    if not rows:
        return []
    head = (
        "model",
        "distinct images",
        "accuracy",
        "macro-F1",
        "rows as distributed",
        "accuracy there",
        "macro-F1 there",
        "left out",
    )
    note = (
        "As distributed: every official test row with its own label, repeats included; "
        "left out are rows whose image has no majority label."
    )
    return [
        Table(
            "as-distributed",
            "Test as this index has it, and as its source distributes it",
            head,
            tuple(rows),
            note=note,
        )
    ]


def _taken_for(counts: Node, most: int = 5) -> Spans:
    """The confusions that take the largest shares of a label's images: `counts` (k, k), labels down, names across."""
    confusions = []
    for i, label in enumerate(LABELS):
        whole = sum(counts.value[i])
        for j, name in enumerate(LABELS):
            if i != j and counts.value[i][j]:
                others = [counts[i][k] for k in range(len(LABELS)) if k != j]
                share = combined("share", [counts[i][j], *others], Rounding(0, 100))
                confusions.append((counts.value[i][j] / whole, (f"{label} called {name} (", share, " per cent of it)")))
    confusions.sort(key=lambda entry: -entry[0])
    parts: list[Span | Spans] = [words for _, words in confusions[:most]]
    return ("Most often confused: ", *listed(parts), ".") if parts else ()


def classes(material: Material) -> Section:
    """F1 of each class, and which classes are taken for which."""
    chosen, models = material.chosen, material.models
    f1, counts = chosen.at("test", "per_class_f1"), chosen.at("test", "confusion")
    rows = tuple(row(name, _class_f1(chosen, name)) for name in LABELS)
    all_rows = tuple(
        row(m["name"].quote(), *(m.at("test", "per_class_f1", name).number() for name in LABELS))
        for m in [*models, *material.joined]
    )
    confusion = tuple(row(name, *(counts[i][j].count() for j in range(len(LABELS)))) for i, name in enumerate(LABELS))
    compared = {chosen.value["name"]: chosen} | {m.value["name"]: m for m in models}
    weakest, best = (pick(LABELS, key=lambda name: float(f1.value[name])) for pick in (min, max))
    blocks: list[Block] = [
        Text(
            (
                f"Of the adopted model {best} is the strongest class, F1 ",
                f1[best].number(),
                f", and {weakest} the weakest, F1 ",
                f1[weakest].number(),
                ". ",
                *_taken_for(counts),
            )
        ),
        Table("per-class-f1", ("F1 of each class on test, ", chosen["name"].quote()), ("class", "F1"), rows),
        Table("per-class-f1-all", "F1 of each class on test, all models", ("model", *LABELS), all_rows),
        Figure(
            "class-f1",
            "F1 of each class on test, with intervals",
            figures.class_f1(
                {n: m.value["test"]["per_class_f1"] for n, m in compared.items()},
                {n: m.value["test"]["ci95"] for n, m in compared.items()},
            ),
            "Bars: F1 by class, a colour a model",
            "per-class-f1-all",
        ),
        Table(
            "confusion",
            ("Confusion of the adopted model on test: rows are labels, columns what it said",),
            ("label", *LABELS),
            confusion,
        ),
        *_confusion_less(material),
        Figure(
            "confusions",
            "Per cent of each label's test images that get each name",
            figures.confusions({n: m.value["test"]["confusion"] for n, m in compared.items()}),
            "Confusion matrices, a panel a model",
            _confusions(compared),
        ),
    ]
    return Section("classes", "Classes", blocks)


def _class_f1(model: Node, name: str) -> Span:
    ends = model.at("test", "ci95").get(f"f1_{name}")
    value = model.at("test", "per_class_f1", name)
    return value.number() if ends is None else estimate(value, ends)


def _confusion_less(material: Material) -> list[Block]:
    """Where the adopted model names classes differently from the best single one; nothing where they are the same."""
    chosen, single = material.chosen, material.best_single
    if chosen.value["name"] == single.value["name"]:
        return []
    cells = range(len(LABELS))
    pair = (chosen.at("test", "confusion"), single.at("test", "confusion"))
    rows = tuple(
        row(name, *(combined("difference", [c.at(i, j) for c in pair], Rounding(0, style="signed")) for j in cells))
        for i, name in enumerate(LABELS)
    )
    names = (chosen["name"].quote(), single["name"].quote())
    behind = Table(
        "confusion-less", phrase("Test images by label and name: {} less {}", *names), ("label", *LABELS), rows
    )
    caption = phrase("What {} names otherwise than {}, in test images: on the diagonal more is better", *names)
    drawing = figures.confusion_less(*(c.value for c in pair))
    return [
        Figure("confusion-difference", caption, drawing, "A matrix of labels and names: differences of counts", behind)
    ]


def _confusions(models: dict[str, Node]) -> Table:
    rows = tuple(
        row(m["name"].quote(), name, *(m.at("test", "confusion", i, j).count() for j in range(len(LABELS))))
        for m in models.values()
        for i, name in enumerate(LABELS)
    )
    return Table("confusion-all", "Test images by label and what each model said", ("model", "label", *LABELS), rows)
