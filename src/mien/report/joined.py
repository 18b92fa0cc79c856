"""The sections on ensembles and on the selection among all candidates."""

from __future__ import annotations

from mien.report import figures
from mien.report.blocks import Blank, Block, Figure, Heading, Rounding, Section, Span, Spans, Table, Text, row
from mien.report.decision import accesses, difference
from mien.report.material import Material, excludes_zero, scores
from mien.report.node import Node, combined, shortened

_RESUMMARISE = "mien study STUDY.toml --out DIR"


def ensembles(material: Material) -> Section:
    """Every combination, each against the best single model, and hybrids beside their CNN pairs."""
    section = Section("ensembles", "Ensembles")
    joined = material.joined
    if not joined:
        section.blocks.append(Text("There is one model, so that nothing was joined. `mien ensemble RUN RUN --out ENS` joins several."))  # fmt: skip
        return section
    strong = frozenset(i for i, e in enumerate(joined) if e.value["name"] == material.study.value["selected"]["name"])
    made = tuple(row(e["name"].quote(), e["kind"].quote(), e["pool"].quote(), _weights(e), e["weighting"].quote(), e["T"].number(), e.at("val", "macro_f1").number(), e.at("val", "ece").number()) for e in joined)  # fmt: skip
    tested = tuple(row(e["name"].quote(), *scores(e["test"]), e.at("test", "nll").number()) for e in joined)
    section.blocks += [
        Table("combinations", "Every combination: how it joins its members, and its scores on val", ("ensemble", "kind", "pool", "weights", "weighting", "temperature", "val macro-F1", "val ECE"), made, strong,
              "Weights and temperatures are fitted on calib; searched weights are used only where they beat equal ones on held-out folds and a score test rejects equal ones. A marked row was selected on val."),
        Table("combinations-test", "Every combination on test", ("ensemble", "accuracy", "macro-F1", "minority-F1", "ECE", "NLL"), tested, strong),
        *_against(material), *_hybrids(material), *_differences(material),
    ]  # fmt: skip
    return section


def _weights(ensemble: Node) -> Spans:
    out: list[Span] = []
    for weight in ensemble["weights"]:
        out += [" / ", weight.number(2)]
    return tuple(out[1:])


def _against(material: Material) -> list[Block]:
    rows = []
    for e in material.joined:
        versus = e.get("vs_best_single")
        if versus is not None:
            cells = (difference(versus, key) for key in ("macro_f1", "minority_f1", "accuracy", "nll"))
            rows.append(row(e["name"].quote(), *cells, versus.at("mcnemar", "p").number(2, style="significant")))  # fmt: skip
    if not rows:
        return []
    head = ("ensemble", "macro-F1", "minority-F1", "accuracy", "NLL", "McNemar p")
    return [Table("against-best-single", ("Against the best single model, ", material.best_single["name"].quote(), ", on test, paired (ensemble minus single model)"), head, tuple(rows))]  # fmt: skip


def _hybrids(material: Material) -> list[Block]:
    """Each ensemble of convolutions and attention beside the same pool of its CNNs alone."""
    hybrids = [e for e in material.joined if e.value["kind"] == "hybrid"]
    if not hybrids:
        return []
    blocks: list[Block] = [Heading("Hybrids of CNN and transformer")]
    rows: list[tuple[Span | Spans, ...]] = []
    for hybrid in hybrids:
        pair = _cnn_part(material, hybrid)
        if pair is None:
            continue
        rows += [_smoothness(material, hybrid, "hybrid"), _smoothness(material, pair, "its CNNs alone")]
        if hybrid.get("mean_entropy") and pair.get("mean_entropy"):
            blocks.append(Text(_verdict(hybrid, pair)))
    if not rows:
        return []
    rows = list(dict.fromkeys(rows))
    head = ("ensemble", "role", "mean entropy on val", "minority recall on test", "macro-F1 on test", "latency (ms)")
    return [*blocks, Table("hybrids", "Hybrids beside their CNNs: do they smooth what the CNNs know?", head, tuple(rows), note="Entropy is in nats, of calibrated probabilities. Latency is the sum of the members' medians.")]  # fmt: skip


def _cnn_part(material: Material, hybrid: Node) -> Node | None:
    """The candidate of the hybrid's members that are no transformers, in the same pool."""
    from mien.core.config.recipes import is_transformer  # noqa: PLC0415 - reads recipes from disk

    cnns = [m.value["name"] for m in material.teachers_of(hybrid) if not is_transformer(m.value["backbone"])]
    found = [e for e in material.ensembles if sorted(e.value["members"]) == sorted(cnns)]
    same = [e for e in found if e.value["pool"] == hybrid.value["pool"]]
    return next(iter(same or found), None)


def _smoothness(material: Material, e: Node, role: str) -> tuple[Span | Spans, ...]:
    entropy, recall = e.get("mean_entropy"), e.get("minority_recall")
    return (
        e["name"].quote(), role, Blank("not computed", _RESUMMARISE) if entropy is None else entropy.number(),
        Blank("not computed", _RESUMMARISE) if recall is None else recall.number(), e.at("test", "macro_f1").number(), material.latency(e),
    )  # fmt: skip


def _verdict(hybrid: Node, pair: Node) -> Spans:
    entropy = combined("difference", [hybrid["mean_entropy"], pair["mean_entropy"]], Rounding(3, style="signed"))
    recall = combined("difference", [hybrid["minority_recall"], pair["minority_recall"]], Rounding(3, style="signed"))
    smooths = entropy.value > 0 and recall.value < 0
    words = "over-smooths: it is less certain and finds fewer of the minority classes" if smooths else "does not over-smooth: that would be a higher entropy together with a lower minority recall"  # fmt: skip
    return (hybrid["name"].quote(), f" {words} (entropy ", entropy, ", minority recall ", recall, " against ", pair["name"].quote(), ").")  # fmt: skip


def _differences(material: Material) -> list[Block]:
    """How the members' errors differ, and every way to join all of them; nothing for one model."""
    s = material.study["selected"]
    blocks: list[Block] = []
    if s["diversity"]:
        pairs = tuple(row(r["first"].quote(), r["second"].quote(), *(r[k].number() for k in ("disagreement", "double_fault", "q"))) for r in s["diversity"])  # fmt: skip
        blocks.append(Table("diversity", "How the errors of two models differ, on val", ("model", "other model", "disagreement", "both wrong", "Yule's Q"), pairs, note="The lower Q and the share on which both are wrong, the more a pool of the two can gain."))  # fmt: skip
    if s["rivals"]:
        ways = {"best_single": "best single", "equal": "equal weights", "nll": "weights by NLL", "grid": "grid by macro-F1", "greedy": "greedy", "stacking": "stacking"}  # fmt: skip
        rows = tuple(row(pool, *(found[way].number(4) for way in ways)) for pool, found in s["rivals"].items())
        blocks.append(
            Table("ways-to-join", "Held-out NLL of all models joined, on calib", ("pool", *ways.values()), rows)
        )
    return blocks


def selection(material: Material) -> Section:
    """What was selected on val, and all candidates beside each other."""
    s = material.study["selected"]
    candidates = sorted(material.ensembles, key=lambda e: -float(e.at("val", "macro_f1").value))
    rows = tuple(
        row(e["name"].quote(), e.at("test", "macro_f1").number(), e.at("test", "minority_f1").number(), e.at("test", "ece").number(), material.latency(e), _comment(material, e))
        for e in candidates
    )  # fmt: skip
    strong = frozenset(i for i, e in enumerate(candidates) if e.value["name"] == s.value["name"])
    drawn = {e.value["name"]: (e.value["test"]["macro_f1"], *e.value["test"]["ci95"]["macro_f1"]) for e in reversed(candidates)}  # fmt: skip
    behind = tuple(row(e["name"].quote(), e["test"].scored("macro_f1")) for e in candidates)
    return Section("selection", "Selection", [
        Text(("Selected on val: ", s["name"].quote(), ". ", *accesses(material), " The selection's hash ", shortened(s["hash"]), "… stands in every evaluation.")),
        Table("comparison", "All candidates, by macro-F1 on val", ("model", "macro-F1", "minority-F1", "ECE", "latency (ms)", "comment"), rows, strong, "Scores are of test. Latency is the median of one image on this study's processor, summed over members."),
        Figure("single-against-ensemble", "Macro-F1 on test of single models and ensembles; the diamond was adopted", figures.comparison(drawn, s.value["name"]), "Dots with intervals, a row a candidate", Table("comparison-intervals", "Macro-F1 on test", ("model", "macro-F1"), behind)),
    ])  # fmt: skip


def _comment(material: Material, e: Node) -> Spans:
    """What is to be said of a candidate, from its figures."""
    selected = material.study.value["selected"]
    parts = []
    if e.value["name"] == selected["name"]:
        parts.append("adopted")
    if e.value["name"] == selected["best_single"]:
        parts.append("best single model on val")
    versus = e.get("vs_best_single")
    if versus is not None:
        up, clear = versus.at("delta", "macro_f1").value > 0, excludes_zero(versus.at("ci95", "macro_f1"))
        parts.append(f"{'better' if up else 'worse'} than the best single model on test by more than chance" if clear else "no clear difference from the best single model on test")  # fmt: skip
    return ("; ".join(parts) or "single model",)
