"""The runs of a sweep to its comparison: `sweep.json`, a table and curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts import base
from mien.core.artifacts.index import read_index
from mien.core.artifacts.predictions import check_same_rows, predictions_path, read_predictions
from mien.core.artifacts.run import Epoch, best_epoch, environment, read_metrics, read_run, validated_epochs
from mien.core.artifacts.sweep import (
    SCHEMA,
    Spread,
    SweepDocument,
    SweepFolder,
    SweepRun,
    SweepVariant,
    VariantDifference,
    write_sweep,
)
from mien.core.config.sweep import SweepConfig
from mien.core.errors import TrainingDiverged
from mien.evaluate.bootstrap import resampled_many
from mien.evaluate.comparison import Difference, compare
from mien.evaluate.metrics import softmax


def run(sweep: SweepConfig, root: Path, failed: dict[tuple[str, int], str] | None = None) -> SweepDocument:
    """Compare the runs in `root` on val and write the comparison.

    `failed` are runs without a result, and why; their variants are listed and not compared.
    """
    folder, failed = SweepFolder(root), failed or {}
    lost = {name: {str(seed): text for (n, seed), text in failed.items() if n == name} for name, _ in failed}
    if sweep.baseline in lost:
        raise TrainingDiverged(
            f"The baseline {sweep.baseline} has no result: {next(iter(lost[sweep.baseline].values()))}"
        )
    complete = [v.name for v in sweep.variants if v.name not in lost]
    histories = {name: [read_metrics(folder.run(name, s)) for s in sweep.seeds] for name in complete}
    variants = [_variant(folder, sweep, name, histories[name]) for name in complete]
    scores = np.array([[result["best"]["macro_f1"] for result in v["runs"]] for v in variants])
    resampled = _resampled([[folder.run(name, s) for s in sweep.seeds] for name in complete])
    differences = compare(scores, complete.index(sweep.baseline), resampled) if len(complete) > 1 else [None]
    for entry, difference in zip(variants, differences, strict=True):
        entry["difference"] = None if difference is None else _difference(difference)
    index = read_index(folder.index)
    document: SweepDocument = {
        "schema": SCHEMA,
        "name": sweep.name,
        "description": sweep.description,
        "mien_git": base.git_revision(),
        "baseline": sweep.baseline,
        "seeds": list(sweep.seeds),
        "index": {
            "content": index.content_hash,
            "sources": index.sources,
            "rows": {s: len(index.rows(s)) for s in ("train", "val")},
        },
        "judged_on": "val, at the epoch that val chose",
        "interval": (
            "95 %, of the mean difference over seeds: squares of the images' half-width (bootstrap) "
            "and the seeds' (Student's t) added"
        ),
        "variants": variants,
        "without_result": lost,
        "environment": environment(),
    }
    write_sweep(root, document, table(document), _curves(histories))
    return document


def _resampled(runs: list[list[Path]], resamples: int = 1000) -> NDArray[np.float64]:
    """Mean macro-F1 over seeds of each variant (variants, resamples), on the same resamples of val for all runs."""
    predictions = [[read_predictions(predictions_path(run, "val")) for run in several] for several in runs]
    first = predictions[0][0]
    check_same_rows([p for several in predictions for p in several])
    drawn = resampled_many(
        [softmax(p.logits) for several in predictions for p in several],
        first.labels,
        resamples=resamples,
        full=False,
        groups=first.groups,
    )
    return np.asarray(np.array([scores["macro_f1"] for scores in drawn]).reshape(len(runs), -1, resamples).mean(1))


def _variant(folder: SweepFolder, sweep: SweepConfig, name: str, histories: list[list[Epoch]]) -> SweepVariant:
    runs: list[SweepRun] = []
    for seed, history in zip(sweep.seeds, histories, strict=True):
        trained = read_run(folder.run(name, seed))
        epochs, best = validated_epochs(history), best_epoch(history)
        runs.append(
            {
                "seed": seed,
                "best": {
                    "macro_f1": best["val"]["macro_f1"],
                    "accuracy": best["val"]["accuracy"],
                    "nll": best["val"]["nll"],
                },
                "best_epoch": best["epoch"],
                "last": epochs[-1]["val"]["macro_f1"],
                "fall_after_margin": fall_after_margin(epochs),
                "events": trained.manifest["events"],
                "seconds": trained.environment["training"]["seconds"],
                "curve": [[line["epoch"], line["val"]["macro_f1"], line["margin"]] for line in epochs],
            }
        )
    settings = next(v.settings for v in sweep.variants if v.name == name)
    return {
        "name": name,
        "settings": settings,
        "runs": runs,
        "val": {
            "macro_f1": _spread([result["best"]["macro_f1"] for result in runs]),
            "accuracy": _spread([result["best"]["accuracy"] for result in runs]),
            "nll": _spread([result["best"]["nll"] for result in runs]),
            "last": _spread([result["last"] for result in runs]),
        },
        "difference": None,
    }


def _spread(values: list[float]) -> Spread:
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}


def _difference(difference: Difference) -> VariantDifference:
    return {
        "mean": difference.mean,
        "ci95": difference.ci95,
        "p": difference.p,
        "p_holm": difference.p_holm,
        "per_seed": difference.per_seed,
    }


def fall_after_margin(epochs: list[Epoch]) -> float | None:
    """How far val macro-F1 fell under its best before the margin, at its lowest after; None without a margin.

    Negative when it never came back down to it.
    """
    before = [line["val"]["macro_f1"] for line in epochs if line["margin"] == 0]
    after = [line["val"]["macro_f1"] for line in epochs if line["margin"] > 0]
    return max(before) - min(after) if before and after else None


def table(document: SweepDocument) -> str:
    """The comparison as a Markdown table."""
    # Before schema 2 intervals counted the seeds' variance alone.
    over = "for images and seeds together" if document["schema"] >= SCHEMA else "over seeds alone"
    head = (
        f"{document['name']}: val macro-F1 at the best epoch, mean ± sd over seeds "
        f"{', '.join(map(str, document['seeds']))}; "
        f"paired differences from {document['baseline']} with 95 % intervals {over}, p by Holm.\n\n"
        "| variant | macro-F1 | at the end | accuracy | NLL | difference | p (Holm) | events |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    without_result = [
        f"\n{name} has no result: {next(iter(texts.values()))}\n" for name, texts in document["without_result"].items()
    ]
    return head + "".join(_row(variant) for variant in document["variants"]) + "".join(without_result)


def _row(variant: SweepVariant) -> str:
    v, d = variant["val"], variant["difference"]
    spreads = (v["macro_f1"], v["last"], v["accuracy"], v["nll"])
    gap = "baseline" if d is None else f"{100 * d['mean']:+.1f} [{100 * d['ci95'][0]:+.1f}, {100 * d['ci95'][1]:+.1f}]"
    events = sorted({event["kind"] for run in variant["runs"] for event in run["events"]})
    cells = [
        variant["name"],
        *(f"{spread['mean']:.3f} ± {spread['sd']:.3f}" for spread in spreads),
        gap,
        "" if d is None else f"{d['p_holm']:.3f}",
        ", ".join(events) or "–",
    ]
    return "| " + " | ".join(cells) + " |\n"


def _curves(histories: dict[str, list[list[Epoch]]]) -> bytes | None:
    """Val macro-F1 over epochs, where matplotlib is installed."""
    try:
        from mien.report.figures import sweep_curves  # noqa: PLC0415
    except ModuleNotFoundError:
        return None
    return sweep_curves(histories).png()
