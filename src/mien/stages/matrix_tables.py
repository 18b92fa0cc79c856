"""The judged runs of a matrix to its tables: each train source on each test source, over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from mien.core.artifacts import base
from mien.core.artifacts.evaluation import LeftOut, read_evaluation, read_transfer
from mien.core.artifacts.index import read_index
from mien.core.artifacts.matrix import SCHEMA, Cell, MatrixDocument, MatrixFolder, OverSeeds, write_matrix
from mien.core.artifacts.metrics import MetricsWithIntervals
from mien.core.artifacts.run import environment
from mien.core.config.matrix import MatrixConfig

Metric = Literal["macro_f1", "accuracy", "ece", "signed_gap"]
METRICS: dict[Metric, str] = {
    "macro_f1": "Macro-F1",
    "accuracy": "Accuracy",
    "ece": "ECE",
    "signed_gap": "Mean confidence minus accuracy",
}


def run(
    matrix: MatrixConfig, root: Path, seeds: dict[str, list[int]], failed: dict[tuple[str, int], str]
) -> MatrixDocument:
    """Write `matrix.json`, its tables and its figure from the evaluations and transfers in `root`.

    `seeds` are those of each train source whose runs have a result, `failed` says why others have none.
    """
    folder, names = MatrixFolder(root), [source.name for source in matrix.sources]
    indexes = {name: read_index(folder.index(name)) for name in names}
    cells = []
    for train_source in names:
        for test_source in names:
            runs = [folder.run(train_source, seed) for seed in seeds[train_source]]
            left_out: LeftOut = {"same": 0, "near": 0}
            if train_source == test_source:
                tests = [read_evaluation(run_folder)["test"] for run_folder in runs]
            else:
                transfers = [read_transfer(run_folder, indexes[test_source].content_hash) for run_folder in runs]
                tests, left_out = [transfer["test"] for transfer in transfers], transfers[0]["left_out"]
            cells.append(_cell(train_source, test_source, seeds[train_source], tests, left_out))
    document: MatrixDocument = {
        "schema": SCHEMA,
        "name": matrix.name,
        "description": matrix.description,
        "mien_git": base.git_revision(),
        "seeds": list(matrix.seeds),
        "sources": {
            n: {
                "content": i.content_hash,
                "sources": i.sources,
                "rows": {s: len(i.rows(s)) for s in ("train", "val", "calib", "test")},
            }
            for n, i in indexes.items()
        },
        "interval": (
            "95 %, of the mean over seeds: squares of the images' half-width (bootstrap) "
            "and the seeds' (Student's t) added"
        ),
        "cells": cells,
        "without_result": [{"source": n, "seed": s, "why": text} for (n, s), text in failed.items()],
        "environment": environment(),
    }
    write_matrix(root, document, tables(document), _figure(document))
    return document


def _cell(
    train_source: str, test_source: str, seeds: list[int], tests: list[MetricsWithIntervals], left_out: LeftOut
) -> Cell:
    return {
        "train": train_source,
        "test": test_source,
        "n": tests[0]["n"],
        "left_out": left_out,
        "runs": [
            {
                "seed": seed,
                "macro_f1": t["macro_f1"],
                "accuracy": t["accuracy"],
                "ece": t["ece"],
                "signed_gap": t["signed_gap"],
                "ci95": {key: t["ci95"][key] for key in METRICS},
            }
            for seed, t in zip(seeds, tests, strict=True)
        ],
        "macro_f1": _mean(tests, "macro_f1"),
        "accuracy": _mean(tests, "accuracy"),
        "ece": _mean(tests, "ece"),
        "signed_gap": _mean(tests, "signed_gap", least=-1.0),
    }


def _mean(tests: list[MetricsWithIntervals], key: Metric, *, least: float = 0.0) -> OverSeeds:
    return over_seeds([t[key] for t in tests], [t["ci95"][key] for t in tests], least, 1.0)


def over_seeds(values: list[float], intervals: list[list[float]], least: float, most: float) -> OverSeeds:
    """Mean over seeds, its spread, and a 95 % interval for images and seeds together, within [`least`, `most`].

    The images are the same for every seed, so that their part of the variance does not fall with the number of seeds;
    that of the seeds does, and is known from few. On either side the squares of the two distances are added, images' by
    the bootstrap, seeds' by Student's t (MOVER: Zou and Donner 2008, Statistics in Medicine 27). One seed has no spread
    (null), and its interval is that of the images.
    """
    from scipy.special import stdtrit  # noqa: PLC0415  (a tenth of a second to import)

    mean, k = float(np.mean(values)), len(values)
    below, above = (float(np.sqrt(np.mean((np.array(values) - ends) ** 2))) for ends in np.array(intervals).T)
    spread = float(np.std(values, ddof=1)) if k > 1 else None
    seeds = 0.0 if spread is None else float(stdtrit(k - 1, 0.975)) * spread / np.sqrt(k)
    low, high = mean - float(np.hypot(below, seeds)), mean + float(np.hypot(above, seeds))
    return {"mean": mean, "sd": spread, "ci95": [max(least, low), min(most, high)]}


def tables(document: MatrixDocument) -> str:
    """The matrix as Markdown, a table a metric: a row a train source, a column a test source."""
    names = list(document["sources"])
    cells = {(c["train"], c["test"]): c for c in document["cells"]}
    out = [
        f"{document['name']}: learned from the row's source, judged on the column's test, "
        f"mean over seeds {', '.join(map(str, document['seeds']))} with 95 % intervals.\n"
    ]
    for key, title in METRICS.items():
        out.append(f"\n| {title} | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}\n")
        for train_source in names:
            row = [_text(cells[train_source, test_source][key]) for test_source in names]
            out.append(f"| {train_source} | {' | '.join(row)} |\n")
    out.append(f"\n| Test images (left out) | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}\n")
    for train_source in names:
        row = [
            f"{c['n']:,} ({c['left_out']['same'] + c['left_out']['near']:,})"
            for test_source in names
            for c in [cells[train_source, test_source]]
        ]
        out.append(f"| {train_source} | {' | '.join(row)} |\n")
    out += [
        f"\n{missing['source']}, seed {missing['seed']}, has no result: {missing['why']}\n"
        for missing in document["without_result"]
    ]
    return "".join(out)


def _text(value: OverSeeds) -> str:
    return f"{value['mean']:.3f} [{value['ci95'][0]:.3f}, {value['ci95'][1]:.3f}]"


def _figure(document: MatrixDocument) -> bytes | None:
    """Heat maps, where matplotlib is installed."""
    try:
        from mien.report.figures import matrix  # noqa: PLC0415
    except ModuleNotFoundError:
        return None
    cells = {(c["train"], c["test"]): c for c in document["cells"]}
    names = list(document["sources"])
    means = {
        title: np.array([[cells[a, b][key]["mean"] for b in names] for a in names])
        for key, title in METRICS.items()
        if key != "signed_gap"
    }
    return matrix(names, means).png()
