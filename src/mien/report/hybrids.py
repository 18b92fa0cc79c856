"""Hybrids of CNN and transformer beside the same pool of their CNNs alone: do they over-smooth?"""

from __future__ import annotations

from dataclasses import dataclass

from mien.report.blocks import Blank, Block, Heading, Items, Number, Rounding, Span, Spans, Table, Text, phrase, row
from mien.report.material import Material
from mien.report.node import Node, combined, counted

_MOST_VERDICTS = 6  # hybrids with a sentence of their own; the table has one for each
_RESUMMARISE = "mien study STUDY.toml --out DIR"
_HEAD = (
    "ensemble",
    "role",
    "mean entropy",
    "minority recall",
    "macro-F1",
    "latency (ms)",
    "over-smooths",
)


@dataclass(frozen=True)
class _Pair:
    """A hybrid, and the candidate of its members that are no transformers, in the same pool."""

    hybrid: Node
    cnns: Node

    @property
    def comparable(self) -> bool:
        """Whether both have the figures that over-smoothing is judged by."""
        return all(
            e.get(key) is not None for e in (self.hybrid, self.cnns) for key in ("mean_entropy", "minority_recall")
        )

    @property
    def smooths(self) -> bool:
        """Whether the hybrid is less certain and finds fewer of the minority classes."""
        return self.difference("mean_entropy").value > 0 and self.difference("minority_recall").value < 0

    def difference(self, key: str) -> Number:
        """The hybrid's value less that of its CNNs."""
        return combined("difference", [self.hybrid[key], self.cnns[key]], Rounding(3, style="signed"))


def hybrids(material: Material) -> list[Block]:
    """Every hybrid beside its CNNs: entropy, minority recall, macro-F1, latency and a verdict; empty without one."""
    pairs = [
        _Pair(hybrid, cnns)
        for hybrid in material.joined
        if hybrid.value["kind"] == "hybrid" and (cnns := _cnns_of(material, hybrid)) is not None
    ]
    if not pairs:
        return []
    comparable = sorted((b for b in pairs if b.comparable), key=lambda b: -float(b.hybrid.at("val", "macro_f1").value))
    blocks: list[Block] = [Heading("Hybrids of CNN and transformer"), *_summary(comparable)]
    if comparable:
        blocks.append(Items(tuple(_verdict(b) for b in comparable[:_MOST_VERDICTS])))
    note = (
        "Entropy is in nats, of calibrated probabilities. Latency is the sum of the members' medians. "
        "A hybrid over-smooths where its entropy is higher and its minority recall lower than that of its CNNs."
    )
    rows = tuple(cells for b in pairs for cells in _rows(material, b))
    caption = "Hybrids beside their CNNs: do they smooth what the CNNs know? Entropy on val, scores on test"
    return [*blocks, Table("hybrids", caption, _HEAD, rows, note=note)]


def _cnns_of(material: Material, hybrid: Node) -> Node | None:
    from mien.core.config.recipes import is_transformer  # noqa: PLC0415 - reads recipes from disk

    cnns = [m.value["name"] for m in material.teachers_of(hybrid) if not is_transformer(m.value["backbone"])]
    candidates = [e for e in material.ensembles if sorted(e.value["members"]) == sorted(cnns)]
    same = [e for e in candidates if e.value["pool"] == hybrid.value["pool"]]
    alike = [e for e in same if (e.value["weighting"] == "fixed") == (hybrid.value["weighting"] == "fixed")]
    return next(iter(alike or same or candidates), None)


def _summary(pairs: list[_Pair]) -> list[Block]:
    if len(pairs) < 2:
        return []
    smoothing = [b.hybrid for b in pairs if b.smooths]
    better = [b.hybrid for b in pairs if b.hybrid.at("test", "macro_f1").value > b.cnns.at("test", "macro_f1").value]
    parts: list[Span] = [counted(nodes) if nodes else "not one" for nodes in (smoothing, better)]
    count = counted([b.hybrid for b in pairs])
    words = (
        "Of {} hybrids these over-smooth what their CNNs know: {}. With a higher macro-F1 on test than their CNNs: {}."
    )
    return [Text(phrase(words, count, *parts))]


def _verdict(b: _Pair) -> Spans:
    words = (
        "over-smooths: it is less certain and finds fewer of the minority classes"
        if b.smooths
        else "does not over-smooth: that would be a higher entropy together with a lower minority recall"
    )
    return phrase(
        f"{{}} {words} (entropy {{}}, minority recall {{}} against {{}}).",
        b.hybrid["name"].quote(),
        b.difference("mean_entropy"),
        b.difference("minority_recall"),
        b.cnns["name"].quote(),
    )


def _rows(material: Material, b: _Pair) -> list[tuple[Span | Spans, ...]]:
    """The hybrid, and under it its CNNs."""
    verdict: Span = Blank("not known", _RESUMMARISE)
    if b.comparable:
        verdict = "yes" if b.smooths else "no"
    return [_row(material, b.hybrid, "hybrid", verdict), _row(material, b.cnns, "its CNNs alone", "the measure")]


def _row(material: Material, e: Node, role: str, verdict: Span) -> tuple[Span | Spans, ...]:
    entropy, recall = (
        Blank("not computed", _RESUMMARISE) if (value := e.get(key)) is None else value.number()
        for key in ("mean_entropy", "minority_recall")
    )
    f1 = e.at("test", "macro_f1").number()
    return row(e["name"].quote(), role, entropy, recall, f1, material.latency(e), verdict)
