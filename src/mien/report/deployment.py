"""The sections on use: sizes and latencies, and the student beside its teacher."""

from __future__ import annotations

from mien.report.blocks import Block, Constant, Section, Span, Spans, Table, Text
from mien.report.decision import retention
from mien.report.material import Material, scores


def deployment(material: Material) -> Section:
    """Size and latency of models and ensembles, and of every engine that was measured."""
    candidates = material.ensembles + ([material.student] if material.student else [])
    measured = [
        m
        for m in candidates
        if not any(t.value["latency"] is None for t in ([m] if "members" not in m.value else material.teachers_of(m)))
    ]
    section = Section("deployment", "Deployment: size and latency")
    if not measured:
        section.blocks.append(
            Text(
                "Imported predictions have no network whose size and latency could be measured. "
                "`mien train --index DIR --out RUN --backbone NAME` makes one."
            )
        )
        return section
    rows = tuple(
        (
            m["name"].quote(),
            material.parameters(m),
            material.size(m),
            material.latency(m),
            "one after the other" if len(m.value.get("members", "x")) > 1 else "one network",
        )
        for m in measured
    )
    engines = tuple(
        (
            r["name"].quote(),
            r["engine"].quote(),
            r["input"].number(0),
            r["threads"].number(0),
            r["p50_ms"].number(2),
            r["p95_ms"].number(2),
        )
        for r in material.study["latency"]
    )
    section.blocks += [
        Table(
            "size-and-latency",
            "Size, and latency of one image on the processor of this study",
            ("model", "parameters (M)", "weights (MB)", "median latency (ms)", "members run"),
            rows,
            note="An ensemble's figures are the sums of its members'.",
        ),
        Table(
            "latency",
            "Latency by engine, one image at a time",
            (
                "model",
                "engine",
                "input (px)",
                "threads",
                "median (ms)",
                (Constant("95th", "percentile of the latency"), " percentile (ms)"),
            ),
            engines,
        ),
    ]
    return section


def student(material: Material) -> Section:
    """The student beside its teacher."""
    section = Section("student", "Student against teacher")
    pupil, chosen = material.student, material.chosen
    if pupil is None:
        section.blocks.append(
            Text("No student was taught. `mien distill --teacher ENS --index DIR --out RUN` makes one.")
        )
        return section
    rows: tuple[tuple[Span | Spans, ...], ...] = tuple(
        (m["name"].quote(), kind, *scores(m["test"]), m.at("test", "nll").number(), material.parameters(m))
        for kind, m in (("teacher", chosen), ("student", pupil))
    )
    blocks: list[Block] = [
        Table(
            "student-against-teacher",
            "Student against teacher on test",
            ("model", "role", "accuracy", "macro-F1", "minority-F1", "ECE", "NLL", "parameters (M)"),
            rows,
        )
    ]
    parity = pupil.get("export")
    blocks.append(Text(("It keeps ", retention(pupil), " per cent of its teacher's macro-F1.")))
    if parity is None:
        blocks.append(
            Text("It was not exported. `mien export RUN --index DIR --out model.onnx` writes the model file.")
        )
    elif parity.value["int8"]:
        val = parity["val"]
        blocks.append(
            Text(
                (
                    "Its ONNX file is quantised (int8) and calibrated on its own logits: on val macro-F1 is ",
                    val.at("int8", "macro_f1").number(4),
                    " where the float model has ",
                    val.at("float", "macro_f1").number(4),
                    ", the ECE ",
                    val.at("int8", "ece").number(4),
                    " where it has ",
                    val.at("float", "ece").number(4),
                    "; ",
                    val["labels_changed"].percent(),
                    " per cent of the labels changed. It weighs ",
                    parity["bytes"].number(2, scale=1e-6),
                    " MB.",
                )
            )
        )
    else:
        blocks.append(
            Text(
                (
                    "Its ONNX file gives the same probabilities as PyTorch within ",
                    parity["max_probability_difference"].number(2, style="significant"),
                    " on ",
                    parity["pictures"].count(),
                    " val images, and weighs ",
                    parity["bytes"].number(2, scale=1e-6),
                    " MB.",
                )
            )
        )
    section.blocks = blocks
    return section
