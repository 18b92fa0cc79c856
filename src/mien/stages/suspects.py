"""An index to the train rows whose labels are in doubt: networks of other folds, then confident learning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from mien.core.artifacts import base
from mien.core.artifacts import suspects as store
from mien.core.artifacts.index import Index, read_index
from mien.core.artifacts.plan import is_made
from mien.core.artifacts.run import KIND as RUN
from mien.core.artifacts.run import VERSION as RUN_VERSION
from mien.core.artifacts.run import read_run, starting_point
from mien.core.config.base import Origins
from mien.core.config.noise import SuspectsConfig
from mien.core.config.train import TrainConfig
from mien.core.labels import LABELS
from mien.data.audit.sheets import suspects_sheet
from mien.evaluate.calibration_error import Floats, Ints
from mien.evaluate.metrics import metrics, score_logits, softmax
from mien.evaluate.noise import find_suspects, spread_groups


def run(
    config: TrainConfig, origin: Origins, noise: SuspectsConfig, index_folder: Path, out: Path
) -> store.SuspectsSummary:
    """Train one network per fold, predict its held-out rows, and write the doubtful labels; goes on after a kill."""
    index = read_index(index_folder)
    settings = {"train": config.identity(), "noise": noise.model_dump(mode="json")}
    inputs = {"index": index.content_hash, **starting_point(config, index)}
    fingerprint = base.fingerprint(store.KIND, store.VERSION, settings, inputs)
    if is_made(out, fingerprint, holds="holds these suspects already"):
        return store.read_summary(out)
    base.claim(out, kind="set of suspects", fingerprint=fingerprint)
    rows = index.rows("train")
    labels = index.labels[rows]
    groups = np.array(index.table["group_id"].take(pa.array(rows)).to_pylist(), dtype=str)
    fold = spread_groups(groups, labels, noise.folds, config.seed)
    logits = np.empty((len(rows), len(LABELS)))
    for f in range(noise.folds):
        heldout = np.flatnonzero(fold == f)
        logits[heldout] = _heldout(config, origin, index, rows, heldout, out / "folds" / str(f), f"{fingerprint}:{f}")
    probabilities = softmax(logits)
    suspects = find_suspects(probabilities, labels)
    summary = _summary(index, probabilities, labels, suspects, noise)
    sheet = suspects_sheet(index.pixels, rows, labels, suspects, noise.sheet)
    store.write_suspects(out, index.image_ids[rows], labels, suspects, probabilities, summary, sheet, fingerprint)
    return store.read_summary(out)


def _heldout(
    config: TrainConfig,
    origin: Origins,
    index: Index,
    rows: Ints,
    heldout: Ints,
    out: Path,
    fingerprint: str,
) -> Floats:
    """Logits (n, 7) of the train rows at `heldout` by a network that learned on the others."""
    split = index.table["split"].to_pylist()
    for row in rows[heldout]:
        split[row] = "held"
    place = index.table.schema.get_field_index("split")
    view = replace(index, table=index.table.set_column(place, "split", pa.array(split)))
    run_fingerprint = base.fingerprint(RUN, RUN_VERSION, {}, {"fold": fingerprint})
    from mien.nn.inference import load_network  # noqa: PLC0415  (torch)
    from mien.nn.predict import predict_logits  # noqa: PLC0415
    from mien.nn.training.run import train_run  # noqa: PLC0415

    trained = (
        read_run(out)
        if base.is_complete(out, run_fingerprint)
        else train_run(config, origin, view, out, run_fingerprint, score=score_logits)
    )
    return predict_logits(load_network(trained), index.pixels, rows[heldout])


def _summary(
    index: Index, probabilities: Floats, labels: Ints, suspects: store.FoundSuspects, noise: SuspectsConfig
) -> store.SuspectsSummary:
    suspect, suggested = suspects["suspect"], suspects["suggested"]
    scored = metrics(probabilities, labels)
    changes = np.zeros((len(LABELS), len(LABELS)), dtype=int)
    np.add.at(changes, (labels[suspect], suggested[suspect]), 1)
    return {
        "index": index.content_hash,
        "folds": noise.folds,
        "rows": len(labels),
        "suspects": int(suspect.sum()),
        "share": float(suspect.mean()),
        "by_class": {name: int((suspect & (labels == c)).sum()) for c, name in enumerate(LABELS)},
        "suggested": {
            LABELS[a]: {LABELS[b]: int(changes[a, b]) for b in np.flatnonzero(changes[a])}
            for a in range(len(LABELS))
            if changes[a].any()
        },
        "out_of_fold": {
            "accuracy": scored["accuracy"],
            "macro_f1": scored["macro_f1"],
            "nll": scored["nll"],
            "ece": scored["ece"],
        },
    }
