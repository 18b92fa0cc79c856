"""A run to an ONNX file that is proven to compute the same."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import mien
from mien.core.artifacts import base
from mien.core.artifacts.calibration import Calibration, read_calibration
from mien.core.artifacts.index import Index, read_index
from mien.core.artifacts.judged import check_has_weights
from mien.core.artifacts.onnx_model import ModelCard, read_parity, write_model, write_parity
from mien.core.artifacts.plan import about_to_make
from mien.core.artifacts.run import Run, check_index, environment, read_run
from mien.core.config.judge import ExportConfig
from mien.core.errors import MienError, UsageError
from mien.core.labels import LABELS
from mien.core.progress import say

INT8_AGREEMENT = 0.9


def run(run_folder: Path, index_folder: Path, out: Path, config: ExportConfig) -> dict[str, Any]:
    """Write the model and `parity.json`; an export whose parity does not hold leaves nothing."""
    if out.suffix != ".onnx":
        raise UsageError(f"--out {out}.", rule="The model's file name ends in .onnx.")
    check_has_weights(run_folder, "export")
    trained, index = read_run(run_folder), read_index(index_folder)
    check_index(trained, index)
    calibration = read_calibration(run_folder / "calibration.json", weights_hash=trained.weights_hash)
    mark = base.fingerprint(
        "onnx",
        1,
        config.model_dump(mode="json"),
        {"weights": trained.weights_hash, "calibration": calibration.hash, "index": index.content_hash},
    )
    done = read_parity(out)
    if (
        done is not None
        and done.get("fingerprint") == mark
        and out.is_file()
        and base.sha256_file(out) == done["sha256"]
    ):
        say(f"{out} is exported already.")
        return done
    about_to_make(out)
    from mien.nn.export import Calibrated, quantize, to_onnx  # noqa: PLC0415  (torch)
    from mien.nn.inference import load_network  # noqa: PLC0415

    card = _card(trained, calibration, index, config)
    model = Calibrated(load_network(trained), calibration.matrix, calibration.bias).eval()
    proto = to_onnx(model, card)
    if config.int8:
        with tempfile.TemporaryDirectory() as folder:
            proto = quantize(proto, _crops(index, "train", 512), Path(folder), card)
    data = proto.SerializeToString()
    parity = _parity(data, model, card, _crops(index, "val", config.check), config)
    write_model(out, data)
    parity |= {
        "fingerprint": mark,
        "sha256": base.sha256_file(out),
        "bytes": len(data),
        "model": out.name,
        "environment": environment(),
    }
    write_parity(out, parity)
    return parity


def _card(trained: Run, calibration: Calibration, index: Index, config: ExportConfig) -> ModelCard:
    return ModelCard(
        name=trained.name, labels=LABELS, crop=index.crop, calibration=calibration.method, temperature=calibration.temperature, decisions=calibration.decisions,
        parameters=trained.config["parameters"], weights_hash=trained.weights_hash, backbone=trained.settings["backbone"], int8=config.int8,
        mien=mien.__version__, git=base.git_revision(), sources=trained.config["index"]["sources"], licenses=trained.terms,
    )  # fmt: skip


def _crops(index: Index, split: str, count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Some packed pictures of a split as RGB, (n, s, s, 3)."""
    pixels = np.array(index.pixels[index.rows(split)[:count]])
    return np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels


def _parity(
    data: bytes, model: Any, card: ModelCard, crops: np.ndarray[Any, np.dtype[np.uint8]], config: ExportConfig
) -> dict[str, Any]:
    import onnxruntime  # noqa: PLC0415
    import torch  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = model(torch.from_numpy(crops))[0].numpy()
    seen = np.concatenate(
        [session.run(["probabilities"], {"crops": part})[0] for part in np.array_split(crops, max(1, len(crops) // 64))]
    )
    difference = float(np.abs(seen - expected).max())
    agreement = float((seen.argmax(1) == expected.argmax(1)).mean())
    holds = agreement >= INT8_AGREEMENT if config.int8 else difference <= config.tolerance
    if not holds:
        raise MienError(
            f"The exported graph differs from torch: probabilities by up to {difference:.2e}, labels agree on {agreement:.1%} of {len(crops)} pictures.",
            rule=f"int8: at least {INT8_AGREEMENT:.0%} agree."
            if config.int8
            else f"Differences stay within {config.tolerance:.0e}.",
            fix="Nothing was written; report this with the run's config.json.",
        )
    times = []
    for i in range(120):
        start = time.perf_counter()
        session.run(None, {"crops": crops[i % len(crops)][None]})
        times.append(1000 * (time.perf_counter() - start))
    p50, p95 = np.percentile(times[20:], [50, 95])
    return {
        "pictures": len(crops), "max_probability_difference": difference, "label_agreement": agreement, "tolerance": config.tolerance, "int8": config.int8,
        "latency": {"engine": "onnxruntime CPU", "batch": 1, "threads": 1, "input": card.crop.size, "p50_ms": float(p50), "p95_ms": float(p95)},
    }  # fmt: skip
