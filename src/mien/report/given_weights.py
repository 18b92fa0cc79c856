"""Ensembles whose weights were given, each beside the same members with the weights that calib allows."""

from __future__ import annotations

from mien.report.blocks import Blank, Block, Heading, Items, Span, Spans, Table, phrase, row
from mien.report.decision import difference
from mien.report.material import Material, excludes_zero
from mien.report.node import Node

_HEAD = (
    "ensemble",
    "weighting",
    "weights",
    "temperature",
    "accuracy",
    "macro-F1",
    "minority-F1",
    "ECE before",
    "ECE after",
    "ECE floor",
    "NLL",
)


def given_weights(material: Material) -> list[Block]:
    """One sentence per ensemble on its adoption, and a table; empty where all weights are equal or searched."""
    given = [e for e in material.joined if e.value["weighting"] == "fixed"]
    if not given:
        return []
    rows: list[tuple[Span | Spans, ...]] = []
    for e in given:
        members, pool = sorted(e.value["members"]), e.value["pool"]
        alike = [o for o in material.joined if sorted(o.value["members"]) == members and o.value["pool"] == pool]
        rows += [_row(material, o) for o in sorted(alike, key=lambda o: bool(o.value["weighting"] != "fixed"))]
    note = "Before and after mean without and with the temperature of the pool."
    caption = "Weights that were given, beside those of the same members that calib allows; scores on test"
    table = Table("given-weights", caption, _HEAD, tuple(dict.fromkeys(rows)), note=note)
    return [Heading("Weights that were given"), Items(tuple(_adoption(material, e) for e in given)), table]


def weights(ensemble: Node) -> Spans:
    """The weights of an ensemble's members, in their order."""
    out: list[Span] = []
    for weight in ensemble["weights"]:
        out += [" / ", weight.number(2)]
    return tuple(out[1:])


def uncalibrated_ece(material: Material, e: Node) -> Span:
    """The ECE of a pool before its temperature."""
    evaluation = material.evaluations.get(e.value["name"])
    before = None if evaluation is None else evaluation.get("test_uncalibrated")
    return Blank("not judged", "mien evaluate ENS --index DIR --all") if before is None else before["ece"].number()


def _row(material: Material, e: Node) -> tuple[Span | Spans, ...]:
    test = e["test"]
    scores = (test["accuracy"].number(), test.scored("macro_f1"), test["minority_f1"].number())
    after = (test[key].number() for key in ("ece", "ece_floor", "nll"))
    settings = (e["weighting"].quote(), weights(e), e["T"].number())
    return row(e["name"].quote(), *settings, *scores, uncalibrated_ece(material, e), *after)


def _adoption(material: Material, e: Node) -> Spans:
    """Whether it was adopted, and what it brings."""
    chosen, versus, test = material.chosen, e["vs_best_single"], e["test"]
    name, f1 = e["name"].quote(), e.at("val", "macro_f1").number()
    if e.value["name"] == chosen.value["name"]:
        words = phrase("{} was adopted: on val its macro-F1 is {}.", name, f1)
    else:
        adopted = (chosen["name"].quote(), chosen.at("val", "macro_f1").number())
        words = phrase(
            "{} was not adopted: on val its macro-F1 is {}, and that of {}, which was, is {}.", name, f1, *adopted
        )
    clear = "which chance may explain"
    if excludes_zero(versus.at("ci95", "macro_f1")):
        clear = "more than chance explains"
    return words + phrase(
        (
            " On test it has accuracy {}, macro-F1 {}, minority-F1 {}, "
            "and an ECE of {} before and {} after its temperature. Against the best single model, {}, "
            "its macro-F1 differs by {}, {}."
        ),
        *(test[key].number() for key in ("accuracy", "macro_f1", "minority_f1")),
        uncalibrated_ece(material, e),
        test["ece"].number(),
        versus["rival"].quote(),
        difference(versus, "macro_f1"),
        clear,
    )
