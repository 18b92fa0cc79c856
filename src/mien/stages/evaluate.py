"""The only door to test: a run or an ensemble, after a selection was written, to `evaluation.json`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts import base
from mien.core.artifacts import predictions as store
from mien.core.artifacts.calibration import read_calibration
from mien.core.artifacts.ensemble import SELECTION, read_ensemble, read_selection
from mien.core.artifacts.evaluation import KIND, VERSION, read_evaluation, write_evaluation
from mien.core.artifacts.index import Index, read_index, read_occurrences
from mien.core.artifacts.run import Run, check_index, read_run
from mien.core.config.judge import EvaluateConfig
from mien.core.errors import ArtifactError, SplitError
from mien.core.labels import INDEX
from mien.core.progress import warn
from mien.evaluate.bootstrap import interval, mcnemar, resampled, unbiased, with_intervals
from mien.evaluate.calibration import sweep
from mien.evaluate.metrics import alarms, metrics, reliability, softmax
from mien.evaluate.pooling import pooled_logits

Floats = NDArray[np.float64]
COMPARED = ("accuracy", "macro_f1", "minority_f1", "ece", "brier", "nll")


def run(target: Path, index_folder: Path, config: EvaluateConfig, *, selection: Path | None = None) -> dict[str, Any]:
    """Score a run, one ensemble, or what a folder of ensembles selected, on test."""
    index = read_index(index_folder)
    if (target / SELECTION).is_file():
        target = target / read_selection(target / SELECTION)["name"]
    if (target / "ensemble.json").is_file():
        return _evaluate_ensemble(target, index, config)
    return _evaluate_run(target, index, config, selection)


def _evaluate_run(target: Path, index: Index, config: EvaluateConfig, selection_path: Path | None) -> dict[str, Any]:
    trained = read_run(target)
    check_index(trained, index)
    selection = _selection_of(trained, selection_path)
    calibration = read_calibration(target / "calibration.json", weights_hash=trained.weights_hash)
    mark = _mark(config, index, trained.weights_hash, selection["hash"], {"calibration": calibration.hash})
    if (done := _done(target, mark)) is not None:
        return done
    test = _test_predictions(trained, index, config.batch_size)
    document = _scores(trained.name, test.logits, calibration.temperature, test, index, config)
    document |= {
        "latency": _latency(trained),
        "abstain": _abstention(softmax(test.logits / calibration.temperature), test.labels, calibration.abstain_below),
    }
    write_evaluation(target, {"fingerprint": mark, "selection_hash": selection["hash"], **document})
    return read_evaluation(target)


def _evaluate_ensemble(target: Path, index: Index, config: EvaluateConfig) -> dict[str, Any]:
    ensemble, selection = read_ensemble(target), read_selection(target.parent / SELECTION)
    known = selection["candidates"].get(ensemble.name)
    if known is None or known["weights_hash"] != ensemble.weights_hash:
        raise SplitError(
            f"{target} is not among the candidates of {target.parent / SELECTION}.",
            rule="Test is opened for what the selection knew.",
        )
    mark = _mark(config, index, ensemble.weights_hash, selection["hash"], {"T": str(ensemble.temperature)})
    if (done := _done(target, mark)) is not None:
        return done
    logits, test = _pooled_test(target, index, config.batch_size)
    document = _scores(ensemble.name, logits, ensemble.temperature, test, index, config)
    best = selection["best_single"]
    if best != ensemble.name:
        rival, _ = _pooled_test(target.parent / best, index, config.batch_size)
        rival_t = read_ensemble(target.parent / best).temperature
        document["vs_best_single"] = _versus(
            softmax(logits / ensemble.temperature), softmax(rival / rival_t), test.labels, best, config
        )
    document["abstain"] = _abstention(softmax(logits / ensemble.temperature), test.labels, ensemble.abstain_below)
    meta = {
        "name": ensemble.name,
        "weights_hash": ensemble.weights_hash,
        "index": index.content_hash,
        "scale_in_logits": True,
        "head": "pool",
        "pooled": True,
    }
    pooled = store.Predictions("test", test.image_ids, test.labels, logits / ensemble.temperature, meta)
    store.write_predictions(store.predictions_path(target, "test"), pooled, fingerprint=mark)
    write_evaluation(target, {"fingerprint": mark, "selection_hash": selection["hash"], **document})
    return read_evaluation(target)


def _mark(config: EvaluateConfig, index: Index, weights: str, selection: str, more: dict[str, str]) -> str:
    inputs = {"index": index.content_hash, "weights": weights, "selection": selection, **more}
    return base.fingerprint(KIND, VERSION, config.model_dump(mode="json"), inputs)


def _done(target: Path, mark: str) -> dict[str, Any] | None:
    if not (target / "evaluation.json").is_file():
        return None
    found = read_evaluation(target)
    return found if found.get("fingerprint") == mark else None


def _selection_of(trained: Run, explicit: Path | None) -> dict[str, Any]:
    """The selection that knew this run: named, its teacher's, or one in a folder beside it."""
    taught = trained.config.get("teacher")
    if explicit is None and taught is not None:
        explicit = trained.folder / taught["selection"]
    if explicit is not None:
        selection = read_selection(explicit)
        teachers = {candidate["weights_hash"] for candidate in selection["candidates"].values()}
        knows = trained.weights_hash in selection["runs"].values() or (taught or {}).get("weights_hash") in teachers
        if knows:
            return selection
        raise SplitError(
            f"{explicit} was written without {trained.folder}.", rule="Test is opened for what the selection knew."
        )
    here = trained.folder.resolve()
    for path in sorted({p for folder in (here.parent, here.parent.parent) for p in folder.glob(f"*/{SELECTION}")}):
        selection = read_selection(path)
        if trained.weights_hash in selection["runs"].values():
            return selection
    raise SplitError(
        f"No selection knows {trained.folder}.",
        rule="Test is opened only after a selection is written.",
        fix="Write one: `mien ensemble RUN [RUN …] --out ENS` (a single run selects itself), or name it with --selection.",
    )


def _test_predictions(trained: Run, index: Index, batch_size: int) -> store.Predictions:
    """The run's test predictions, made once."""
    path = store.predictions_path(trained.folder, "test")
    mark = store.mark_of(trained.weights_hash, index.content_hash, "test")
    if store.stored_fingerprint(path) != mark:
        from mien.nn.inference import predict_split  # noqa: PLC0415  (torch)

        store.write_predictions(path, predict_split(trained, index, "test", batch_size), fingerprint=mark)
    return store.read_predictions(path, allow_test=True)


def _pooled_test(folder: Path, index: Index, batch_size: int) -> tuple[Floats, store.Predictions]:
    """An ensemble's pooled test logits, before its final temperature."""
    ensemble = read_ensemble(folder)
    tests = []
    for member in ensemble.members:
        trained = read_run(folder / member.run)
        if trained.weights_hash != member.weights_hash:
            raise ArtifactError(
                f"{trained.folder} was trained again after {ensemble.name} was made.", fix="Make the ensembles again."
            )
        check_index(trained, index)
        tests.append(_test_predictions(trained, index, batch_size))
    store.check_same_rows(tests)
    return pooled_logits(
        [t.logits for t in tests], ensemble.weights, [m.temperature for m in ensemble.members], ensemble.pool
    ), tests[0]


def _scores(
    name: str, logits: Floats, temperature: float, test: store.Predictions, index: Index, config: EvaluateConfig
) -> dict[str, Any]:
    after, before = softmax(logits / temperature), softmax(logits)
    scored = with_intervals(after, test.labels, resamples=config.resamples, seed=config.seed)
    for text in alarms(scored):
        warn(f"{name}: {text}")
    return {
        "name": name, "temperature": temperature, "test": scored, "test_uncalibrated": metrics(before, test.labels),
        "test_as_distributed": _as_distributed(after, test, index),
        "reliability": {"before": reliability(before, test.labels), "after": reliability(after, test.labels)},
        "sweep": sweep(logits, test.labels, np.geomspace(0.25, 4, 33)),
    }  # fmt: skip


def _as_distributed(probabilities: Floats, test: store.Predictions, index: Index) -> dict[str, Any] | None:
    """The score on the official test rows as their source distributes them: repeated, own labels.

    Rows whose picture the index dropped are left out and counted; None without official test rows.
    """
    rows = read_occurrences(index.folder).to_pylist()
    official = [r for r in rows if r["official_split"] == "test" and r["label"] is not None]
    if not official:
        return None
    where = {picture_id: i for i, picture_id in enumerate(test.image_ids.tolist())}
    kept = [r for r in official if r["image_id"] in where]
    picked = np.array([where[r["image_id"]] for r in kept])
    labels = np.array([INDEX[r["label"]] for r in kept], dtype=np.int64)
    return {**metrics(probabilities[picked], labels), "left_out": len(official) - len(kept)}


def _versus(
    first: Floats, second: Floats, labels: NDArray[np.int64], rival: str, config: EvaluateConfig
) -> dict[str, Any]:
    """Paired differences (first minus second) with intervals, and McNemar's test."""
    mine, theirs = (resampled(p, labels, resamples=config.resamples, seed=config.seed) for p in (first, second))
    a, b = metrics(first, labels), metrics(second, labels)
    return {
        "rival": rival,
        "delta": {name: a[name] - b[name] for name in COMPARED},
        "ci95": {
            name: interval(unbiased(name, mine[name], a[name]) - unbiased(name, theirs[name], b[name]))
            for name in COMPARED
        },
        "mcnemar": mcnemar(first.argmax(1) == labels, second.argmax(1) == labels),
    }


def _abstention(probabilities: Floats, labels: NDArray[np.int64], threshold: float) -> dict[str, float]:
    """What the threshold found on calib does on test."""
    answered = probabilities.max(1) >= threshold
    hits = (probabilities.argmax(1) == labels)[answered]
    return {
        "threshold": threshold,
        "coverage": float(answered.mean()),
        "accuracy_answered": float(hits.mean()) if len(hits) else 0.0,
    }


def _latency(trained: Run, runs: int = 60, warmup: int = 10) -> dict[str, Any]:
    """Milliseconds of one picture through the network in torch, as it is trained (eager, fp32)."""
    import torch  # noqa: PLC0415

    from mien.nn.inference import load_network  # noqa: PLC0415

    network = load_network(trained)
    size = trained.config["crop"]["size"]
    picture = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    times = []
    with torch.inference_mode():
        for _ in range(runs + warmup):
            start = time.perf_counter()
            network(picture)
            times.append(1000 * (time.perf_counter() - start))
    p50, p95 = np.percentile(times[warmup:], [50, 95])
    return {
        "engine": "torch eager fp32",
        "batch": 1,
        "threads": torch.get_num_threads(),
        "input": network.preprocess.img_size,
        "p50_ms": float(p50),
        "p95_ms": float(p95),
    }
