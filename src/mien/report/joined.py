"""The sections on ensembles and on the selection among all candidates."""

from __future__ import annotations

from mien.report import figures
from mien.report.blocks import Block, Figure, Items, Rounding, Section, Spans, Table, Text, phrase, row
from mien.report.decision import accesses, difference
from mien.report.given_weights import given_weights, weights
from mien.report.hybrids import hybrids
from mien.report.material import Material, excludes_zero
from mien.report.node import Node, combined, shortened

_ROWS = 30  # candidates in a figure that is to fit a page


def ensembles(material: Material) -> Section:
    """Every combination, each against the best single model, and hybrids beside their CNN pairs."""
    section = Section("ensembles", "Ensembles")
    joined = material.joined
    if not joined:
        section.blocks.append(
            Text("There is one model, so that nothing was joined. `mien ensemble RUN RUN --out ENS` joins several.")
        )
        return section
    strong = frozenset(i for i, e in enumerate(joined) if e.value["name"] == material.study.value["selected"]["name"])
    settings = tuple(
        row(
            e["name"].quote(),
            e["kind"].quote(),
            e["pool"].quote(),
            weights(e),
            e["weighting"].quote(),
            e["T"].number(),
            e.at("val", "macro_f1").number(),
            e.at("val", "ece").number(),
        )
        for e in joined
    )
    head = ("ensemble", "kind", "pool", "weights", "weighting", "temperature", "val macro-F1", "val ECE")
    note = (
        "Weights and temperatures are fitted on calib; searched weights are used only where they beat equal ones on "
        "held-out folds and a score test rejects equal ones. A marked row was selected on val."
    )
    section.blocks += [
        Items(_best_of_each_kind(material)),
        *(table for kind in _kinds(joined) for table in _tested(material, kind)),
        *given_weights(material),
        *hybrids(material),
        Table(
            "combinations",
            "Every combination: how it joins its members, and its scores on val",
            head,
            settings,
            strong,
            note,
        ),
        *_against(material),
        *_differences(material),
    ]
    return section


def _kinds(joined: list[Node]) -> list[str]:
    """pair, triple …, and hybrid last."""
    return sorted({e.value["kind"] for e in joined}, key=lambda kind: (kind == "hybrid", kind))


def _best_of_each_kind(material: Material) -> tuple[Spans, ...]:
    """The gain of a second and a third model: the best of each kind on val, by its scores on test."""
    points: list[Spans] = []
    before: Node | None = material.best_single
    for kind in _kinds(material.joined):
        best = max(
            (e for e in material.joined if e.value["kind"] == kind), key=lambda e: float(e.at("val", "macro_f1").value)
        )
        words = phrase(
            "Of the {} the best on val is {}: macro-F1 {} on test, {} against the best single model",
            _plural(best),
            best["name"].quote(),
            best.at("test", "macro_f1").number(),
            difference(best["vs_best_single"], "macro_f1"),
        )
        if before is not None and before.value["name"] != material.best_single.value["name"]:
            step = combined(
                "difference", [best.at("test", "macro_f1"), before.at("test", "macro_f1")], Rounding(3, style="signed")
            )
            words = (*words, ", and ", step, " against the best of the ", *_plural(before))
        points.append((*words, "."))
        before = best if kind != "hybrid" else before
    return tuple(points)


def _plural(e: Node) -> Spans:
    """Ensembles of one kind: pairs, triples, ensembles of 4 members."""
    kind = e["kind"].quote()
    return ("ensembles of ", kind) if e.value["kind"].endswith("members") else (kind, "s")


def _tested(material: Material, kind: str) -> list[Block]:
    """Every combination of one kind on test, beside the best single model."""
    joined = [e for e in material.joined if e.value["kind"] == kind]
    strong = frozenset(i for i, e in enumerate(joined) if e.value["name"] == material.chosen.value["name"])
    rows = tuple(
        row(
            e["name"].quote(),
            weights(e),
            e.at("test", "accuracy").number(),
            e["test"].scored("macro_f1"),
            difference(e["vs_best_single"], "macro_f1"),
            e.at("test", "minority_f1").number(),
            e.at("test", "ece").number(),
            comment(material, e),
        )
        for e in joined
    )
    head = (
        "ensemble",
        "weights",
        "accuracy",
        "macro-F1",
        "difference in macro-F1",
        "minority-F1",
        "ECE",
        "comment",
    )
    rival = material.best_single["name"].quote()
    caption = phrase("On test: {}, and the difference from the best single model, {}", _plural(joined[0]), rival)
    return [Table(f"{'-'.join(kind.split())}-on-test", caption, head, rows, strong)]


def _against(material: Material) -> list[Block]:
    rows = []
    for e in material.joined:
        versus = e.get("vs_best_single")
        if versus is not None:
            cells = (difference(versus, key) for key in ("macro_f1", "minority_f1", "accuracy", "nll"))
            rows.append(row(e["name"].quote(), *cells, versus.at("mcnemar", "p").number(2, style="significant")))
    if not rows:
        return []
    head = ("ensemble", "macro-F1", "minority-F1", "accuracy", "NLL", "McNemar p")
    return [
        Table(
            "against-best-single",
            (
                "Against the best single model, ",
                material.best_single["name"].quote(),
                ", on test, paired (ensemble minus single model)",
            ),
            head,
            tuple(rows),
        )
    ]


def _differences(material: Material) -> list[Block]:
    """How the members' errors differ, and every way to join all of them; nothing for one model."""
    s = material.study["selected"]
    blocks: list[Block] = []
    if s["diversity"]:
        pairs = tuple(
            row(
                r["first"].quote(), r["second"].quote(), *(r[k].number() for k in ("disagreement", "double_fault", "q"))
            )
            for r in s["diversity"]
        )
        blocks.append(
            Table(
                "diversity",
                "How the errors of two models differ, on val",
                ("model", "other model", "disagreement", "both wrong", "Yule's Q"),
                pairs,
                note="The lower Q and the share on which both are wrong, the more a pool of the two can gain.",
            )
        )
    if s["rivals"]:
        ways = {
            "best_single": "best single",
            "equal": "equal weights",
            "nll": "weights by NLL",
            "grid": "grid by macro-F1",
            "greedy": "greedy",
            "stacking": "stacking",
        }
        rows = tuple(row(pool, *(losses[way].number(4) for way in ways)) for pool, losses in s["rivals"].items())
        blocks.append(
            Table("ways-to-join", "Held-out NLL of all models joined, on calib", ("pool", *ways.values()), rows)
        )
    return blocks


def selection(material: Material) -> Section:
    """What was selected on val, and all candidates beside each other."""
    s = material.study["selected"]
    candidates = sorted(material.ensembles, key=lambda e: -float(e.at("val", "macro_f1").value))
    rows = tuple(
        row(
            e["name"].quote(),
            e.at("val", "macro_f1").number(),
            e.at("test", "macro_f1").number(),
            e.at("test", "minority_f1").number(),
            e.at("test", "ece").number(),
            material.latency(e),
            comment(material, e),
        )
        for e in candidates
    )
    strong = frozenset(i for i, e in enumerate(candidates) if e.value["name"] == s.value["name"])
    plotted = _candidates_in_figure(candidates, s.value["name"])
    drawn = {
        e.value["name"]: (e.value["test"]["macro_f1"], *e.value["test"]["ci95"]["macro_f1"]) for e in reversed(plotted)
    }
    behind = tuple(row(e["name"].quote(), e["test"].scored("macro_f1")) for e in plotted)
    rest = () if len(plotted) == len(candidates) else (" Of ensembles those are drawn that val puts first.",)
    return Section(
        "selection",
        "Selection",
        [
            Text(
                (
                    "Selected on val: ",
                    s["name"].quote(),
                    ". ",
                    *accesses(material),
                    " The selection's hash ",
                    shortened(s["hash"]),
                    "… stands in every evaluation.",
                )
            ),
            Table(
                "comparison",
                "All candidates in the order of their macro-F1 on val, and their scores on test",
                ("model", "macro-F1 on val", "macro-F1", "minority-F1", "ECE", "latency (ms)", "comment"),
                rows,
                strong,
                (
                    "Comments speak of macro-F1 on test. Latency is the median of one image on this study's "
                    "processor, summed over members."
                ),
            ),
            Figure(
                "single-against-ensemble",
                ("Macro-F1 on test of single models and ensembles; the diamond was adopted.", *rest),
                figures.comparison(drawn, s.value["name"]),
                "Dots with intervals, a row a candidate",
                Table("comparison-intervals", "Macro-F1 on test", ("model", "macro-F1"), behind),
            ),
        ],
    )


def _candidates_in_figure(candidates: list[Node], adopted: str) -> list[Node]:
    """The candidates that fit a page: single models, the adopted one, given weights, then the best on val."""
    must = [
        len(e.value["members"]) == 1 or e.value["name"] == adopted or e.value["weighting"] == "fixed"
        for e in candidates
    ]
    room = max(0, _ROWS - sum(must))
    optional = [i for i, needed in enumerate(must) if not needed][:room]
    return [e for i, e in enumerate(candidates) if must[i] or i in optional]


def comment(material: Material, e: Node) -> Spans:
    """A comment on a candidate by its figures."""
    selected = material.study.value["selected"]
    parts = []
    if e.value["name"] == selected["name"]:
        parts.append("adopted")
    if e.value["name"] == selected["best_single"]:
        parts.append("best single model on val")
    versus = e.get("vs_best_single")
    if versus is not None:
        up, clear = versus.at("delta", "macro_f1").value > 0, excludes_zero(versus.at("ci95", "macro_f1"))
        parts.append(
            f"{'better' if up else 'worse'} than the best single model by more than chance"
            if clear
            else "no clear difference from the best single model"
        )
    return ("; ".join(parts) or "single model",)
