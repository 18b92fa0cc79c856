"""A study's figures as a document: no table is left to be filled in."""

from __future__ import annotations

from typing import Any

import numpy as np

from mien.core.labels import LABELS, MINORITY
from mien.report import figures
from mien.report.blocks import Block, Document, Figure, Section, Table, Text

SPLITS = ("train", "val", "calib", "test")
HEADLINE = ("accuracy", "macro_f1", "minority_f1", "ece")


def compose(study: dict[str, Any], histories: dict[str, list[dict[str, Any]]], evaluations: dict[str, dict[str, Any]], sheet: dict[str, np.ndarray[Any, Any]] | None) -> Document:
    """The document of a finished study.

    `histories` are epochs of each run, `evaluations` the test results of each model by its name,
    `sheet` pictures of each class where showing them is allowed (drawn faces).
    """
    document = Document(f"mien: {study['name']}", _subtitle(study))
    document.sections = [
        _summary(study), _data(study, sheet), _singles(study), _calibration(study, evaluations), _ensembles(study), _selection(study),
        *([_student(study)] if study["student"] else []), _training(study, histories), _classes(study), _cost(study), _care(study),
    ]  # fmt: skip
    return document


def _subtitle(study: dict[str, Any]) -> str:
    sources = ", ".join(f"{n:,} rows of {name}" for name, n in study["index"]["source_rows"].items())
    return f"{sources}; seed {study['seed']}; mien revision {study['git'] or 'released'}"


def is_synthetic(study: dict[str, Any]) -> bool:
    """Whether every picture was drawn."""
    return set(study["index"]["source_rows"]) == {"synthetic"}


def fixed(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def with_ci(score: dict[str, Any], key: str) -> str:
    """`value [low, high]` of a metrics object."""
    ends = score.get("ci95", {}).get(key)
    return fixed(score[key]) + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def _chosen(study: dict[str, Any]) -> dict[str, Any]:
    return next(e for e in study["ensembles"] if e["name"] == study["selected"]["name"])


def _summary(study: dict[str, Any]) -> Section:
    chosen, best, student = _chosen(study), study["selected"]["best_single"], study["student"]
    single = next(e for e in study["ensembles"] if e["name"] == best)
    section = Section("Summary")
    if is_synthetic(study):
        section.blocks.append(Text("All pictures of this study are drawn by mien. Its figures show that every stage works; they say nothing about real faces.", "note"))
    rows = [("selected teacher", chosen), ("best single", single)] + ([("student", student)] if student else [])
    table = tuple((kind, model["name"], *(with_ci(model["test"], key) for key in HEADLINE), fixed(model["test"]["ece_floor"])) for kind, model in rows)
    table += tuple((name, "–", fixed(row["accuracy"]), fixed(row["macro_f1"]), fixed(row["minority_f1"]), "–", "–") for name, row in study["baselines"]["test"].items())
    head = ("", "model", "accuracy", "macro-F1", "minority-F1", "ECE", "ECE floor")
    n = chosen["test"]["n"]
    section.blocks += [
        Table(f"Test ({n:,} pictures), calibrated, with 95 % bootstrap intervals", head, table, frozenset({0})),
        Text(f"Minority-F1 is the mean F1 of {', '.join(MINORITY)}. The ECE floor is what a perfectly calibrated model would show at this number of pictures."),
    ]
    if student:
        section.blocks.append(
            Text(f"The student keeps {100 * student['retention_macro_f1']:.1f} % of its teacher's macro-F1 with {student['params'] / 1e6:.2f} M parameters instead of {_parameters(study, chosen) / 1e6:.2f} M.")
        )
    return section


def _parameters(study: dict[str, Any], ensemble: dict[str, Any]) -> int:
    return sum(t["params"] for t in study["teachers"] if t["name"] in ensemble["members"])


def _data(study: dict[str, Any], sheet: dict[str, np.ndarray[Any, Any]] | None) -> Section:
    audit = study["index"]
    rows = [(name, *(f"{audit['distribution'][name][s]:,}" for s in SPLITS), f"{audit['distribution'][name]['total']:,}", f"{100 * audit['distribution'][name]['share']:.2f}") for name in LABELS]
    rows.append(("total", *(f"{audit['totals'][s]:,}" for s in SPLITS), f"{audit['totals']['total']:,}", "100.00"))
    shares = audit["minority"]["share"]
    rows.append((f"share of {', '.join(MINORITY)} (%)", *(f"{100 * shares[s]:.2f}" for s in SPLITS), f"{100 * shares['total']:.2f}", ""))
    sources = tuple((name, *(f"{counts[s]:,}" for s in SPLITS), f"{audit['source_rows'][name]:,}") for name, counts in audit["by_source"].items())
    dup = audit["duplicates"]
    facts = [
        ("groups of pixel-identical pictures", f"{dup['identical_groups']:,}"), ("source rows in them", f"{dup['pictures_in_groups']:,}"),
        ("groups that cross the official splits", f"{dup['groups_crossing_official_splits']:,}"),
        ("official val rows whose picture also stood in train", f"{dup['official_rows_also_in_train']['val']:,}"),
        ("official test rows whose picture also stood in train", f"{dup['official_rows_also_in_train']['test']:,}"),
        ("groups with conflicting labels", f"{dup['groups_with_conflicting_labels']:,}"),
        ("groups on two sides of this index", f"{audit['groups_on_two_sides']:,}"),
        *((f"dropped: {reason}", f"{count:,}") for reason, count in audit["dropped"].items()),
        *((f"rejected: {reason}", f"{count:,}") for reason, count in audit["rejected"].items()),
    ]
    crop = audit["crop"]
    blocks: list[Block] = [
        Table("Distinct pictures by class and split", ("class", *SPLITS, "total", "share (%)"), tuple(rows), frozenset({len(LABELS)})),
        Figure("Composition", figures.composition(audit["distribution"], SPLITS), "Bars of pictures of each class on each split"),
        Table("Sources", ("source", *SPLITS, "source rows"), sources, note="Terms: " + "; ".join(audit["licenses"])),
        Table("Duplicates, and what was left out", ("", "count"), tuple(facts)),
        Text(f"Every picture is packed as {crop['size']}×{crop['size']} pixels, {crop['color']}. A picture that official splits show on several sides stands on the strictest (test over val over calib over train)."),
    ]
    if sheet:
        blocks.append(Figure("Drawn faces of the train split, a row a class", figures.contact_sheet(sheet), "Rows of drawn faces, one row a class"))
    return Section("Data", blocks)


def _singles(study: dict[str, Any]) -> Section:
    models = study["teachers"] + ([study["student"]] if study["student"] else [])
    best = study["selected"]["best_single"]
    rows = tuple(
        (m["name"], m["backbone"], *(with_ci(m["test"], k) for k in HEADLINE), fixed(m["test"]["ece_floor"]), fixed(m["test"]["brier"]), fixed(m["test"]["nll"]), fixed(m["calibration"]["T"]), f"{m['best_epoch']}/{m['epochs']}")
        for m in models
    ) + tuple((name, "–", fixed(b["accuracy"]), fixed(b["macro_f1"]), fixed(b["minority_f1"]), *["–"] * 6) for name, b in study["baselines"]["test"].items())  # fmt: skip
    head = ("model", "backbone", "accuracy", "macro-F1", "minority-F1", "ECE", "floor", "Brier", "NLL", "T", "epoch kept")
    strong = frozenset(i for i, m in enumerate(models) if m["name"] == best)
    per_class = tuple((m["name"], *(fixed(m["test"]["per_class_f1"][name]) for name in LABELS)) for m in [*models, *[e for e in study["ensembles"] if len(e["members"]) > 1]])
    blocks: list[Block] = [
        Table("Single models on test, calibrated on calib", head, rows, strong, note="The marked row is the best single, fixed on val by macro-F1."),
        Table("F1 of each class on test", ("model", *LABELS), per_class),
        Figure("F1 of each class on test with 95 % intervals", figures.class_f1({m["name"]: m["test"]["per_class_f1"] for m in models}, {m["name"]: m["test"]["ci95"] for m in models}), "Bars of F1 by class and model"),
    ]
    leaky = [(m["name"], m["test"], m["test_as_distributed"]) for m in [*models, *study["ensembles"]] if m["test_as_distributed"]]
    if leaky:
        table = tuple((name, f"{t['n']:,}", fixed(t["accuracy"]), fixed(t["macro_f1"]), f"{d['n']:,}", fixed(d["accuracy"]), fixed(d["macro_f1"]), f"{d['left_out']}") for name, t, d in leaky)
        head = ("model", "distinct n", "accuracy", "macro-F1", "as distributed n", "accuracy", "macro-F1", "left out")
        blocks.append(Table("Test as this index has it, and as its source distributes it", head, table, note="As distributed: every official test row with its own label, repeats included; left out are rows whose picture has no majority label."))  # fmt: skip
    return Section("Single models", blocks)


def _calibration(study: dict[str, Any], evaluations: dict[str, dict[str, Any]]) -> Section:
    models = study["teachers"] + ([study["student"]] if study["student"] else [])
    rows = []
    for m in models:
        c, before, after = m["calibration"], m["test_uncalibrated"], m["test"]
        rows.append((m["name"], f"{c['T']:.3f} [{c['ci95'][0]:.3f}, {c['ci95'][1]:.3f}]", f"{c['n']:,}", fixed(before["ece"]), fixed(after["ece"]), fixed(after["ece_floor"]), fixed(after["ece_classwise"]), fixed(before["nll"]), fixed(after["nll"]), f"{before['signed_gap']:+.3f}", f"{after['signed_gap']:+.3f}"))
    head = ("model", "T [95 %]", "fitted on", "ECE before", "after", "floor", "class-wise", "NLL before", "after", "gap before", "after")
    shown = [study["selected"]["name"], *[m["name"] for m in models]]
    diagrams = {name: evaluations[name]["reliability"] for name in dict.fromkeys(shown)}
    lines = {name: (evaluations[name]["sweep"], evaluations[name]["temperature"]) for name in dict.fromkeys(shown)}
    abstain = tuple((m["name"], fixed(m["abstain"]["threshold"]), f"{100 * m['abstain']['coverage']:.1f}", fixed(m["abstain"]["accuracy_answered"]), fixed(m["test"]["accuracy"])) for m in [*models, _chosen(study)])
    return Section("Calibration", [
        Table("One temperature a model, by NLL on calib; figures on test", head, tuple(rows), note="Gap: mean confidence minus accuracy. A temperature on the edge of its range would be an error, never a result."),
        Figure("Reliability before and after calibration, on test", figures.reliability(diagrams), "Reliability diagrams of each model"),
        Figure("NLL and ECE over temperature on test, for the eye only; dotted: the temperature found on calib", figures.sweeps(lines), "Curves of NLL and ECE over temperature"),
        Table("Saying nothing when unsure: the threshold was set on calib", ("model", "confidence below which nothing is said", "answered (%)", "accuracy of answers", "accuracy of all"), abstain),
    ])  # fmt: skip


def _ensembles(study: dict[str, Any]) -> Section:
    rows, against = [], []
    for e in study["ensembles"]:
        weights = " / ".join(f"{w:.2f}" for w in e["weights"])
        rows.append((e["name"], e["pool"] if len(e["members"]) > 1 else "–", weights, e["weighting"], fixed(e["T"]), fixed(e["val"]["macro_f1"]), fixed(e["val"]["ece"]), with_ci(e["test"], "macro_f1"), fixed(e["test"]["minority_f1"]), fixed(e["test"]["accuracy"]), fixed(e["test"]["ece"]), fixed(e["test"]["nll"])))
        v = e["vs_best_single"]
        if v and len(e["members"]) > 1:
            cells = [f"{v['delta'][k]:+.3f} [{v['ci95'][k][0]:+.3f}, {v['ci95'][k][1]:+.3f}]" for k in ("macro_f1", "minority_f1", "accuracy", "nll")]
            against.append((e["name"], v["rival"], *cells, f"{v['mcnemar']['p']:.2g}"))
    head = ("ensemble", "pool", "weights", "weighting", "T", "val macro-F1", "val ECE", "test macro-F1", "minority-F1", "accuracy", "ECE", "NLL")
    strong = frozenset(i for i, e in enumerate(study["ensembles"]) if e["name"] == study["selected"]["name"])
    blocks: list[Block] = [
        Table("Every combination", head, tuple(rows), strong, note="Weights and temperatures are fitted on calib; fitted weights are used only where they beat equal ones on held-out folds. The marked row was selected on val."),
    ]
    if against:
        blocks.append(Table("Against the best single on test, paired (ensemble minus single)", ("ensemble", "best single", "macro-F1", "minority-F1", "accuracy", "NLL", "McNemar p"), tuple(against)))
    return Section("Ensembles", blocks)


def _selection(study: dict[str, Any]) -> Section:
    s = study["selected"]
    return Section("Selection", [
        Text(f"Selected on val, before test was opened: {s['name']}. Its hash {s['hash'][:16]}… stands in every evaluation."),
        Table("Why", ("step", "what decided"), tuple((str(i), line) for i, line in enumerate(s["why"], 1)) or (("1", "the only candidate"),)),
    ])  # fmt: skip


def _student(study: dict[str, Any]) -> Section:
    student, chosen = study["student"], _chosen(study)
    rows = tuple((kind, m["name"], *(with_ci(m["test"], k) for k in HEADLINE), fixed(m["test"]["nll"]), f"{size / 1e6:.2f}") for kind, m, size in (("teacher", chosen, _parameters(study, chosen)), ("student", student, student["params"])))
    parity = student["export"]
    return Section("Student against teacher", [
        Table("On test", ("", "model", "accuracy", "macro-F1", "minority-F1", "ECE", "NLL", "parameters (M)"), rows),
        Text(f"Retention of macro-F1: {100 * student['retention_macro_f1']:.1f} %. The ONNX file gives the same probabilities as torch within {parity['max_probability_difference']:.1e} on {parity['pictures']} val pictures, and weighs {parity['bytes'] / 1e6:.2f} MB."),
    ])  # fmt: skip


def _training(study: dict[str, Any], histories: dict[str, list[dict[str, Any]]]) -> Section:
    models = study["teachers"] + ([study["student"]] if study["student"] else [])
    rows = tuple((m["name"], str(m["training"]["steps"]), m["training"]["precision"], m["training"]["device"], f"{m['training']['seconds']:.0f}", fixed(m["training"]["best_val_macro_f1"])) for m in models)
    return Section("Training", [
        Figure("Training curves", figures.curves(histories), "Training loss and val macro-F1 over epochs"),
        Table("Trainings", ("run", "steps", "precision", "device", "seconds", "val macro-F1 kept"), rows),
    ])  # fmt: skip


def _classes(study: dict[str, Any]) -> Section:
    models = {study["selected"]["name"]: _chosen(study)} | {m["name"]: m for m in study["teachers"]}
    if study["student"]:
        models["student"] = study["student"]
    return Section("Confusion matrices", [
        Figure("Per cent of each label's test pictures", figures.confusions({n: m["test"]["confusion"] for n, m in models.items()}), "Confusion matrices"),
    ])  # fmt: skip


def _cost(study: dict[str, Any]) -> Section:
    models = {m["name"]: m for m in study["teachers"] + ([study["student"]] if study["student"] else [])}
    rows = tuple((r["name"], r["engine"], str(r["input"]), str(r["threads"]), fixed(r["p50_ms"], 2), fixed(r["p95_ms"], 2), f"{models[r['name']]['params'] / 1e6:.2f}", fixed(models[r["name"]]["size_mb"], 1)) for r in study["latency"])
    wall = tuple((name, fixed(seconds, 1)) for name, seconds in study["wall_s"].items())
    return Section("Size, latency, time", [
        Table("One picture at a time on this machine's CPU", ("model", "engine", "input (px)", "threads", "p50 (ms)", "p95 (ms)", "parameters (M)", "weights (MB)"), rows),
        Table("Wall time of each stage", ("stage", "seconds"), wall),
    ])  # fmt: skip


def _care(study: dict[str, Any]) -> Section:
    return Section("Terms and care", [
        Text("The output is an apparent expression, not what a person feels. In the EU, emotion inference at work and in education is prohibited except for medical or safety reasons (Regulation (EU) 2024/1689, Art. 5(1)(f)), and people exposed to emotion recognition must be told (Art. 50(3))."),
        Text("Weights carry the terms of the data they learned from: " + "; ".join(study["index"]["licenses"]) + "."),
        Text(f"Run again: `mien study` with the request in `request.json`. Selection {study['selected']['hash'][:16]}…, index {study['index']['fingerprint'][:16]}…."),
    ])  # fmt: skip
