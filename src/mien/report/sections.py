"""The sections of a report that speak of models: one function a section, study.json in, blocks out."""

from __future__ import annotations

from typing import Any

from mien.core.artifacts.run import best_look, looks
from mien.core.labels import LABELS
from mien.report import figures
from mien.report.blocks import Block, Figure, Section, Table, Text
from mien.report.study_view import HEADLINE, chosen_of, fixed, millions, models_of, parameters_of, with_ci


def singles(study: dict[str, Any]) -> Section:
    """Every model alone on test, with the rivals that guess."""
    models = models_of(study)
    best = study["selected"]["best_single"]
    rows = tuple(
        (m["name"], m["backbone"], millions(m["params"]), *(with_ci(m["test"], k) for k in HEADLINE), fixed(m["test"]["ece_floor"]), fixed(m["test"]["brier"]), fixed(m["test"]["nll"]), fixed(m["calibration"]["T"]), f"{m['best_epoch']}/{m['epochs']}" if m["training"] else "–")
        for m in models
    ) + tuple((name, "–", "–", fixed(b["accuracy"]), fixed(b["macro_f1"]), fixed(b["minority_f1"]), *["–"] * 6) for name, b in study["baselines"]["test"].items())  # fmt: skip
    head = (
        "model",
        "backbone",
        "parameters (M)",
        "accuracy",
        "macro-F1",
        "minority-F1",
        "ECE",
        "floor",
        "Brier",
        "NLL",
        "T",
        "epoch kept",
    )
    strong = frozenset(i for i, m in enumerate(models) if m["name"] == best)
    per_class = tuple(
        (m["name"], *(fixed(m["test"]["per_class_f1"][name]) for name in LABELS))
        for m in [*models, *[e for e in study["ensembles"] if len(e["members"]) > 1]]
    )
    blocks: list[Block] = [
        Table(
            "Single models on test, calibrated on calib",
            head,
            rows,
            strong,
            note="The marked row is the best single, fixed on val by macro-F1.",
        ),
        Table("F1 of each class on test", ("model", *LABELS), per_class),
        Figure(
            "F1 of each class on test with 95 % intervals",
            figures.class_f1(
                {m["name"]: m["test"]["per_class_f1"] for m in models}, {m["name"]: m["test"]["ci95"] for m in models}
            ),
            "Bars of F1 by class and model",
        ),
    ]
    blocks += _as_distributed([*models, *(e for e in study["ensembles"] if len(e["members"]) > 1)])
    return Section("Single models", blocks)


def _as_distributed(models: list[dict[str, Any]]) -> list[Block]:
    """Test as its source distributes it, for comparison with published figures; nothing without official rows."""
    rows = []
    for m in models:
        ours, theirs = m["test"], m["test_as_distributed"]
        if theirs:
            both = [f"{ours['n']:,}", fixed(ours["accuracy"]), fixed(ours["macro_f1"])]
            both += [f"{theirs['n']:,}", fixed(theirs["accuracy"]), fixed(theirs["macro_f1"]), f"{theirs['left_out']}"]
            rows.append((m["name"], *both))
    if not rows:
        return []
    head = ("model", "distinct n", "accuracy", "macro-F1", "as distributed n", "accuracy", "macro-F1", "left out")
    return [
        Table(
            "Test as this index has it, and as its source distributes it",
            head,
            tuple(rows),
            note="As distributed: every official test row with its own label, repeats included; "
            "left out are rows whose picture has no majority label.",
        )
    ]


def student(study: dict[str, Any]) -> Section:
    """The student beside its teacher."""
    student, chosen = study["student"], chosen_of(study)
    rows = tuple(
        (kind, m["name"], *(with_ci(m["test"], k) for k in HEADLINE), fixed(m["test"]["nll"]), f"{size / 1e6:.2f}")
        for kind, m, size in (
            ("teacher", chosen, parameters_of(study, chosen)),
            ("student", student, student["params"]),
        )
    )
    parity = student["export"]
    return Section("Student against teacher", [
        Table("On test", ("", "model", "accuracy", "macro-F1", "minority-F1", "ECE", "NLL", "parameters (M)"), rows),
        Text(f"Retention of macro-F1: {100 * student['retention_macro_f1']:.1f} % [{100 * student['retention_ci95'][0]:.1f}, {100 * student['retention_ci95'][1]:.1f}]. {_export(parity)}"),
    ])  # fmt: skip


def _export(parity: dict[str, Any]) -> str:
    """What is known of the ONNX file."""
    if parity["int8"]:
        val = parity["val"]
        return (
            f"The ONNX file is quantised (int8) and calibrated on its own logits: on val macro-F1 is {val['int8']['macro_f1']:.4f} where the float model has "
            f"{val['float']['macro_f1']:.4f}, the ECE {val['int8']['ece']:.4f} where it has {val['float']['ece']:.4f}; {val['labels_changed']:.1%} of the labels changed. It weighs {parity['bytes'] / 1e6:.2f} MB."
        )
    return f"The ONNX file gives the same probabilities as torch within {parity['max_probability_difference']:.1e} on {parity['pictures']} val pictures, and weighs {parity['bytes'] / 1e6:.2f} MB."


def training(study: dict[str, Any], histories: dict[str, list[dict[str, Any]]]) -> Section:
    """Curves, peaks, what went wrong, and the cost of the trainings."""
    models = [m for m in models_of(study) if m["training"]]
    section = Section("Training", [
        Figure("Training curves", figures.curves(histories), "Training loss and val macro-F1 over epochs"),
        Table(
            "Trainings: val macro-F1 at its peak, whose weights are kept, and at the end", ("run", "peak", "at epoch", "of", "at the end", "fall since", "raw weights at the peak"),
            tuple(_peak(m["name"], histories[m["name"]], m["epochs"]) for m in models),
            note="Kept and judged are the moving averages of the weights, where a run has them; the last column is what the weights themselves scored.",
        ),
        Table(
            "Their cost", ("run", "steps", "precision", "device", "processes", "seconds"),
            tuple((m["name"], f"{t['steps']:,}", t["precision"], t["device"], str(t["processes"]), f"{t['seconds']:.0f}") for m in models for t in [m["training"]]),
        ),
    ])  # fmt: skip
    for model in models:
        for event in model["training"]["events"]:
            section.blocks.append(
                Text(f"`{model['name']}`, {event['kind']}: {event['text']}. The best weights before were kept.", "note")
            )
    return section


def _peak(name: str, history: list[dict[str, Any]], epochs: int) -> tuple[str, ...]:
    best = best_look(history)
    peak, end = best["val"]["macro_f1"], looks(history)[-1]["val"]["macro_f1"]
    raw = fixed(best["val_raw"]["macro_f1"]) if "val_raw" in best else "–"
    return (name, fixed(peak), str(best["epoch"]), str(epochs), fixed(end), fixed(peak - end), raw)


def classes(study: dict[str, Any]) -> Section:
    """Confusion matrices."""
    models = {study["selected"]["name"]: chosen_of(study)} | {m["name"]: m for m in study["teachers"]}
    if study["student"]:
        models["student"] = study["student"]
    return Section("Confusion matrices", [
        Figure("Per cent of each label's test pictures", figures.confusions({n: m["test"]["confusion"] for n, m in models.items()}), "Confusion matrices"),
    ])  # fmt: skip


def cost(study: dict[str, Any]) -> Section:
    """Sizes, latencies, wall times."""
    models = {m["name"]: m for m in models_of(study)}
    rows = tuple(
        (
            r["name"],
            r["engine"],
            str(r["input"]),
            str(r["threads"]),
            fixed(r["p50_ms"], 2),
            fixed(r["p95_ms"], 2),
            millions(models[r["name"]]["params"]),
            fixed(models[r["name"]]["size_mb"], 1),
        )
        for r in study["latency"]
    )
    wall = tuple((name, fixed(seconds, 1)) for name, seconds in study["wall_s"].items())
    tables = (
        Table("One picture at a time on this machine's CPU", ("model", "engine", "input (px)", "threads", "p50 (ms)", "p95 (ms)", "parameters (M)", "weights (MB)"), rows),
        Table("Wall time of each stage", ("stage", "seconds"), wall),
    )  # fmt: skip
    return Section("Size, latency, time", [table for table in tables if table.rows])


def care(study: dict[str, Any]) -> Section:
    """Terms of the data, the law, how to run it again."""
    care = Section("Terms and care", [
        Text("The output is an apparent expression, not what a person feels. In the EU, emotion inference at work and in education is prohibited except for medical or safety reasons (Regulation (EU) 2024/1689, Art. 5(1)(f)), and people exposed to emotion recognition must be told (Art. 50(3))."),
    ])  # fmt: skip
    if study["terms"]:
        care.blocks.append(Text("Weights carry the terms of the data they learned from: " + "; ".join(study["terms"]) + "."))  # fmt: skip
    if study["imported"]:
        care.blocks.append(Text(f"Imported predictions, whose terms are not known here: {', '.join(study['imported'])}."))  # fmt: skip
    chosen = f"Selection {study['selected']['hash'][:16]}…"
    if study["index"] is None:
        care.blocks.append(Text(f"{chosen}."))
    else:
        care.blocks.append(Text(f"Run again: `mien study study.toml --out DIR`, with the file that lies beside this report's folder. {chosen}, index {study['index']['fingerprint'][:16]}…."))  # fmt: skip
    return care
