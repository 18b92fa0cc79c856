"""The sections on probabilities: calibration before and after, and when not to answer."""

from __future__ import annotations

from mien.core.labels import LABELS
from mien.report import figures
from mien.report.blocks import Blank, Block, Constant, Figure, Section, Span, Spans, Table, Text, phrase, row
from mien.report.material import Material, listed
from mien.report.node import Node, estimate

_AUTO = "mien calibrate RUN --method auto"


def calibration(material: Material) -> Section:
    """Temperatures, and calibration errors before and after with their floors."""
    models = material.models
    before = {id(m): m["test_uncalibrated"] for m in models}
    fitted = tuple(
        row(
            m["name"].quote(),
            c["method"].quote(),
            estimate(c["T"], c["ci95"]),
            c["n"].count(),
            m.at("test", "brier").number(),
            before[id(m)]["nll"].number(),
            m.at("test", "nll").number(),
        )
        for m in models
        for c in [m["calibration"]]
    )
    errors = tuple(
        row(
            m["name"].quote(),
            before[id(m)]["ece"].number(),
            *(
                m.at("test", key).number()
                for key in ("ece", "ece_floor", "ece_debiased", "smooth_ece", "ece_classwise")
            ),
            before[id(m)]["signed_gap"].number(style="signed"),
            m.at("test", "signed_gap").number(style="signed"),
        )
        for m in models
    )
    blocks: list[Block] = [
        Text(
            (*_effect(models), *_effect_on_adopted(material), "An ECE at its floor is as good as it can be measured.")
        ),
        _reliability(material),
        Table(
            "calibration",
            "Calibration by NLL on calib; Brier and NLL on test",
            ("model", "scaling", "temperature", "rows", "Brier", "NLL before", "NLL after"),
            fitted,
            note=(
                "An interval is that of the ",
                Constant("95 %", "level"),
                (
                    " bootstrap. A temperature on the edge of its range would be an error, never a result. "
                    "Vector and Dirichlet scaling are used only where they are significantly better on held-out folds "
                    "of calib."
                ),
            ),
        ),
        Table(
            "calibration-errors",
            "Calibration errors on test",
            (
                "model",
                "ECE before",
                "ECE after",
                "ECE floor",
                "debiased",
                "smooth",
                "class-wise",
                "gap before",
                "gap after",
            ),
            errors,
            note=(
                "ECE has ",
                Constant("15", "bins of the ECE"),
                (
                    " bins. The floor is what a perfectly calibrated model would show at this number of images. "
                    "Gap: mean confidence minus accuracy."
                ),
            ),
        ),
        *_joined(material),
        *_diagrams(material),
        *_scalings(models),
        Table(
            "class-calibration",
            "Calibration error of each class's probability on test",
            ("model", *LABELS),
            tuple(row(m["name"].quote(), *(m.at("test", "per_class_ece", n).number() for n in LABELS)) for m in models),
        ),
    ]
    return Section("calibration-section", "Calibration", blocks)


def _reliability(material: Material) -> Table:
    """Scores beside calibration of each model, of the adopted ensemble and of those with given weights."""
    joined = [
        e
        for e in material.joined
        if e.value["weighting"] == "fixed" or e.value["name"] == material.chosen.value["name"]
    ]
    several = [(m, m.at("calibration", "T")) for m in material.models] + [(e, e["T"]) for e in joined]
    strong = frozenset(i for i, (m, _) in enumerate(several) if m.value["name"] == material.chosen.value["name"])
    rows = tuple(
        row(
            m["name"].quote(),
            *(m.at("test", key).number() for key in ("accuracy", "macro_f1", "ece", "ece_floor", "brier", "nll")),
            t.number(),
            _how(m),
        )
        for m, t in several
    )
    head = ("model", "accuracy", "macro-F1", "ECE", "ECE floor", "Brier", "NLL", "temperature", "note")
    note = (
        "A single model stands here under its own calibration, as it is used alone. "
        "As a candidate it has a temperature of its own, fitted on the rows on which those of pools are fitted, "
        "so its ECE and NLL differ a little there."
    )
    return Table(
        "reliability-metrics", "Scores and calibration on test, each model as it is used", head, rows, strong, note
    )


def _how(model: Node) -> Spans:
    if "members" in model.value:
        return ("temperature of the pool, fitted by NLL on calib",)
    return phrase("{} scaling, fitted by NLL on calib", model.at("calibration", "method").quote())


def _effect(models: list[Node]) -> Spans:
    better = [m["name"].quote() for m in models if m.at("test", "ece").value < m.at("test_uncalibrated", "ece").value]
    worse = [m["name"].quote() for m in models if m.at("test", "ece").value > m.at("test_uncalibrated", "ece").value]
    out: list[Span] = []
    if better:
        out += ["Calibration lowered the ECE on test of ", *listed(list(better)), ". "]
    if worse:
        out += [
            "It raised that of " if better else "It raised the ECE on test of ",
            *listed(list(worse)),
            ": what is fitted is the NLL on calib, which the ECE on test need not follow. ",
        ]
    return tuple(out)


def _effect_on_adopted(material: Material) -> Spans:
    """The adopted ensemble's ECE before and after its temperature; nothing for a single model."""
    chosen = material.chosen
    evaluation = material.evaluations.get(chosen.value["name"])
    if len(chosen.value["members"]) == 1 or evaluation is None or not evaluation.get("test_uncalibrated"):
        return ()
    return phrase(
        "Of the adopted ensemble it was {} before its temperature and is {} after it; its mean confidence less its "
        "accuracy was {} and is {}. ",
        evaluation.at("test_uncalibrated", "ece").number(),
        chosen.at("test", "ece").number(),
        evaluation.at("test_uncalibrated", "signed_gap").number(style="signed"),
        chosen.at("test", "signed_gap").number(style="signed"),
    )


def _joined(material: Material) -> list[Block]:
    rows = []
    for e in material.joined:
        evaluation = material.evaluations.get(e.value["name"])
        if evaluation is not None and evaluation.get("test_uncalibrated"):
            before = evaluation["test_uncalibrated"]
            rows.append(
                row(
                    e["name"].quote(),
                    e["T"].number(),
                    before["ece"].number(),
                    *(e.at("test", k).number() for k in ("ece", "ece_floor", "brier")),
                    before["nll"].number(),
                    e.at("test", "nll").number(),
                )
            )
    if not rows:
        return []
    head = ("ensemble", "temperature", "ECE before", "ECE after", "ECE floor", "Brier", "NLL before", "NLL after")
    return [
        Table(
            "ensemble-calibration",
            "Ensembles: before and after the temperature of the pool, on test",
            head,
            tuple(rows),
            note="Members come calibrated into a pool; before means without the pool's own temperature.",
        )
    ]


def _diagrams(material: Material) -> list[Block]:
    given = [e.value["name"] for e in material.joined if e.value["weighting"] == "fixed"]
    names = dict.fromkeys([material.chosen.value["name"], *given, *(m.value["name"] for m in material.models)])
    evaluations = {name: material.evaluations[name] for name in names if name in material.evaluations}
    if not evaluations:
        return []
    diagrams = {name: e.value["reliability"] for name, e in evaluations.items()}
    lines = {name: (e.value["sweep"], e.value["temperature"]) for name, e in evaluations.items()}
    return [
        Figure(
            "reliability",
            "Reliability before and after calibration, on test; the larger a dot, the more images",
            figures.reliability(diagrams),
            "Reliability diagrams: accuracy over confidence, a panel a model",
            _bins(evaluations),
        ),
        Figure(
            "temperature-sweep",
            "NLL and ECE over temperature on test, for the eye only; dotted: the temperature found on calib",
            figures.sweeps(lines),
            "Curves of NLL and ECE over temperature, a line a model",
            _sweep(evaluations),
        ),
    ]


def _bins(evaluations: dict[str, Node]) -> Table:
    rows = tuple(
        row(
            e["name"].quote(),
            when,
            *(
                e.at("reliability", when, key, i).number(0 if key == "count" else 3)
                for key in ("count", "confidence", "accuracy")
            ),
        )
        for e in evaluations.values()
        for when in ("before", "after")
        for i, n in enumerate(e.value["reliability"][when]["count"])
        if n > 0
    )
    return Table(
        "reliability-bins",
        "Bins of the reliability diagrams",
        ("model", "calibration", "images", "confidence", "accuracy"),
        rows,
    )


def _sweep(evaluations: dict[str, Node]) -> Table:
    positions = range(0, min(len(e.value["sweep"]["temperature"]) for e in evaluations.values()), 4)
    rows = tuple(
        row(e["name"].quote(), *(e.at("sweep", key, i).number() for key in ("temperature", "nll", "ece")))
        for e in evaluations.values()
        for i in positions
    )
    return Table("temperature-sweep-points", "Points of these curves", ("model", "temperature", "NLL", "ECE"), rows)


def _scalings(models: list[Node]) -> list[Block]:
    tried = [m for m in models if m.at("calibration", "heldout")]
    rows = []
    for m in tried:
        held = m.at("calibration", "heldout")
        cells = (
            Blank("not tried", _AUTO) if held.get(k) is None else held.at(k, "nll").number(4)
            for k in ("temperature", "vector", "dirichlet")
        )
        rows.append(row(m["name"].quote(), *cells, m.at("calibration", "why").quote()))
    if not rows:
        return []
    return [
        Table(
            "scalings",
            "Held-out NLL of each scaling, by cross-validation on calib",
            ("model", "temperature", "vector", "Dirichlet", "chosen"),
            tuple(rows),
        )
    ]


def answers(material: Material) -> Section:
    """When each model answers, and what its sets of classes hold: fitted on calib, judged on test."""
    models = list({m.value["name"]: m for m in [*material.models, material.chosen]}.values())
    curves = {m.value["name"]: m.value["abstain"]["curve"] for m in models}
    blocks: list[Block] = [
        Table(
            "abstention",
            "Saying nothing when unsure: thresholds from calib, figures on test",
            (
                "model",
                "confidence needed",
                "answered (%)",
                "accuracy of answers",
                "accuracy of all",
                ("accuracy of the surest ", Constant("80 %", "share of the surest images")),
                "AURC",
            ),
            tuple(_abstention(m) for m in models),
        ),
        Figure(
            "risk-coverage",
            "Risk and coverage on test: the error rate when only the surest are answered",
            figures.risk_coverage(curves),
            "Error rate over the share of images that is answered, a line a model",
            _curve(models),
        ),
        *_false_positives(models),
        *_sets(models),
    ]
    return Section("answers", "Knowing when not to answer", blocks)


def _threshold(node: Node) -> Span:
    """A confidence that is needed; one above 1 is never reached."""
    return "never reached" if node.value > 1 else node.number()


def _abstention(m: Node) -> tuple[Span | Spans, ...]:
    a = m["abstain"]
    answered = a.get("accuracy_answered")
    accuracy = "it answers nothing" if answered is None else answered.number()
    return (
        m["name"].quote(),
        _threshold(a["threshold"]),
        a["coverage"].percent(),
        accuracy,
        m.at("test", "accuracy").number(),
        a["accuracy_at_80"].number(),
        a["aurc"].number(),
    )


def _curve(models: list[Node]) -> Table:
    rows = []
    for m in models:
        curve = m.at("abstain", "curve")
        last = len(curve.value["coverage"]) - 1
        for i in dict.fromkeys(round(last * k / 10) for k in range(1, 11)):
            rows.append(row(m["name"].quote(), curve.at("coverage", i).percent(), curve.at("risk", i).number()))
    return Table("risk-coverage-points", "Points of these curves", ("model", "answered (%)", "error rate"), tuple(rows))


def _false_positives(models: list[Node]) -> list[Block]:
    rows = tuple(
        row(
            m["name"].quote(),
            r["class"].quote(),
            r["bound"].number(),
            _threshold(r["threshold"]),
            r["rate_unthresholded"].number(),
            estimate(r["rate"], r["ci95"]),
            "yes" if r.value["holds"] else "no",
        )
        for m in models
        for r in m.at("abstain", "false_positives")
        if r.value["bound"] is not None
    )
    head = ("model", "class", "wanted at most", "confidence needed", "without thresholds", "on test", "holds")
    return (
        [Table("false-positives", "False positives: the share of other classes' images that get this name", head, rows)]
        if rows
        else []
    )


def _sets(models: list[Node]) -> list[Block]:
    rows: list[tuple[Span | Spans, ...]] = []
    by_class: list[tuple[Span | Spans, ...]] = []
    for m in models:
        for r in m.at("abstain", "conformal"):
            kind = r.value["kind"].replace("_", "-")
            expected = r.get("expected")
            ends: Span | Spans = (
                "not one quantile" if expected is None else (expected[0].number(), " to ", expected[1].number())
            )
            rows.append(
                row(
                    m["name"].quote(),
                    kind,
                    r["target"].number(2),
                    r["coverage"].number(),
                    ends,
                    r["mean_size"].number(2),
                    r["one_class"].percent(),
                )
            )
            held = r["by_class"]
            by_class.append(
                row(
                    m["name"].quote(),
                    kind,
                    *("not in test" if held.get(n) is None else held[n].number(2) for n in LABELS),
                )
            )
    if not rows:
        return []
    return [
        Table(
            "conformal",
            "Conformal sets of classes: coverage on test",
            ("model", "kind", "target", "coverage", "expected range", "mean size", "one class (%)"),
            tuple(rows),
            note=(
                "The expected range (beta-binomial, ",
                Constant("95 %", "level"),
                ") is that of the kinds that have one quantile.",
            ),
        ),
        Table("conformal-classes", "Coverage of these sets by class", ("model", "kind", *LABELS), tuple(by_class)),
    ]
