"""A run to an ONNX file that is proven to compute the same."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import mien
from mien.core.artifacts import base
from mien.core.artifacts.calibration import Calibration, read_calibration
from mien.core.artifacts.calibration_rows import CalibrationRows
from mien.core.artifacts.index import Index, read_index
from mien.core.artifacts.metrics import Latency
from mien.core.artifacts.onnx_model import (
    GraphParity,
    ModelCard,
    ParityDocument,
    PrecisionComparison,
    ReducedPrecision,
    read_parity,
    write_model,
    write_parity,
)
from mien.core.artifacts.plan import about_to_make
from mien.core.artifacts.prediction_source import check_has_weights
from mien.core.artifacts.predictions import Predictions, PredictionsMeta, predictions_path, read_predictions
from mien.core.artifacts.run import Run, check_index, environment, read_run
from mien.core.config.judge import ExportConfig
from mien.core.errors import ArtifactError, CalibrationError, MienError, UsageError
from mien.core.labels import LABELS
from mien.core.progress import say
from mien.evaluate.quantization import check_int8, compare, recalibrate

if TYPE_CHECKING:
    import onnx
    from torch import nn

RANGE_CROPS = 512  # train images from which int8 takes the ranges of activations
BATCH = 64
HALF_TOLERANCE = 0.01  # largest change of a probability by weights of half precision


def run(run_folder: Path, index_folder: Path, out: Path, config: ExportConfig) -> ParityDocument:
    """Write the model and `parity.json`; an export whose parity does not hold leaves nothing.

    With `config.int8` the quantised model gets a calibration, thresholds and a weights hash of its own; raises
    `MienError` where it is worse than the float model on val by more than `check_int8` allows. With `config.fp16` the
    file keeps the calibration, since no probability may differ by more than `HALF_TOLERANCE`. test is never read.
    """
    if config.fp16 and config.int8:
        raise UsageError("--fp16 with --int8.", rule="A file has one precision.", fix="Export twice, to two files.")
    if out.suffix != ".onnx":
        raise UsageError(f"--out {out}.", rule="The model's file name ends in .onnx.")
    check_has_weights(run_folder, "export")
    trained, index = read_run(run_folder), read_index(index_folder)
    check_index(trained, index)
    calibration = read_calibration(run_folder / "calibration.json", weights_hash=trained.weights_hash)
    fingerprint = base.fingerprint(
        "onnx",
        2,
        config.model_dump(mode="json"),
        {"weights": trained.weights_hash, "calibration": calibration.hash, "index": index.content_hash},
    )
    done = read_parity(out)
    if (
        done is not None
        and done.get("fingerprint") == fingerprint
        and out.is_file()
        and base.sha256_file(out) == done["sha256"]
    ):
        say(f"{out} is exported already.")
        return done
    about_to_make(out)
    from mien.nn.export import Calibrated, to_onnx  # noqa: PLC0415  (torch)
    from mien.nn.inference import load_network  # noqa: PLC0415

    card = card_of(trained, calibration, index)
    model = Calibrated(load_network(trained), calibration.matrix, calibration.bias).eval()
    proto = to_onnx(model, card)
    graph = _parity(proto, model, _crops(index, _spread(index.rows("val"), config.check)), config)
    reduced: ReducedPrecision = {}
    if config.fp16:
        proto, compared = _fp16(proto, card, index)
        reduced = {"fp16": True, "val": compared}
    if config.int8:
        proto, compared = quantized_model(proto, card, calibration, index, run_folder)
        check_int8(compared)
        graph["int8"], reduced["val"] = True, compared
    data = proto.SerializeToString()
    latency = _latency(data, _crops(index, _spread(index.rows("val"), BATCH)))
    write_model(out, data)
    parity: ParityDocument = {
        **graph,
        **reduced,
        "latency": latency,
        "fingerprint": fingerprint,
        "sha256": base.sha256_file(out),
        "bytes": len(data),
        "model": out.name,
        "environment": environment(),
    }
    write_parity(out, parity)
    return parity


def card_of(trained: Run, calibration: Calibration, index: Index) -> ModelCard:
    """What a model file says of itself."""
    return ModelCard(
        name=trained.name,
        labels=LABELS,
        crop=index.crop,
        calibration=calibration.method,
        temperature=calibration.temperature,
        decisions=calibration.decisions,
        parameters=trained.config["parameters"],
        weights_hash=trained.weights_hash,
        backbone=trained.backbone,
        mien=mien.__version__,
        git=base.git_revision(),
        sources=trained.config["index"]["sources"],
        licenses=trained.terms,
    )


def _spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of `rows`, evenly over all of them, so that each source is among them."""
    places = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64))
    return np.asarray(rows[places])


def _crops(index: Index, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Packed images as RGB, (n, s, s, 3)."""
    pixels = np.asarray(index.pixels[rows], np.uint8)
    return np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels


def _session(data: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _answers(
    proto: onnx.ModelProto, index: Index, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities and logits (n, 7) that a graph gives for images of the index."""
    session = _session(proto.SerializeToString())
    parts = [
        session.run(["probabilities", "logits"], {"crops": _crops(index, part)})
        for part in np.array_split(rows, -(-len(rows) // BATCH))
    ]
    probabilities, logits = (np.concatenate(column).astype(np.float64) for column in zip(*parts, strict=True))
    return probabilities / probabilities.sum(1, keepdims=True), logits


def quantized_model(
    proto: onnx.ModelProto, card: ModelCard, calibration: Calibration, index: Index, run_folder: Path
) -> tuple[onnx.ModelProto, PrecisionComparison]:
    """The quantised graph with its own calibration and card, and how it compares with the float graph on val.

    Whether it may be used is for `check_int8` to say. Raises `MienError` where it cannot be calibrated.
    """
    from mien.nn.export import describe, hash_weights, quantize, set_calibration  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        quantized = quantize(proto, _crops(index, _spread(index.rows("train"), RANGE_CROPS)), Path(folder))
    set_calibration(quantized, np.eye(len(LABELS)), np.zeros(len(LABELS)))
    weights_hash = hash_weights(quantized)
    calib, val = index.rows("calib"), index.rows("val")
    predictions = _as_predicted_by(
        weights_hash, _answers(quantized, index, calib)[1], run_folder, index.image_ids[calib]
    )
    try:
        recalibrated = recalibrate(CalibrationRows.of(predictions), calibration)
    except CalibrationError as error:
        raise MienError(
            f"The int8 model cannot be calibrated: {error.seen}",
            rule="It is calibrated on its own logits of calib.",
            fix="Nothing was written. Export without --int8.",
        ) from None
    set_calibration(quantized, recalibrated.scaling.matrix, recalibrated.scaling.bias)
    changes = {
        "calibration": recalibrated.scaling.method,
        "temperature": recalibrated.temperature,
        "decisions": recalibrated.decisions,
        "weights_hash": weights_hash,
        "int8": True,
        "quantized_from": card.weights_hash,
    }
    describe(quantized, card.model_copy(update=changes))
    return quantized, compare(_answers(proto, index, val)[0], _answers(quantized, index, val)[0], index.labels[val])


def _fp16(proto: onnx.ModelProto, card: ModelCard, index: Index) -> tuple[onnx.ModelProto, PrecisionComparison]:
    """The graph with half-precision weights and its own hash, and how it compares with the float graph on val."""
    from mien.nn.export import describe, halve, hash_weights  # noqa: PLC0415

    half, val = type(proto).FromString(proto.SerializeToString()), index.rows("val")
    halve(half)
    describe(half, card.model_copy(update={"weights_hash": hash_weights(half), "quantized_from": card.weights_hash}))
    before, after = _answers(proto, index, val)[0], _answers(half, index, val)[0]
    difference = float(np.abs(after - before).max())
    if difference > HALF_TOLERANCE:
        raise MienError(
            f"Weights of half precision change probabilities by up to {difference:.3f} on val.",
            rule=f"At most {HALF_TOLERANCE:g}: the calibration and thresholds are those of the float model.",
            fix="Nothing was written. Export without --fp16.",
        )
    return half, {**compare(before, after, index.labels[val]), "max_probability_difference": difference}


def _as_predicted_by(
    weights_hash: str, logits: NDArray[np.float64], run_folder: Path, image_ids: NDArray[np.str_]
) -> Predictions:
    """The run's calib predictions with the logits (n, 7) of other weights, so that parts and labels are the same."""
    float_predictions = read_predictions(predictions_path(run_folder, "calib"))
    if not np.array_equal(float_predictions.image_ids, image_ids):
        raise ArtifactError(
            f"The calib predictions in {run_folder} are of other images than the index's.",
            fix="Predict again: `mien predict RUN --index DIR --split calib`.",
        )
    meta: PredictionsMeta = {
        **float_predictions.meta,
        "weights_hash": weights_hash,
        "head": "linear",  # log-probabilities
    }
    return replace(float_predictions, logits=logits, meta=meta)


def _parity(proto: onnx.ModelProto, model: nn.Module, crops: NDArray[np.uint8], config: ExportConfig) -> GraphParity:
    """How close the float graph is to torch; raises `MienError` beyond the tolerance."""
    import torch  # noqa: PLC0415

    session = _session(proto.SerializeToString())
    with torch.inference_mode():
        expected = model(torch.from_numpy(crops))[0].numpy()
    probabilities = np.concatenate(
        [session.run(["probabilities"], {"crops": p})[0] for p in np.array_split(crops, -(-len(crops) // BATCH))]
    )
    difference = float(np.abs(probabilities - expected).max())
    agreement = float((probabilities.argmax(1) == expected.argmax(1)).mean())
    if difference > config.tolerance:
        raise MienError(
            (
                f"The exported graph differs from torch: probabilities by up to {difference:.2e}, "
                f"labels agree on {agreement:.1%} of {len(crops)} images."
            ),
            rule=f"Differences stay within {config.tolerance:.0e}.",
            fix="Nothing was written; report this with the run's config.json.",
        )
    return {
        "pictures": len(crops),
        "max_probability_difference": difference,
        "label_agreement": agreement,
        "tolerance": config.tolerance,
        "int8": False,
    }


def _latency(data: bytes, crops: NDArray[np.uint8]) -> Latency:
    """Median and 95th percentile of milliseconds an image, of the graph that is written."""
    session, times = _session(data), []
    for i in range(120):
        start = time.perf_counter()
        session.run(None, {"crops": crops[i % len(crops)][None]})
        times.append(1000 * (time.perf_counter() - start))
    p50, p95 = np.percentile(times[20:], [50, 95])
    return {
        "engine": "onnxruntime CPU",
        "batch": 1,
        "threads": 1,
        "input": int(crops.shape[1]),
        "p50_ms": float(p50),
        "p95_ms": float(p95),
    }
