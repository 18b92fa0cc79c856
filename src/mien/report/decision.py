"""The first page: which model is adopted, why, how sure that is, and what must not be done with it."""

from __future__ import annotations

from mien.core.labels import LABELS, MINORITY
from mien.report.blocks import (
    Blank,
    Block,
    Constant,
    Estimate,
    Heading,
    Items,
    Rounding,
    Section,
    Span,
    Spans,
    Table,
    Text,
    phrase,
)
from mien.report.material import WHAT, Material, excludes_zero, listed, scores
from mien.report.node import Node, combined, counted, estimate, named

LEVEL = Constant("95 %", "level of the bootstrap intervals")


def section(material: Material) -> Section:
    """The decision and its reasons."""
    blocks: list[Block] = []
    if material.is_synthetic:
        blocks.append(
            Text(
                (
                    "All images of this study are drawn by mien. Its figures show that every stage works; "
                    "they say nothing about real faces."
                ),
                "note",
            )
        )
    if material.problems:
        blocks.append(
            Text(
                "Some files could not be read, and what stands in them is missing here: see the limitations.", "warning"
            )
        )
    blocks += [
        Text(("Adopted: ", material.chosen["name"].quote(), ". ", *_what_it_is(material))),
        Text(_how_good(material)),
        _table(material),
        Heading("Why this one"),
        Text(_in_short(material)),
        Text(_rule()),
        Items(tuple(line.quote() for line in material.study.at("selected", "why"))),
        *_settled(material),
        Heading("How sure is it"),
        Items(_how_sure(material)),
        Heading("What must not be done with it"),
        Items(_forbidden(material)),
    ]
    return Section("decision", "The decision", [*blocks, *_student(material)])


def _what_it_is(material: Material) -> Spans:
    chosen = material.chosen
    members = material.teachers_of(chosen)
    if len(members) == 1:
        return (
            "It is a single model with the backbone ",
            members[0]["backbone"].quote(),
            ", calibrated by ",
            members[0].at("calibration", "method").quote(),
            " scaling.",
        )
    parts: list[Span | Spans] = [
        (m.quote(), " (weight ", w.number(2), ")") for m, w in zip(chosen["members"], chosen["weights"], strict=True)
    ]
    searched = {"equal": "equal", "fixed": "given"}.get(chosen.value["weighting"], "searched")
    return (
        "It joins ",
        *listed(parts),
        " by their ",
        "log-probabilities" if chosen.value["pool"] == "logit" else "probabilities",
        " at temperature ",
        chosen["T"].number(3),
        f", with {searched} weights (",
        chosen["why"].quote(),
        ").",
    )


def _how_good(material: Material) -> Spans:
    test = material.chosen["test"]
    return (
        "On ",
        test["n"].count(),
        " test images it reaches accuracy ",
        test.scored("accuracy"),
        ", macro-F1 ",
        test.scored("macro_f1"),
        " and minority-F1 ",
        test.scored("minority_f1"),
        " (the mean F1 of ",
        ", ".join(MINORITY),
        "). Its expected calibration error is ",
        test.scored("ece"),
        "; a perfectly calibrated model would show ",
        test["ece_floor"].number(),
        " at this number of images. Brackets are ",
        LEVEL,
        " bootstrap intervals.",
    )


def _table(material: Material) -> Table:
    chosen, single, student = material.chosen, material.best_single, material.student
    kinds: list[tuple[str, Node]] = [("adopted", chosen)]
    if single.value["name"] != chosen.value["name"]:
        kinds.append(("best single model", single))
    if student is not None:
        kinds.append(("student", student))
    rows: list[tuple[Span | Spans, ...]] = [
        (m["name"].quote(), kind, *scores(m["test"]), m.at("test", "ece_floor").number()) for kind, m in kinds
    ]
    head = ("model", "role", "accuracy", "macro-F1", "minority-F1", "ECE", "ECE floor")
    return Table(
        "headline",
        ("On test, calibrated, with ", LEVEL, " bootstrap intervals"),
        head,
        tuple(rows),
        frozenset({0}),
        _guessers(material),
    )


def _guessers(material: Material) -> Spans:
    """Scores of guessing, for comparison with the rows."""
    parts: list[Span | Spans] = [
        (named(name, row), " has accuracy ", row["accuracy"].number(), " and macro-F1 ", row["macro_f1"].number())
        for name, row in material.study.at("baselines", "test").items()
    ]
    return ("For comparison, without any model: ", *listed(parts), ".")


def _in_short(material: Material) -> Spans:
    """What was compared, the adopted model's rank on val, and its cost."""
    chosen, single = material.chosen, material.best_single
    singles = [e for e in material.ensembles if len(e.value["members"]) == 1]
    joined = phrase(f" and {{}} ensemble{_s(material.joined)}", counted(material.joined)) if material.joined else ()
    first = max(material.ensembles, key=lambda e: float(e.at("val", "macro_f1").value))
    words = phrase(f"Compared were {{}} single model{_s(singles)}{{}}.", counted(singles), joined)
    val_f1 = chosen.at("val", "macro_f1").number()
    if first.value["name"] == chosen.value["name"]:
        words += phrase(" The adopted one has the highest macro-F1 on val, {}.", val_f1)
    else:
        top = (first["name"].quote(), first.at("val", "macro_f1").number())
        words += phrase(
            " On val its macro-F1 is {}; the highest, of {}, is {}. The criteria below say why it was not adopted.",
            val_f1,
            *top,
        )
    costs = (material.latency(chosen), material.latency(single))
    if chosen.value["name"] != single.value["name"] and not any(isinstance(cost, Blank) for cost in costs):
        words += phrase(" One image takes it {} ms, and the best single model {} ms.", *costs)
    return words


def _s(several: list[Node]) -> str:
    """The plural's ending."""
    return "" if len(several) == 1 else "s"


def _rule() -> str:
    return (
        "Candidates are compared on val alone, criterion by criterion in this order. "
        "A criterion removes a candidate only where it is worse by more than chance explains; "
        "what is left is settled by stability, cost and the log likelihood."
    )


# The criterion of the selection's last line, and what it says of the adopted one.
_SETTLED_BY = {
    "parameters": "it has the fewest parameters",
    "latency": "it is the fastest",
    "nll": "it has the lowest negative log likelihood on val",
    "macro_f1": "it alone is not worse in macro-F1 by more than chance",
    "minority_f1": "it alone is not worse in minority-F1 by more than chance",
    "ece": "it alone is not worse in ECE by more than chance",
    "accuracy": "it alone is not worse in accuracy by more than chance",
    "stability over seeds": "it alone varies no more over seeds than chance explains",
}


def _settled(material: Material) -> list[Block]:
    """What decided in the end, in a sentence."""
    last = str(material.study.value["selected"]["why"][-1]).split(":")[0].split(",")[0]
    if last not in _SETTLED_BY or len(material.study.value["selected"]["why"]) == 1:
        return []
    name = material.chosen["name"].quote()
    return [
        Text(
            (
                "The last of them decided: of the candidates that were left, ",
                name,
                f" was adopted, as {_SETTLED_BY[last]}.",
            )
        )
    ]


def _how_sure(material: Material) -> tuple[Spans, ...]:
    chosen = material.chosen
    ends = chosen.at("test", "ci95", "macro_f1")
    half = combined("difference", [ends[1], ends[0]], Rounding(3, 0.5))
    points: list[Spans] = [
        (
            "Its macro-F1 on test is known to about ± ",
            half,
            ", for these weights: what another training would score is not in it.",
        ),
        *_against(material),
    ]
    margin = [
        e
        for e in material.ensembles
        if e.value["name"] != chosen.value["name"]
        and e.at("val", "macro_f1").value > chosen.at("val", "macro_f1").value
    ]
    if margin:
        best = max(margin, key=lambda e: float(e.at("val", "macro_f1").value))
        points.append(
            (
                "On val ",
                best["name"].quote(),
                " scores higher in macro-F1, ",
                best.at("val", "macro_f1").number(),
                " against ",
                chosen.at("val", "macro_f1").number(),
                "; the criteria above say why it was passed over.",
            )
        )
    return (*points, accesses(material))


def _against(material: Material) -> list[Spans]:
    """The adopted ensemble against the best single model, paired; or that no ensemble beat a single one."""
    versus = material.chosen.get("vs_best_single")
    if versus is None:
        joined = [e for e in material.joined if e.get("vs_best_single")]
        better = [
            e
            for e in joined
            if excludes_zero(e.at("vs_best_single", "ci95", "macro_f1"))
            and e.at("vs_best_single", "delta", "macro_f1").value > 0
        ]
        if not joined:
            return []
        if not better:
            return [
                (
                    (
                        "No combination of models is better on test by more than chance explains (macro-F1, "
                        "paired bootstrap); a single model is cheaper."
                    ),
                )
            ]
        return [
            (
                "On test ",
                *listed([e["name"].quote() for e in better]),
                " would have scored higher in macro-F1. That is not a reason to change: test decides nothing.",
            )
        ]
    compared = {"accuracy": "accuracy", "macro_f1": "macro-F1", "nll": "NLL"}
    clear = [words for key, words in compared.items() if excludes_zero(versus.at("ci95", key))]
    differences: list[Span | Spans] = [(f"{words} ", difference(versus, key)) for key, words in compared.items()]
    excluded: Spans = ("No interval excludes zero.",)
    if clear:
        excluded = (
            "The interval of " if len(clear) == 1 else "The intervals of ",
            *listed(list[Span | Spans](clear)),
            " excludes zero." if len(clear) == 1 else " exclude zero.",
        )
    return [
        (
            "Compared with the best single model, ",
            versus["rival"].quote(),
            ", on the same test images: ",
            *listed(differences),
            ". ",
            *excluded,
        )
    ]


def difference(versus: Node, key: str) -> Estimate:
    """A paired difference from the best single model, with its interval."""
    return estimate(versus.at("delta", key), versus.at("ci95", key), style="signed")


def accesses(material: Material) -> Spans:
    """How often test was opened before the selection was written, and by now."""
    opened = material.study["test_accesses"]
    before, in_all = opened["before_selection"], opened["in_all"]
    if before.value:
        first: Spans = (
            "Test was opened ",
            *_times(before),
            " before this selection was written: its figures are optimistic.",
        )
    else:
        first = ("No access to test is on record from before this selection was written.",)
    return (
        *first,
        " By now it was opened ",
        *_times(in_all),
        (
            ": once for each model under each calibration (a single model has its own, "
            "and as a candidate a second one). These scores decide nothing."
        ),
    )


def _times(node: Node) -> Spans:
    return ("once",) if node.value == 1 else (node.number(0), " times")


def _forbidden(material: Material) -> tuple[Spans, ...]:
    chosen = material.chosen
    points: list[Spans] = []
    if material.is_synthetic:
        points.append(("Do not use it on real faces: it has seen drawn ones alone.",))
    points += [
        ("Do not take its answer for what a person feels. It names an apparent expression.",),
        (
            (
                "Do not use it to infer emotions at work or in education in the EU: "
                "that is prohibited except for medical or safety reasons ("
            ),
            Constant("Regulation (EU) 2024/1689, Art. 5(1)(f)", "the law's number"),
            "). People exposed to emotion recognition must be told (",
            Constant("Art. 50(3)", "the law's number"),
            ").",
        ),
        *_below_threshold(chosen),
    ]
    weakest = min(LABELS, key=lambda name: float(chosen.value["test"]["per_class_f1"][name]))
    points.append(
        (
            f"Do not rely on it for {weakest}, its weakest class: F1 ",
            chosen.at("test", "per_class_f1", weakest).number(),
            " on test.",
        )
    )
    points += _worst_corruption(chosen)
    if material.study["terms"]:
        points.append(
            (
                "Do not pass its weights on without the terms of the data they learned from: ",
                *listed([t.quote() for t in material.study["terms"]], "; "),
                ".",
            )
        )
    return tuple(points)


def _below_threshold(chosen: Node) -> list[Spans]:
    abstain = chosen["abstain"]
    if abstain.value["threshold"] > 1 or abstain.get("accuracy_answered") is None:
        return [
            (
                (
                    "Do not take its answers without a look of your own: no threshold reaches the precision that was "
                    "asked for."
                ),
            )
        ]
    return [
        (
            "Do not take answers below a confidence of ",
            abstain["threshold"].number(),
            ". Above it ",
            abstain["coverage"].percent(),
            " per cent of the test images are answered, with accuracy ",
            abstain["accuracy_answered"].number(),
            ".",
        )
    ]


def _worst_corruption(chosen: Node) -> list[Spans]:
    corruptions = chosen.get("corruptions")
    if not corruptions:
        return []
    name, levels = min(corruptions.items(), key=lambda item: float(item[1].value[-1]["change"]["accuracy"]["value"]))
    change = levels[-1].at("change", "accuracy", "value")
    return [
        (
            f"Do not rely on it under strong {WHAT.get(name, 'corruption')}: there its accuracy changes by ",
            change.number(style="signed"),
            ".",
        )
    ]


def retention(student: Node) -> Estimate:
    """The share of its teacher's macro-F1 that the student keeps, in per cent, with its interval."""
    low, high = (student["retention_ci95"][i].percent() for i in (0, 1))
    return Estimate(student["retention_macro_f1"].percent(), low, high)


def _student(material: Material) -> list[Block]:
    student = material.student
    if student is None:
        return []
    return [
        Text(
            (
                "The student model, ",
                student["name"].quote(),
                ", keeps ",
                retention(student),
                " per cent of its teacher's macro-F1 with ",
                material.parameters(student),
                " million parameters instead of ",
                material.parameters(material.chosen),
                " million.",
            )
        )
    ]
