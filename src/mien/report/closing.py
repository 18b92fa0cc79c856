"""The last sections: what limits these results, and how to make them again."""

from __future__ import annotations

from mien.core.labels import LABELS
from mien.report.blocks import (
    Block,
    Code,
    Constant,
    Heading,
    Items,
    Quote,
    Rounding,
    Section,
    Source,
    Span,
    Spans,
    Table,
    Text,
)
from mien.report.decision import accesses
from mien.report.material import Material, listed
from mien.report.node import combined, shortened

_THIN = 100  # test images under which the F1 of a class has an interval some tenths wide
_WIDE = 0.1


def limitations(material: Material) -> Section:
    """Limitations by the data: small classes, what was not run, how often test was read."""
    thin, missing = _thin(material), _not_run(material)
    blocks: list[Block] = [Heading("What is thin"), Items(thin)] if thin else []
    if missing:
        blocks += [Heading("What was not run"), Items(missing)]
    return Section(
        "limitations", "Limitations", [*_problems(material), *blocks, *_test_reads(material), *_warnings(material)]
    )


def _problems(material: Material) -> list[Block]:
    if not material.problems:
        return []
    texts = [
        Text(
            (Quote(path, Source(path, "$")), " is left out of this report. ", Quote(text, Source(path, "$"))), "warning"
        )
        for path, text in material.problems
    ]
    return [Heading("Files that could not be read"), *texts]


def _warnings(material: Material) -> list[Block]:
    """Warnings of the stages, each with its models."""
    models_by_text: dict[str, dict[str, Quote]] = {}
    quotes: dict[str, Quote] = {}
    for model in [*material.models, material.chosen]:
        for warning in model["warnings"]:
            models_by_text.setdefault(warning.text, {})[model.value["name"]] = model["name"].quote()
            quotes.setdefault(warning.text, warning.quote())
    rows = tuple((listed(list(models.values()), ", "), quotes[text]) for text, models in models_by_text.items())
    return (
        [Heading("Warnings"), Table("warnings", "What the stages warned of", ("models", "warning"), rows)]
        if rows
        else []
    )


def _thin(material: Material) -> tuple[Spans, ...]:
    chosen, points = material.chosen, list[Spans]()
    for i, name in enumerate(LABELS):
        row = chosen.at("test", "confusion", i)
        n = combined("sum", list(row), Rounding(0, style="count"))
        ends = chosen.at("test", "ci95").get(f"f1_{name}")
        if ends is not None and (n.value < _THIN or ends.value[1] - ends.value[0] > _WIDE):
            width = combined("difference", [ends[1], ends[0]], Rounding(2))
            points.append((f"{name}: ", n, " test images; the interval of its F1 is ", width, " wide."))
    if material.index is not None:
        train = material.index["distribution"]
        least = min(LABELS, key=lambda name: int(train.value[name]["train"]))
        points.append((f"The class with the fewest train images is {least}, ", train.at(least, "train").count(), "."))
        if len(material.index.value["by_source"]) == 1:
            points.append(
                (
                    (
                        "All images come from one source: what other cameras and people would give is not known from "
                        "these figures."
                    ),
                )
            )
    return tuple(points)


def _not_run(material: Material) -> tuple[Spans, ...]:
    points = list[Spans]()
    settings = {name: c["settings"].value for name, c in material.configs.items() if c.get("settings")}
    backbones = [s["backbone"]["value"] for s in settings.values()]
    if settings and len(set(backbones)) == len(backbones):
        points.append(
            (
                (
                    "No training was repeated with another seed: how much of a difference is luck of the start is not "
                    "known. `mien sweep` repeats trainings."
                ),
            )
        )
    if settings and all(s["pretrained"]["value"] == "none" for s in settings.values()):
        points.append(("No network started from pretrained weights (`pretrained`).",))
    chosen = material.chosen
    for key, words in (
        ("corruptions", "Corrupted images were not tried: `mien evaluate ENS --index DIR --all --corruptions`."),
        ("groups", "Groups of people were not compared: the index has no attributes."),
    ):
        if not chosen.value[key]:
            points.append((words,))
    if all(not m.value["transfer"] for m in material.models):
        points.append(("Test images of other sources were not tried: `mien evaluate RUN --on INDEX`.",))
    if chosen.get("test_as_distributed") is None:
        points.append(("There are no official test rows here, so that published figures cannot be compared.",))
    untried = [m["name"].quote() for m in material.models if not m.at("calibration", "heldout")]
    if untried:
        points.append(
            (
                "Richer calibration than a temperature was not tried for ",
                *listed(list(untried)),
                ", as calib has few rows.",
            )
        )
    return tuple(points)


def _test_reads(material: Material) -> list[Block]:
    rows = tuple(
        (f"`{name}`", evaluation.at("test_accesses", "before").count())
        for name, evaluation in material.evaluations.items()
    )
    blocks: list[Block] = [Heading("How often test was opened"), Text(accesses(material))]
    if rows:
        blocks.append(
            Table(
                "test-accesses", "Accesses to test on record before each model's figures", ("model", "accesses"), rows
            )
        )
    return blocks


def reproduction(material: Material) -> Section:
    """Commands, environment, hashes, times, terms."""
    blocks: list[Block] = [Heading("Commands")]
    if material.index is None:
        blocks.append(
            Code(
                "mien calibrate RUN                        # for each run\n"
                "mien ensemble RUN RUN --out ENS\n"
                "mien evaluate ENS --all                   # with --index DIR where there is one\n"
                "mien report ENS --format html,docx,pdf,md"
            )
        )
    else:
        blocks.append(Code("mien study study.toml --out DIR\nmien report DIR --format html,docx,pdf,md"))
        blocks.append(
            Text(
                "`study.toml` lies beside this report's folder where the study was run from a file; "
                "`request.json` there holds the same with every default."
            )
        )
    blocks += [*_environment(material), *_hashes(material), *_times(material), *_terms(material)]
    return Section("reproduction", "How to make it again", blocks)


def _environment(material: Material) -> list[Block]:
    blocks: list[Block] = []
    rows = []
    for name, e in material.environments.items():
        packages: list[Span | Spans] = [(f"`{key}` ", version.quote()) for key, version in e["packages"].items()]
        rows.append(
            (
                f"`{name}`",
                e["python"].quote(),
                e["platform"].quote(),
                e["processor"].quote() if e["processor"] else e["machine"].quote(),
                listed(packages, ", "),
            )
        )
    if rows:
        blocks += [
            Heading("Environment"),
            Table(
                "environment",
                "Where each training ran",
                ("run", "Python", "system", "processor", "packages"),
                tuple(rows),
            ),
        ]
    return blocks


def _hashes(material: Material) -> list[Block]:
    study = material.study
    rows: list[tuple[Span | Spans, ...]] = [("selection", shortened(study.at("selected", "hash")))]
    if material.index is not None:
        rows.append(("index", shortened(material.index["fingerprint"])))
    for name, manifest in material.manifests.items():
        weights = manifest["files"].get("best.safetensors")
        if weights is not None:
            rows.append((f"weights of `{name}`", shortened(weights["sha256"])))
    if study.get("git") is not None:
        rows.append(("revision of mien", study["git"].quote()))
    return [Heading("Hashes"), Table("hashes", "Hashes, by their first sixteen digits", ("what", "hash"), tuple(rows))]


def _times(material: Material) -> list[Block]:
    wall = material.study["wall_s"]
    if not wall:
        return []
    rows = tuple((Quote(stage, seconds.source), seconds.number(1, style="count")) for stage, seconds in wall.items())
    total = combined("sum", [seconds for _, seconds in wall.items()], Rounding(0, style="count"))
    return [
        Heading("Time"),
        Table(
            "wall-time", "Wall time of each stage", ("stage", "seconds"), rows, note=("Together ", total, " seconds.")
        ),
    ]


def _terms(material: Material) -> list[Block]:
    study, blocks = material.study, list[Block]()
    if study["terms"]:
        blocks.append(
            Text(
                (
                    "Weights carry the terms of the data they learned from: ",
                    *listed([t.quote() for t in study["terms"]], "; "),
                    ".",
                )
            )
        )
    if study["imported"]:
        blocks.append(
            Text(
                (
                    "Imported predictions, whose terms are not known here: ",
                    *listed([n.quote() for n in study["imported"]]),
                    ".",
                )
            )
        )
    blocks.append(
        Text(
            (
                "The law quoted in this report is ",
                Constant("Regulation (EU) 2024/1689", "the law's number"),
                "; this is no legal advice.",
            )
        )
    )
    return [Heading("Terms"), *blocks]
