"""Several runs to every combination of them, and a written selection."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from mien.core.artifacts import base
from mien.core.artifacts import ensemble as store
from mien.core.artifacts.calibration import Calibration, read_calibration
from mien.core.artifacts.predictions import (
    FitRows,
    Predictions,
    check_same_rows,
    predictions_path,
    read_predictions,
    write_predictions,
)
from mien.core.artifacts.run import Run, read_run
from mien.core.config.judge import EnsembleConfig
from mien.core.errors import UsageError
from mien.core.progress import meter, say
from mien.evaluate.bootstrap import with_intervals
from mien.evaluate.calibration import threshold_for_coverage
from mien.evaluate.metrics import softmax
from mien.evaluate.pooling import Fitted, fit_pool, pooled_logits
from mien.evaluate.selection import Candidate, select


@dataclass(frozen=True)
class _Member:
    run: Run
    calibration: Calibration
    val: Predictions
    calib: Predictions


def run(runs: list[Path], out: Path, config: EnsembleConfig, *, replace: bool = False) -> dict[str, Any]:
    """Make all combinations below `out`, score them on val and write `selected.json`."""
    members = [_open(folder) for folder in runs]
    if len({m.run.name for m in members}) < len(members):
        raise UsageError(
            f"Two runs have one name: {[m.run.name for m in members]}.",
            rule="Members are told apart by their folder's name.",
        )
    for split in ("val", "calib"):
        check_same_rows([getattr(m, split) for m in members])
    mark = base.fingerprint(
        "ensembles", store.VERSION, config.model_dump(mode="json"),
        {m.run.name: f"{m.calibration.fingerprint}:{m.val.hash}" for m in members},
    )  # fmt: skip
    if base.is_complete(out, mark):
        say(f"{out} holds these ensembles already.")
        return store.read_selection(out / store.SELECTION)
    if replace:
        base.make_way(out, mark)
    base.claim(out, kind="set of ensembles", fingerprint=mark)
    made = _combine(members, out, config)
    _choose(made, members, out, config)
    base.write_manifest(
        out, kind="ensembles", version=store.VERSION, fingerprint=mark, files=[store.SELECTION, "ensemble_summary.csv"]
    )
    return store.read_selection(out / store.SELECTION)


def _open(folder: Path) -> _Member:
    trained = read_run(folder)
    val, calib = (read_predictions(predictions_path(folder, split)) for split in ("val", "calib"))
    calibration = read_calibration(folder / "calibration.json", weights_hash=trained.weights_hash)
    for predictions in (val, calib):
        if predictions.meta["weights_hash"] != trained.weights_hash:
            raise UsageError(
                f"{folder} has {predictions.split} predictions of other weights.",
                fix="Predict again with `mien predict`.",
            )
        if predictions.meta["index"] != trained.config["index"]["content"]:
            raise UsageError(
                f"{folder} has {predictions.split} predictions of another index than it was trained on.",
                fix="Predict again with `mien predict`.",
            )
    return _Member(trained, calibration, val, calib)


@dataclass(frozen=True)
class _Made:
    ensemble: store.Ensemble
    members: list[_Member]
    val: Predictions
    fitted: Fitted


def _combine(members: list[_Member], out: Path, config: EnsembleConfig) -> list[_Made]:
    sets = [c for size in range(1, min(config.max_members, len(members)) + 1) for c in combinations(members, size)]
    jobs = [(list(c), pool) for c in sets for pool in (config.pools if len(c) > 1 else config.pools[:1])]
    made = []
    with meter("ensembles", len(jobs)) as progress:
        for group, pool in jobs:
            made.append(_make(group, pool, out, config))
            progress.advance()
    return made


def _make(group: list[_Member], pool: Any, out: Path, config: EnsembleConfig) -> _Made:
    temperatures = [m.calibration.temperature for m in group]
    fitted = fit_pool([FitRows.of(m.calib) for m in group], temperatures, pool, folds=config.folds, seed=config.seed)
    name = "+".join(m.run.name for m in group) + (f".{pool}" if len(group) > 1 else "")
    folder = out / name
    pooled = {
        s: pooled_logits([getattr(m, s).logits for m in group], fitted.weights, temperatures, pool)
        for s in ("val", "calib")
    }
    first = FitRows.of(group[0].calib)
    threshold = threshold_for_coverage(first.with_logits(pooled["calib"]), fitted.temperature.value, config.coverage)
    ensemble = store.Ensemble(
        name=name, pool=pool, weighting=fitted.weighting, temperature=fitted.temperature.value, abstain_below=threshold, why=fitted.why,
        members=tuple(
            store.Member(
                name=m.run.name, run=os.path.relpath(m.run.folder.resolve(), folder.resolve()), weights_hash=m.run.weights_hash,
                weight=float(w), temperature=t,
            ) for m, w, t in zip(group, fitted.weights, temperatures, strict=True)
        ),
    )  # fmt: skip
    store.write_ensemble(folder, ensemble)
    meta = {
        "name": name,
        "weights_hash": ensemble.weights_hash,
        "index": group[0].val.meta["index"],
        "scale_in_logits": True,
        "head": "pool",
        "pooled": True,
    }
    written = {}
    for split, logits in pooled.items():
        source: Predictions = getattr(group[0], split)
        written[split] = Predictions(split, source.image_ids, source.labels, logits / ensemble.temperature, meta)
        mark = base.fingerprint("pooled", store.VERSION, {"split": split}, {"ensemble": ensemble.weights_hash})
        write_predictions(predictions_path(folder, split), written[split], fingerprint=mark)
    return _Made(ensemble, group, written["val"], fitted)


def _choose(made: list[_Made], members: list[_Member], out: Path, config: EnsembleConfig) -> None:
    labels = made[0].val.labels
    candidates = [
        Candidate(m.ensemble.name, softmax(m.val.logits), sum(x.run.config["parameters"] for x in m.members))
        for m in made
    ]
    choice = select(candidates, labels, resamples=config.resamples, seed=config.seed)
    scores = {
        c.name: with_intervals(c.probabilities, labels, resamples=config.resamples, seed=config.seed)
        for c in candidates
    }
    singles = [m.ensemble.name for m in made if m.fitted.weighting == "single"]
    best_single = max(singles, key=lambda name: scores[name]["macro_f1"])  # type: ignore[arg-type,return-value]
    store.write_summary(
        out / "ensemble_summary.csv",
        [_summary_row(m, scores[m.ensemble.name], scores[best_single], best_single) for m in made],
    )
    store.write_selection(out, {
        "kind": "selection", "format": store.VERSION, "name": choice.name, "why": choice.why, "split": "val", "index": members[0].val.meta["index"], "best_single": best_single,
        "candidates": {m.ensemble.name: {"weights_hash": m.ensemble.weights_hash, "val": scores[m.ensemble.name]} for m in made},
        "runs": {m.run.name: m.run.weights_hash for m in members},
    })  # fmt: skip


def _summary_row(made: _Made, score: dict[str, Any], best: dict[str, Any], best_name: str) -> dict[str, Any]:
    """The report's columns and ours."""
    e = made.ensemble
    return {
        "ensemble": e.name, "members": len(e.members), "pool": e.pool, "weighting": e.weighting,
        "weights": "/".join(f"{w:.3f}" for w in e.weights), "T": round(e.temperature, 4),
        "macro_f1": round(score["macro_f1"], 5), "delta_macro_f1": round(score["macro_f1"] - best["macro_f1"], 5), "best_single": best_name,
        "minority_f1": round(score["minority_f1"], 5), "accuracy": round(score["accuracy"], 5), "ece": round(score["ece"], 5),
        "ece_floor": round(score["ece_floor"], 5), "brier": round(score["brier"], 5), "nll": round(score["nll"], 5),
        "macro_f1_low": round(score["ci95"]["macro_f1"][0], 5), "macro_f1_high": round(score["ci95"]["macro_f1"][1], 5),
        "parameters": sum(m.run.config["parameters"] for m in made.members), "comment": e.why,
    }  # fmt: skip
