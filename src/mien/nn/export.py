"""A network with its calibration as one ONNX graph: uint8 crops in, probabilities and logits out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mien.core.artifacts.onnx_model import KEY, ModelCard
from mien.nn.network import Network

OPSET = 20


class Calibrated(nn.Module):
    """uint8 RGB crops (n, s, s, 3) to calibrated probabilities and logits (n, 7): an affine map of log-probabilities."""

    def __init__(self, network: Network, matrix: Sequence[Sequence[float]], bias: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("matrix", torch.tensor(matrix, dtype=torch.float32))
        self.register_buffer("bias", torch.tensor(bias, dtype=torch.float32))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and logits."""
        logs = torch.log_softmax(self.network(crops.permute(0, 3, 1, 2)), dim=1)
        # Not a matrix product, which int8 would quantise.
        logits = (logs[:, None, :] * self.get_buffer("matrix")).sum(2) + self.get_buffer("bias")
        return torch.softmax(logits, dim=1), logits


def to_onnx(calibrated: Calibrated, card: ModelCard) -> onnx.ModelProto:
    """Export with any batch size and the card in the metadata."""
    proto = trace(calibrated, card.crop.size)
    describe(proto, card)
    return proto


def trace(calibrated: Calibrated, size: int) -> onnx.ModelProto:
    """Export for crops of `size` pixels and any batch size, without a card."""
    model = calibrated.eval()
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        program = torch.onnx.export(
            model, (example,), dynamo=True, opset_version=OPSET, input_names=["crops"], output_names=["probabilities", "logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},), verbose=False,
        )  # fmt: skip
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    return program.model_proto


def describe(proto: onnx.ModelProto, card: ModelCard) -> None:
    """Put the card into a model's metadata."""
    del proto.metadata_props[:]
    proto.metadata_props.add(key=KEY, value=card.model_dump_json())
    proto.doc_string = f"mien {card.mien}: apparent facial expression, {len(card.labels)} classes"


def quantize(proto: onnx.ModelProto, crops: NDArray[np.uint8], folder: Path, card: ModelCard) -> onnx.ModelProto:
    """Static int8 (QDQ; u8 activations, s8 per-channel weights), ranges from `crops` (n, s, s, 3)."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static  # noqa: PLC0415
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(np.array_split(crops, max(1, len(crops) // 32)))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"crops": batch}

    plain, ready, done = folder / "plain.onnx", folder / "ready.onnx", folder / "int8.onnx"
    onnx.save(proto, plain)
    quant_pre_process(plain, ready, skip_symbolic_shape=True)
    quantize_static(
        ready, done, Reader(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        per_channel=True, op_types_to_quantize=["Conv", "Gemm", "MatMul"],
    )  # fmt: skip
    out = onnx.load(done)
    describe(out, card)
    return out
