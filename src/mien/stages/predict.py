"""A run and an index to predictions of val or calib, and what one image takes."""

from __future__ import annotations

from pathlib import Path

from mien.core.artifacts import predictions as store
from mien.core.artifacts.calibration_rows import FITTABLE
from mien.core.artifacts.index import read_index
from mien.core.artifacts.plan import about_to_make
from mien.core.artifacts.prediction_source import LATENCY, check_has_weights, read_latency, write_latency
from mien.core.artifacts.run import check_index, read_run
from mien.core.config.judge import PredictConfig
from mien.core.errors import SplitError


def run(run_folder: Path, index_folder: Path, split: str, config: PredictConfig) -> Path:
    """Write `RUN/predictions/SPLIT.parquet`, or find it there, made of the same; test is refused."""
    if split not in FITTABLE:
        raise SplitError(
            f"Predictions of {split!r} were asked for.",
            rule="predict makes val and calib; `mien evaluate` alone opens test.",
        )
    check_has_weights(run_folder, "predict with")
    trained, index = read_run(run_folder), read_index(index_folder)
    check_index(trained, index)
    path = store.predictions_path(run_folder, split)
    fingerprint = store.fingerprint_of(trained.weights_hash, index.content_hash, split)
    if store.stored_fingerprint(path) != fingerprint:
        about_to_make(path)
        from mien.nn.inference import predict_split  # noqa: PLC0415  (torch)

        store.write_predictions(path, predict_split(trained, index, split, config.batch_size), fingerprint=fingerprint)
    if read_latency(run_folder) is None:
        about_to_make(run_folder / LATENCY)
        from mien.nn.inference import load_network  # noqa: PLC0415
        from mien.nn.latency import measure  # noqa: PLC0415

        write_latency(run_folder, measure(load_network(trained), trained.config["crop"]["size"]))
    return path
