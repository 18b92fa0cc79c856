"""Put a trained, judged run into the package: its ONNX files, `models.json`, the card and the weights' licence.

    python tools/ship_model.py RUN --index INDEX --name fer2013-mobilenetv2 --version 1 --command "mien study … "

The run must be evaluated. Files are exported anew: int8 where its gate passes, fp32 where it is small enough, fp16
where neither is. The first is the default and has the name; another has its precision behind it. Figures of fp32 and
fp16 are those of the run's `evaluation.json`. int8 is another model: it is judged on test here, as
`mien evaluate FILE --on INDEX` does; that access to test is recorded beside INDEX and in `RUN/shipped`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import onnx

from mien.core.artifacts import base
from mien.core.artifacts.evaluation import read_evaluation
from mien.core.artifacts.metrics import MetricsWithIntervals
from mien.core.artifacts.models import CATALOGUE, CardFigure, Catalogue, ShippedModel
from mien.core.artifacts.onnx_model import write_model
from mien.core.artifacts.run import read_run
from mien.core.config.judge import EvaluateConfig, ExportConfig
from mien.core.errors import MienError
from mien.core.labels import LABELS
from mien.core.progress import say
from mien.nn.export import describe
from mien.runtime.recognizer import open_session
from mien.stages import evaluate_on, export

MODELS = Path(__file__).parents[1] / "src" / "mien" / "models"
PRECISIONS = ("int8", "fp32", "fp16")
FIGURES = ("accuracy", "macro_f1", "minority_f1", "ece", "nll")
LABEL_NOTES = {
    "fer2013": (
        "The labels themselves are noisy: of the faces that annotators agree to be afraid, "
        "FER2013's own label says so for about\none in eight."
    ),
    "ferplus": (
        "The labels are FER+'s: ten annotators saw each image; "
        "a class counts when more than half of the remaining votes are for it.\n"
        "Images without such a majority, the hard ones, are not among the test images."
    ),
}
LARGEST_FP32 = 10_000_000  # bytes: larger fp32 files stay out of the package


def main() -> None:
    """Export, describe and register the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--command", required=True, help="the commands that made the run")
    parser.add_argument("--test", default="FER2013, official test, its labels, one crop", help="what test is, in words")
    asked = parser.parse_args()
    accesses = read_evaluation(asked.run)["test_accesses"]["before_selection"]
    run = read_run(asked.run)
    network_size = int(str(run.settings["img_size"] or run.config["crop"]["size"]))
    shipped: list[tuple[ShippedModel, MetricsWithIntervals]] = []
    for precision in PRECISIONS:
        if precision == "fp16" and shipped:
            continue
        made = ship(asked, precision, f"{asked.name}-{precision}" if shipped else asked.name)
        shipped += [] if made is None else [made]
    if not shipped:
        raise SystemExit("nothing was exported: the models that ship stay as they are")
    entries = [entry for entry, _ in shipped]
    register(entries)
    base.write_text(MODELS / "README.md", card(entries, shipped[0][1], accesses, asked.test, network_size))
    base.write_text(MODELS / "LICENSE", licence(entries[0]))


def ship(asked: argparse.Namespace, precision: str, name: str) -> tuple[ShippedModel, MetricsWithIntervals] | None:
    """Export one precision into the package; its entry and its figures on test.

    None, with the reason said, where it does not pass or is too large.
    """
    run = read_run(asked.run)
    path = asked.run / "shipped" / f"{name}.onnx"
    path.parent.mkdir(exist_ok=True)
    try:
        config = ExportConfig(int8=precision == "int8", fp16=precision == "fp16")
        parity = export.run(asked.run, asked.index, path, config)
    except MienError as error:
        say(f"{precision} is left out: {error}")
        return None
    if precision == "fp32" and parity["bytes"] > LARGEST_FP32:
        say(f"fp32 is left out: {parity['bytes']:,} bytes, more than {LARGEST_FP32:,}")
        return None
    name_model(path, name)
    if precision == "int8":
        scored = evaluate_on.run(path, asked.index, asked.index, EvaluateConfig())["test"]
    else:
        scored = read_evaluation(asked.run)["test"]
    shutil.copyfile(path, MODELS / path.name)
    entry = ShippedModel(
        name=name,
        version=asked.version,
        file=path.name,
        sha256=base.sha256_file(path),
        bytes=path.stat().st_size,
        precision=precision,
        backbone=run.settings["backbone"],
        parameters=run.config["parameters"],
        input_size=int(run.config["crop"]["size"]),
        data=run.config["index"]["sources"],
        terms=run.terms,
        figures=test_figures(scored, asked.test),
        command=asked.command,
    )
    return entry, scored


def name_model(path: Path, name: str) -> None:
    """Put the shipped name into a model file's card, in place of the run's: answers then say which model gave them."""
    proto, model_card = onnx.load(path), open_session(path, threads=1)[1]
    describe(proto, model_card.model_copy(update={"name": name}))
    write_model(path, proto.SerializeToString())


def test_figures(scored: MetricsWithIntervals, test: str) -> dict[str, CardFigure]:
    """Figures on test as the catalogue holds them."""
    values: dict[str, Any] = dict(scored)
    on = f"{scored['n']:,} distinct images ({test})"
    return {
        name: CardFigure(value=round(values[name], 6), ci95=tuple(round(v, 6) for v in scored["ci95"][name]), on=on)
        for name in FIGURES
    }


def register(entries: list[ShippedModel]) -> None:
    """Write `models.json`; the models of other names are removed with their files."""
    path = MODELS / CATALOGUE
    before = Catalogue.model_validate_json(path.read_text(encoding="utf-8"))
    for old in before.models:
        if old.file not in {entry.file for entry in entries}:
            (MODELS / old.file).unlink(missing_ok=True)
    after = Catalogue(default=entries[0].name, models=entries, downloads=before.downloads)
    base.write_json(path, after.model_dump(mode="json"))


def card(entries: list[ShippedModel], scored: MetricsWithIntervals, accesses: int, test: str, network_size: int) -> str:
    """The model card in Hugging Face's form: metadata with a `model-index`, then text. `scored`: of the first model."""
    first = entries[0]
    metrics = "\n".join(
        f"          - type: {name}\n            value: {entry.value}" for name, entry in first.figures.items()
    )
    rows = "\n".join(
        f"| {name} | {entry.value:.3f} | [{entry.ci95[0]:.3f}, {entry.ci95[1]:.3f}] |"
        for name, entry in first.figures.items()
    )
    classes = "\n".join(
        f"| {name} | {scored['per_class_f1'][name]:.3f} | "
        f"[{scored['ci95'][f'f1_{name}'][0]:.3f}, {scored['ci95'][f'f1_{name}'][1]:.3f}] |"
        for name in LABELS
    )
    files = "\n".join(f"| `{e.file}` | {e.precision} | {e.bytes / 1e6:.1f} MB | `{e.sha256[:16]}…` |" for e in entries)
    terms = "\n".join(f"* {text}" for text in first.terms)
    text = (Path(__file__).parent / "model_card.md").read_text(encoding="utf-8")
    values = {
        "NAME": first.name,
        "VERSION": first.version,
        "METRICS": metrics,
        "ROWS": rows,
        "CLASSES": classes,
        "FILES": files,
        "TERMS": terms,
        "TEST": test,
        "N": f"{scored['n']:,}",
        "COMMAND": first.command,
        "BACKBONE": first.backbone,
        "PARAMETERS": f"{first.parameters / 1e6:.1f}",
        "SIZE": str(first.input_size),
        "NETWORK_SIZE": str(network_size),
        "SOURCES": ", ".join(first.data),
        "FLOOR": f"{scored['ece_floor']:.3f}",
        "DATASETS": ", ".join(first.data),
        "DATASET": first.data[0],
        "LABELS": LABEL_NOTES.get(first.data[0], ""),
        "ACCESSES": str(accesses),
        "EARLIER": "" if first.version == "1" else "; earlier versions of the model had been judged on it",
    }
    for key, value in values.items():
        text = text.replace(f"{{{{{key}}}}}", value)
    return text


def licence(model: ShippedModel) -> str:
    """Terms of the weights, which are not those of the code."""
    terms = "\n".join(f"  * {text}" for text in model.terms)
    return f"""Terms of the model files in this folder (the code of mien is under Apache-2.0; these files are not).

The weights were learned from data with these terms:

{terms}

The images were gathered from the web for research, and no right to use them for anything else is known. Therefore:

1. The files may be used, copied and changed for research, teaching and evaluation.
2. For any other use it is up to you to establish the right to it; none is granted here.
3. They must not be used to infer emotions of people at work or in education, nor to decide anything about a person
   (Regulation (EU) 2024/1689, Art. 5(1)(f), Annex III).
4. They come without any warranty.
"""


if __name__ == "__main__":
    main()
