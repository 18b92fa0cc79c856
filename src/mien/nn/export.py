"""A network with its calibration as one ONNX graph: uint8 crops in, probabilities and logits out."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mien.core.artifacts.onnx_model import KEY, ModelCard
from mien.nn.models.network import Network

OPSET = 20
SMALL = 256  # numbers: smaller constants keep their precision
MAP = ("calibration.matrix", "calibration.bias")  # the constants of `set_calibration`


class Calibrated(nn.Module):
    """uint8 RGB crops (n, s, s, 3) to calibrated probabilities and logits (n, 7), affine in log-probabilities."""

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
            model,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["crops"],
            output_names=["probabilities", "logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    proto = program.model_proto
    forget_exporter(proto)
    return proto


def forget_exporter(proto: onnx.ModelProto) -> None:
    """Remove what the exporter notes of where each part came from: source lines, with paths of this machine."""
    graph = proto.graph
    elements = (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info)
    for part in (*elements, *proto.functions, *(node for function in proto.functions for node in function.node)):
        del part.metadata_props[:]
        part.doc_string = ""


def describe(proto: onnx.ModelProto, card: ModelCard) -> None:
    """Put the card into a model's metadata."""
    del proto.metadata_props[:]
    proto.metadata_props.add(key=KEY, value=card.model_dump_json())
    proto.doc_string = f"mien {card.mien}: apparent facial expression, {len(card.labels)} classes"


def set_calibration(proto: onnx.ModelProto, matrix: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
    """Put another affine map, (7, 7) and (7,), into an exported graph, in place.

    It gets constants of its own: exporters join equal ones, and a bias of zeros may be another layer's too.
    """
    graph = proto.graph
    constants = {constant.name for constant in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    added = made_by["logits"]
    summed = made_by[next(name for name in added.input if name in made_by)]
    scaled = made_by[summed.input[0]]
    if [node.op_type for node in (scaled, summed, added)] != ["Mul", "ReduceSum", "Add"]:
        raise RuntimeError("the exported graph does not end in the calibration's affine map")
    for node, name, value in ((scaled, MAP[0], matrix), (added, MAP[1], bias)):
        (place,) = (i for i, input_name in enumerate(node.input) if input_name in constants)
        node.input[place] = name
        for old in [c for c in graph.initializer if c.name == name]:
            graph.initializer.remove(old)
        graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    used = {name for node in graph.node for name in node.input}
    for unused in [c for c in graph.initializer if c.name not in used]:
        graph.initializer.remove(unused)


def hash_weights(proto: onnx.ModelProto) -> str:
    """sha256 of a graph's constants: their names, types, shapes and values, without the map of `set_calibration`."""
    digest = hashlib.sha256()
    for constant in sorted(proto.graph.initializer, key=lambda c: c.name):
        if constant.name not in MAP:
            value = onnx.numpy_helper.to_array(constant)
            digest.update(f"{constant.name}:{value.dtype}:{value.shape};".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def halve(proto: onnx.ModelProto) -> None:
    """Store an exported graph's weights in half precision, in place, each with a cast to single precision behind it.

    An engine folds the casts as it loads the graph, so that it computes as fast as before, and in single precision.
    Small constants (the calibration, sizes, factors) stay as they are.
    """
    graph, casts = proto.graph, []
    for constant in graph.initializer:
        value = onnx.numpy_helper.to_array(constant)
        if value.dtype != np.float32 or value.size < SMALL or np.abs(value).max() > np.finfo(np.float16).max:
            continue
        name = constant.name
        constant.CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float16), f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [constant.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])


def quantize(proto: onnx.ModelProto, crops: NDArray[np.uint8], folder: Path) -> onnx.ModelProto:
    """Static int8 (QDQ; u8 activations, s8 per-channel weights of 7 bits), ranges from `crops` (n, s, s, 3).

    With weights of 8 bits, processors without VNNI, which add two products in 16 bits, would saturate, and answers
    would depend on the processor. The calibration stays in floating point, as does the first quarter of the
    convolutions: every later layer sees their errors (docs/log.md). The result has no card yet.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static  # noqa: PLC0415
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(np.array_split(crops, max(1, len(crops) // 32)))

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"crops": batch}

    plain, ready, done = folder / "plain.onnx", folder / "ready.onnx", folder / "int8.onnx"
    onnx.save(proto, plain)
    quant_pre_process(plain, ready, skip_symbolic_shape=True)
    convolutions = [node.name for node in onnx.load(ready).graph.node if node.op_type == "Conv"]
    quantize_static(
        ready,
        done,
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        nodes_to_exclude=convolutions[: len(convolutions) // 4],
    )
    return onnx.load(done)
