"""The sections that judge: calibration, answers, ensembles, selection."""

from __future__ import annotations

from typing import Any

from mien.core.artifacts.test_accesses import times, told
from mien.core.labels import LABELS
from mien.report import figures
from mien.report.blocks import Block, Figure, Section, Table, Text
from mien.report.study_view import chosen_of, fixed, models_of, threshold, with_ci


def calibration(study: dict[str, Any], evaluations: dict[str, dict[str, Any]]) -> Section:
    """Temperatures, calibration before and after, abstention."""
    models = models_of(study)
    rows = []
    for m in models:
        c, before, after = m["calibration"], m["test_uncalibrated"], m["test"]
        rows.append(
            (
                m["name"],
                c["method"],
                f"{c['T']:.3f} [{c['ci95'][0]:.3f}, {c['ci95'][1]:.3f}]",
                f"{c['n']:,}",
                fixed(before["ece"]),
                fixed(after["ece"]),
                fixed(after["ece_floor"]),
                fixed(after["ece_debiased"]),
                fixed(after["smooth_ece"]),
                fixed(after["ece_classwise"]),
                fixed(before["nll"]),
                fixed(after["nll"]),
                f"{before['signed_gap']:+.3f}",
                f"{after['signed_gap']:+.3f}",
            )
        )
    head = (
        "model",
        "scaling",
        "T [95 %]",
        "fitted on",
        "ECE before",
        "after",
        "floor",
        "debiased",
        "smooth",
        "class-wise",
        "NLL before",
        "after",
        "gap before",
        "after",
    )
    shown = [study["selected"]["name"], *[m["name"] for m in models]]
    diagrams = {name: evaluations[name]["reliability"] for name in dict.fromkeys(shown)}
    lines = {name: (evaluations[name]["sweep"], evaluations[name]["temperature"]) for name in dict.fromkeys(shown)}
    return Section("Calibration", [
        Table("Calibration by NLL on calib; figures on test", head, tuple(rows), note="Gap: mean confidence minus accuracy. A temperature on the edge of its range would be an error, never a result. Vector and Dirichlet scaling are used only where they are significantly better on held-out folds of calib."),
        Figure("Reliability before and after calibration, on test", figures.reliability(diagrams), "Reliability diagrams of each model"),
        Figure("NLL and ECE over temperature on test, for the eye only; dotted: the temperature found on calib", figures.sweeps(lines), "Curves of NLL and ECE over temperature"),
        Table("Held-out NLL of each scaling, by cross-validation on calib", ("model", "temperature", "vector", "Dirichlet", "chosen"), tuple(_scalings(m) for m in models)),
        Table("Calibration error of each class's probability on test", ("model", *LABELS), tuple((m["name"], *(fixed(m["test"]["per_class_ece"][n]) for n in LABELS)) for m in models)),
    ])  # fmt: skip


def _scalings(model: dict[str, Any]) -> tuple[str, ...]:
    c = model["calibration"]
    tried = (c["heldout"].get(name) for name in ("temperature", "vector", "dirichlet"))
    return (model["name"], *("not tried" if t is None else fixed(t["nll"], 4) for t in tried), c["why"])


def answers(study: dict[str, Any]) -> Section:
    """When each model answers, and what its sets of classes hold: fitted on calib, judged on test."""
    models = [*models_of(study), chosen_of(study)]
    abstain = tuple(
        (m["name"], threshold(m["abstain"]["threshold"]), f"{100 * m['abstain']['coverage']:.1f}", fixed(m["abstain"]["accuracy_answered"]), fixed(m["test"]["accuracy"]),
         fixed(m["abstain"]["accuracy_at_80"]), fixed(m["abstain"]["aurc"]))
        for m in models
    )  # fmt: skip
    false = tuple(
        (m["name"], r["class"], fixed(r["bound"]), threshold(r["threshold"]), fixed(r["rate_unthresholded"]), f"{r['rate']:.3f} [{r['ci95'][0]:.3f}, {r['ci95'][1]:.3f}]", "yes" if r["holds"] else "no")
        for m in models for r in m["abstain"]["false_positives"] if r["bound"] is not None
    )  # fmt: skip
    sets = tuple(
        (m["name"], r["kind"].replace("_", "-"), fixed(r["target"], 2), fixed(r["coverage"]), "–" if r["expected"] is None else f"{r['expected'][0]:.3f} to {r['expected'][1]:.3f}", fixed(r["mean_size"], 2), f"{100 * r['one_class']:.1f}",
         " / ".join(fixed(r["by_class"].get(name), 2) for name in LABELS))
        for m in models for r in m["abstain"]["conformal"]
    )  # fmt: skip
    blocks: list[Block] = [
        Table("Saying nothing when unsure: thresholds from calib, figures on test", ("model", "confidence below which nothing is said", "answered (%)", "accuracy of answers", "of all", "of the surest 80 %", "AURC"), abstain),
        Figure("Risk and coverage on test: the error rate when only the surest are answered", figures.risk_coverage({m["name"]: m["abstain"]["curve"] for m in models}), "Error rate over the share that is answered"),
    ]  # fmt: skip
    if false:
        blocks.append(Table("False positives: the share of other classes' pictures that get this name", ("model", "class", "wanted at most", "confidence needed", "without thresholds", "on test [95 %]", "holds"), false))  # fmt: skip
    if sets:
        blocks.append(Table("Conformal sets of classes: coverage on test", ("model", "kind", "target", "coverage", "expected range", "mean size", "one class (%)", f"coverage by class ({', '.join(LABELS)})"), sets, note="The expected range (beta-binomial, 95 %) is that of the kinds that have one quantile."))  # fmt: skip
    return Section("Knowing when not to answer", blocks)


def ensembles(study: dict[str, Any]) -> Section:
    """Every combination, and each against the best single model."""
    rows, against = [], []
    for e in study["ensembles"]:
        weights = " / ".join(f"{w:.2f}" for w in e["weights"])
        rows.append(
            (
                e["name"],
                e["kind"],
                e["pool"] if len(e["members"]) > 1 else "–",
                weights,
                e["weighting"],
                fixed(e["T"]),
                fixed(e["val"]["macro_f1"]),
                fixed(e["val"]["ece"]),
                with_ci(e["test"], "macro_f1"),
                fixed(e["test"]["minority_f1"]),
                fixed(e["test"]["accuracy"]),
                fixed(e["test"]["ece"]),
                fixed(e["test"]["nll"]),
            )
        )
        v = e["vs_best_single"]
        if v and len(e["members"]) > 1:
            cells = [
                f"{v['delta'][k]:+.3f} [{v['ci95'][k][0]:+.3f}, {v['ci95'][k][1]:+.3f}]"
                for k in ("macro_f1", "minority_f1", "accuracy", "nll")
            ]
            against.append((e["name"], v["rival"], *cells, f"{v['mcnemar']['p']:.2g}"))
    head = (
        "ensemble",
        "kind",
        "pool",
        "weights",
        "weighting",
        "T",
        "val macro-F1",
        "val ECE",
        "test macro-F1",
        "minority-F1",
        "accuracy",
        "ECE",
        "NLL",
    )
    strong = frozenset(i for i, e in enumerate(study["ensembles"]) if e["name"] == study["selected"]["name"])
    blocks: list[Block] = [
        Table(
            "Every combination",
            head,
            tuple(rows),
            strong,
            note="Weights and temperatures are fitted on calib; searched weights are used only where they beat equal ones on held-out folds and a score test rejects equal ones. The marked row was selected on val.",
        ),
    ]
    if against:
        blocks.append(
            Table(
                "Against the best single on test, paired (ensemble minus single)",
                ("ensemble", "best single", "macro-F1", "minority-F1", "accuracy", "NLL", "McNemar p"),
                tuple(against),
            )
        )
    blocks += _differences(study)
    return Section("Ensembles", blocks)


def _differences(study: dict[str, Any]) -> list[Block]:
    """How the members' errors differ, and every way to join all of them; nothing for one model."""
    s = study["selected"]
    if not s["diversity"]:
        return []
    pairs = tuple((r["first"], r["second"], fixed(r["disagreement"]), fixed(r["double_fault"]), fixed(r["q"])) for r in s["diversity"])  # fmt: skip
    ways = ("best_single", "equal", "nll", "grid", "greedy", "stacking")
    rivals = tuple((pool, *(fixed(found[way], 4) for way in ways)) for pool, found in s["rivals"].items())
    return [
        Table("How the errors of two models differ, on val", ("model", "model", "disagreement", "both wrong", "Yule's Q"), pairs, note="The lower the Q and the share on which both are wrong, the more a pool of the two can gain."),
        Table("Held-out NLL of all models joined, on calib", ("pool", "best single", "equal weights", "weights by NLL", "grid by macro-F1", "greedy", "stacking"), rivals),
    ]  # fmt: skip


def selection(study: dict[str, Any]) -> Section:
    """What was selected on val, and why."""
    s, opened = study["selected"], study["test_accesses"]
    in_all = (
        f"By now it was opened {times(opened['in_all'])}: once for each model with its calibration that was judged."
    )
    return Section("Selection", [
        Text(f"Selected on val: {s['name']}. {told(opened['before_selection'], 'this selection was written')} {in_all} The selection's hash {s['hash'][:16]}… stands in every evaluation."),
        Table("Why", ("step", "what decided"), tuple((str(i), line) for i, line in enumerate(s["why"], 1)) or (("1", "the only candidate"),)),
    ])  # fmt: skip
