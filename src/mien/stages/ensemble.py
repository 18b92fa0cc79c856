"""Several runs to every combination of them, and a written selection."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from mien.core.artifacts import base
from mien.core.artifacts import ensemble as store
from mien.core.artifacts import test_accesses as accesses
from mien.core.artifacts.calibration import Calibration, read_calibration
from mien.core.artifacts.calibration_rows import CalibrationRows
from mien.core.artifacts.metrics import MetricsWithIntervals
from mien.core.artifacts.plan import is_made
from mien.core.artifacts.prediction_source import PredictionSource, read_prediction_source
from mien.core.artifacts.predictions import (
    Predictions,
    check_same_rows,
    predictions_path,
    read_predictions,
    write_predictions,
)
from mien.core.config.judge import EnsembleConfig, parse_weights
from mien.core.config.recipes import is_transformer
from mien.core.errors import UsageError, nearest
from mien.core.progress import meter, warn
from mien.evaluate.bootstrap import interval, mcnemar, resampled_many, with_intervals
from mien.evaluate.calibration_error import Floats
from mien.evaluate.decisions import fit_decisions
from mien.evaluate.metrics import confusion, f1_scores, softmax
from mien.evaluate.pooling import Fitted, diversity, fit_pool, pooled_logits, rivals
from mien.evaluate.scaling import scaling_of
from mien.evaluate.selection import Candidate, select
from mien.evaluate.weights import Pool

KINDS = {1: "single", 2: "pair", 3: "triple"}


@dataclass(frozen=True)
class _Member:
    source: PredictionSource
    calibration: Calibration
    val: Predictions
    calib: Predictions

    @property
    def name(self) -> str:
        return self.source.name


@dataclass(frozen=True)
class _Job:
    """Which members to join, and how; `weights` where they are not to be searched."""

    group: list[_Member]
    weights: tuple[float, ...] | None
    pool: Pool

    @property
    def name(self) -> str:
        """The members' names joined by +, the pool, and fixed weights in per cent."""
        joined = "+".join(m.name for m in self.group) + (f".{self.pool}" if len(self.group) > 1 else "")
        return joined if self.weights is None else joined + "." + "-".join(f"{100 * w:g}" for w in self.weights)


@dataclass(frozen=True)
class _Made:
    ensemble: store.Ensemble
    members: list[_Member]
    val: Predictions
    fitted: Fitted

    @property
    def kind(self) -> str:
        """single, pair, triple …; hybrid where convolutions and attention are joined."""
        mixed = {is_transformer(m.source.backbone) for m in self.members}
        return "hybrid" if len(mixed) > 1 else KINDS.get(len(self.members), f"{len(self.members)} members")

    @property
    def parameters(self) -> int | None:
        counts = [m.source.parameters for m in self.members if m.source.parameters is not None]
        return sum(counts) if len(counts) == len(self.members) else None

    def latency_ms(self, of: dict[str, float | None]) -> float | None:
        """Milliseconds of one image through all members, from each one's."""
        times = [t for m in self.members if (t := of[m.name]) is not None]
        return sum(times) if len(times) == len(self.members) else None


def run(
    runs: list[Path], out: Path, config: EnsembleConfig, *, replace: bool = False, again: bool = False
) -> store.SelectionDocument:
    """Make all combinations below `out`, score them on val and write `selected.json`.

    Raises `SplitError` for a new selection after test was opened, unless `again`: it then states how often that was.
    """
    members = [_open(folder) for folder in runs]
    if len({m.name for m in members}) < len(members):
        raise UsageError(
            f"Two runs have one name: {[m.name for m in members]}.",
            rule="Members are told apart by their folder's name.",
        )
    for split in ("val", "calib"):
        check_same_rows([getattr(m, split) for m in members])
    first = members[0].source
    for other in members[1:]:
        if other.source.index_hash != first.index_hash:
            raise UsageError(
                f"{first.folder} and {other.source.folder} were not made for the same images.",
                rule="All members have the same rows of val, calib and test, of one index or of one import.",
                fix="Predict them with one --index, or import files that have the same ids, labels and splits.",
            )
    _jobs(members, config)
    fingerprint = base.fingerprint(
        "ensembles",
        store.VERSION,
        config.model_dump(mode="json"),
        {m.name: f"{m.calibration.fingerprint}:{m.val.hash}" for m in members},
    )
    if is_made(out, fingerprint, holds="holds these ensembles already"):
        return store.read_selection(out / store.SELECTION)
    opened = accesses.read_accesses(
        [accesses.origin_of(m.source.folder, m.calib.meta) for m in members], out.resolve().parent
    )
    count = accesses.check_unopened(opened, "this selection was written", again=again)
    if replace:
        base.make_way(out, fingerprint)
    base.claim(out, kind="set of ensembles", fingerprint=fingerprint)
    for text in _shortcomings(CalibrationRows.of(members[0].calib)):
        warn(f"ensembles: {text}")
    made = _combine(members, out, config)
    _choose(made, members, out, config, count)
    store.finish_ensembles(out, fingerprint)
    return store.read_selection(out / store.SELECTION)


def _open(folder: Path) -> _Member:
    source = read_prediction_source(folder)
    val, calib = (read_predictions(predictions_path(folder, split)) for split in ("val", "calib"))
    calibration = read_calibration(folder / "calibration.json", weights_hash=source.weights_hash)
    if calibration.prior is not None:
        raise UsageError(
            f"{folder} is calibrated for other class shares than calib's.",
            rule="Members are joined and compared on val and calib, with the shares that these have.",
            fix=(
                "Calibrate it without --prior, make the ensembles, then calibrate it with --prior: "
                "the selection still knows it."
            ),
        )
    for predictions in (val, calib):
        if predictions.meta["weights_hash"] != source.weights_hash:
            raise UsageError(
                f"{folder} has {predictions.split} predictions of other weights.",
                fix="Predict again with `mien predict`.",
            )
        if predictions.meta["index"] != source.index_hash:
            raise UsageError(
                f"{folder} has {predictions.split} predictions of another index than it was trained on.",
                fix="Predict again with `mien predict`.",
            )
    return _Member(source, calibration, val, calib)


def _jobs(members: list[_Member], config: EnsembleConfig) -> list[_Job]:
    """Every combination and how it is pooled, and those of fixed weights, each under a name of its own."""
    sets = [c for size in range(1, min(config.max_members, len(members)) + 1) for c in combinations(members, size)]
    jobs = [_Job(list(c), None, pool) for c in sets for pool in (config.pools if len(c) > 1 else config.pools[:1])]
    jobs += [_Job(*_weighted(members, entry), pool) for entry in config.fixed for pool in config.pools]
    names = [job.name for job in jobs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            f"Two combinations would be called {twice[0]!r}.",
            rule="A combination's name is its members' joined by +.",
            fix="Rename that run's folder.",
        )
    return jobs


def _weighted(members: list[_Member], entry: str) -> tuple[list[_Member], tuple[float, ...]]:
    """The runs and weights that an entry of `fixed` names."""
    weights, by_name = parse_weights(entry), {m.name: m for m in members}
    for name in weights:
        if name not in by_name:
            raise UsageError(
                f"fixed {entry!r} names no run {name!r}.{nearest(name, by_name)}",
                rule=f"Weights are fixed for runs that are joined: {', '.join(by_name)}.",
            )
    return [by_name[name] for name in weights], tuple(weights.values())


def _combine(members: list[_Member], out: Path, config: EnsembleConfig) -> list[_Made]:
    jobs = _jobs(members, config)
    made = []
    with meter("ensembles", len(jobs)) as progress:
        for job in jobs:
            made.append(_make(job, out, config))
            progress.advance()
    return made


def _make(job: _Job, out: Path, config: EnsembleConfig) -> _Made:
    group, pool, name = job.group, job.pool, job.name
    rows = [_calibrated(m) for m in group]
    plain = [1.0] * len(group)  # members are calibrated already
    fixed = None if job.weights is None else np.array(job.weights)
    fitted = fit_pool(rows, plain, pool, searches=config.searches, folds=config.folds, seed=config.seed, fixed=fixed)
    for text in fitted.warnings:
        warn(f"{name}: {text}")
    folder = out / name
    pooled = {
        s: pooled_logits(
            [scaling_of(m.calibration).apply(getattr(m, s).logits) for m in group], fitted.weights, plain, pool
        )
        / fitted.temperature.value
        for s in ("val", "calib")
    }
    decisions = fit_decisions(
        rows[0].with_logits(pooled["calib"]).part("thresholds"),
        coverage=config.coverage,
        precision=config.precision,
        max_fpr=config.fpr_bounds,
        alpha=config.alpha,
    )
    ensemble = store.Ensemble(
        name=name,
        pool=pool,
        weighting=fitted.weighting,
        temperature=fitted.temperature.value,
        temperature_ci95=fitted.temperature.ci95,
        decisions=decisions,
        heldout=fitted.heldout,
        why=fitted.why,
        warnings=[*_shortcomings(rows[0]), *fitted.warnings],
        members=tuple(
            store.Member(
                name=m.name,
                run=os.path.relpath(m.source.folder.resolve(), folder.resolve()),
                weights_hash=m.source.weights_hash,
                weight=float(w),
                method=m.calibration.method,
                temperature=m.calibration.temperature,
                matrix=m.calibration.matrix,
                bias=m.calibration.bias,
            )
            for m, w in zip(group, fitted.weights, strict=True)
        ),
    )
    store.write_ensemble(folder, ensemble)
    meta = store.pooled_meta(ensemble, group[0].val.meta["index"])
    written = {}
    for split, logits in pooled.items():
        source: Predictions = getattr(group[0], split)
        written[split] = Predictions(split, source.image_ids, source.labels, logits, meta, source.groups)
        fingerprint = base.fingerprint("pooled", store.VERSION, {"split": split}, {"ensemble": ensemble.weights_hash})
        write_predictions(predictions_path(folder, split), written[split], fingerprint=fingerprint)
    return _Made(ensemble, group, written["val"], fitted)


def _calibrated(member: _Member) -> CalibrationRows:
    """A member's calib rows with its calibrated logits."""
    rows = CalibrationRows.of(member.calib)
    return rows.with_logits(scaling_of(member.calibration).apply(rows.logits))


def _shortcomings(rows: CalibrationRows) -> list[str]:
    """What the parts lack that weights and temperature are fitted on; decisions carry their own."""
    return [text for part in ("weights", "temperature") for text in rows.part(part).shortcomings()]


def _choose(made: list[_Made], members: list[_Member], out: Path, config: EnsembleConfig, accesses_before: int) -> None:
    labels, groups = made[0].val.labels, made[0].val.groups
    seeds, latencies = _reruns(members), _latencies(members)
    candidates = [
        Candidate(
            m.ensemble.name,
            softmax(m.val.logits),
            m.parameters,
            m.latency_ms(latencies),
            min((seeds[x.name] for x in m.members), key=lambda s: (len(s) >= 2, -np.std(s))),
        )
        for m in made
    ]
    choice = select(candidates, labels, resamples=config.resamples, seed=config.seed, groups=groups)
    scores = {
        c.name: with_intervals(c.probabilities, labels, resamples=config.resamples, seed=config.seed, groups=groups)
        for c in candidates
    }
    singles = [m.ensemble.name for m in made if m.fitted.weighting == "single"]
    best_single = max(singles, key=lambda name: scores[name]["macro_f1"])
    against = _against_best({c.name: c.probabilities for c in candidates}, best_single, made[0].val, config)
    rows = [
        _summary_row(m, scores[m.ensemble.name], against[m.ensemble.name], best_single, m.latency_ms(latencies))
        for m in made
    ]
    store.write_summary(out, rows)
    store.write_selection(
        out,
        {
            "kind": "selection",
            "format": store.VERSION,
            "name": choice.name,
            "why": choice.why,
            "split": "val",
            "test_accesses": accesses_before,
            "index": members[0].val.meta["index"],
            "best_single": best_single,
            "candidates": {
                m.ensemble.name: {
                    "weights_hash": m.ensemble.weights_hash,
                    "hash": m.ensemble.hash,
                    "kind": m.kind,
                    "val": scores[m.ensemble.name],
                }
                for m in made
            },
            "warnings": _shortcomings(CalibrationRows.of(members[0].calib)),
            "runs": {m.name: m.source.weights_hash for m in members},
            "calibrations": [store.known_as(m.source.weights_hash, m.calibration) for m in members],
            "diversity": diversity({m.name: m.val.logits.argmax(1) for m in members}, labels),
            "rivals": _rivals(members, config),
        },
    )


def _reruns(members: list[_Member]) -> dict[str, tuple[float, ...]]:
    """Val macro-F1 of each member and of those trained with the same settings but for the seed."""
    scores = {
        m.name: float(f1_scores(confusion(m.val.labels, m.val.logits.argmax(1), m.val.logits.shape[1])).mean())
        for m in members
    }

    def key(member: _Member) -> str:
        settings = {k: v for k, v in member.source.settings.items() if k != "seed"}
        return base.canonical(settings) if settings else member.name

    return {m.name: tuple(scores[o.name] for o in members if key(o) == key(m)) for m in members}


ARCHITECTURE = ("backbone", "stem", "img_size", "patch_size", "attention")


def _latencies(members: list[_Member]) -> dict[str, float | None]:
    """Each member's latency for one image: the least measured of its architecture.

    A busy moment during one measurement so makes no difference between two trainings of one network.
    """

    def key(member: _Member) -> str:
        settings = member.source.settings
        return base.canonical({k: settings.get(k) for k in ARCHITECTURE}) if settings else member.name

    out: dict[str, float | None] = {}
    for m in members:
        times = [t for o in members if key(o) == key(m) and (t := o.source.latency_ms) is not None]
        out[m.name] = min(times, default=None)
    return out


def _rivals(members: list[_Member], config: EnsembleConfig) -> dict[str, dict[str, float]]:
    """Held-out NLL of every way to join all runs, a row a pool; nothing for one run."""
    if len(members) < 2:
        return {}
    rows = [_calibrated(m) for m in members]
    return {pool: rivals(rows, [1.0] * len(rows), pool, folds=config.folds, seed=config.seed) for pool in config.pools}


def _against_best(
    probabilities: dict[str, Floats], best: str, val: Predictions, config: EnsembleConfig
) -> dict[str, dict[str, float]]:
    """Each candidate's macro-F1 less the best single's on val, with its paired interval, and McNemar's p."""
    labels, resampling = val.labels, {"resamples": config.resamples, "seed": config.seed}
    several = resampled_many(list(probabilities.values()), labels, **resampling, full=False, groups=val.groups)
    drawn = dict(zip(probabilities, several, strict=True))
    f1 = {
        name: float(f1_scores(confusion(labels, p.argmax(1), p.shape[1])).mean()) for name, p in probabilities.items()
    }
    best_hit = probabilities[best].argmax(1) == labels
    out = {}
    for name, p in probabilities.items():
        low, high = interval(drawn[name]["macro_f1"] - drawn[best]["macro_f1"])
        p_value = mcnemar(p.argmax(1) == labels, best_hit)["p"]
        out[name] = {"delta": f1[name] - f1[best], "low": low, "high": high, "p": p_value}
    return out


def _summary_row(
    made: _Made, score: MetricsWithIntervals, against: dict[str, float], best: str, latency: float | None
) -> dict[str, object]:
    """The report's columns and ours; an unknown cost is an empty cell."""
    e = made.ensemble
    ends = score["ci95"]["macro_f1"]
    return {
        "ensemble": e.name,
        "kind": made.kind,
        "members": len(e.members),
        "pool": e.pool,
        "weighting": e.weighting,
        "weights": "/".join(f"{w:.3f}" for w in e.weights),
        "T": round(e.temperature, 4),
        "T_low": round(e.temperature_ci95[0], 4),
        "T_high": round(e.temperature_ci95[1], 4),
        "macro_f1": round(score["macro_f1"], 5),
        "macro_f1_low": round(ends[0], 5),
        "macro_f1_high": round(ends[1], 5),
        "minority_f1": round(score["minority_f1"], 5),
        "accuracy": round(score["accuracy"], 5),
        **{f"f1_{name}": round(value, 5) for name, value in score["per_class_f1"].items()},
        "ece": round(score["ece"], 5),
        "ece_floor": round(score["ece_floor"], 5),
        "ece_debiased": round(score["ece_debiased"], 5),
        "smooth_ece": round(score["smooth_ece"], 5),
        "brier": round(score["brier"], 5),
        "nll": round(score["nll"], 5),
        "best_single": best,
        "delta_macro_f1": round(against["delta"], 5),
        "delta_macro_f1_low": round(against["low"], 5),
        "delta_macro_f1_high": round(against["high"], 5),
        "mcnemar_p": round(against["p"], 5),
        "parameters": made.parameters if made.parameters is not None else "",
        "latency_ms": round(latency, 3) if latency is not None else "",
        "comment": e.why,
    }
