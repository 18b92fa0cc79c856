"""BlazeFace short range (Bazarevsky et al. 2019, arXiv 1907.05047) as ONNX, from MediaPipe's TensorFlow Lite file.

The ONNX file takes `image`, uint8 RGB (1, 128, 128, 3), the image letterboxed on black, and gives `boxes` (896, 16)
and `scores` (896,): centre x and y, width, height, then x and y of right eye, left eye, nose, mouth, right ear, left
ear (the person's own right and left), all as shares of the square's side. Which of them overlap is left to the caller.
"""

from __future__ import annotations

from typing import TypedDict, Unpack

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mien.core.errors import InputError
from mien.web.tflite import Graph, Operator, Table, read_tflite

SIDE = 128
TERMS = "Apache-2.0 (MediaPipe, model card of BlazeFace short range)"
# MediaPipe's face_detection_short_range: anchors of one size, two a cell of 8 pixels, six a cell of 16.
_LAYERS = ((8, 2), (16, 6))
_LOGIT_LIMIT = 100.0  # score_clipping_thresh
ADD, CONCAT, CONV, DEPTHWISE, DEQUANTIZE, POOL, RELU, RESHAPE, PAD = 0, 2, 3, 4, 6, 17, 19, 22, 34


def anchors() -> NDArray[np.float32]:
    """Centres (896, 2), x and y, as shares of the square's side; rows from the top, cells from the left."""
    parts = []
    for stride, count in _LAYERS:
        cells = (np.arange(SIDE // stride) + 0.5) * stride / SIDE
        y, x = np.meshgrid(cells, cells, indexing="ij")
        parts.append(np.repeat(np.stack([x.ravel(), y.ravel()], 1), count, axis=0))
    return np.concatenate(parts).astype(np.float32)


class _Attributes(TypedDict, total=False):
    """Attributes of the ONNX operators that are used here."""

    auto_pad: str
    axis: int
    group: int
    kernel_shape: list[int]
    perm: list[int]
    strides: list[int]
    to: int


class _Builder:
    """Nodes and constants of the ONNX graph; tensors of images are (n, c, h, w) here and (n, h, w, c) in the source."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.weights = {i: tensor.values for i, tensor in enumerate(graph.tensors) if tensor.values is not None}

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Unpack[_Attributes]) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def add(self, operator: Operator) -> None:
        """The nodes of an operator."""
        out = f"t{operator.outputs[0]}"
        data = [f"t{i}" for i in operator.inputs if i not in self.weights]
        if operator.code == DEQUANTIZE:  # of weights in half precision
            self.weights[operator.outputs[0]] = self.weights[operator.inputs[0]].astype(np.float32)
        elif operator.code in (CONV, DEPTHWISE):
            self._convolution(operator, data[0], out)
        elif operator.code == POOL:
            stride, kernel = _pair(operator.options, 1), _pair(operator.options, 3)
            self.node("MaxPool", data, out, kernel_shape=kernel, strides=stride, auto_pad=_padding(operator.options))
        elif operator.code == PAD:
            before, after = self.weights[operator.inputs[1]][[0, 3, 1, 2]].T
            self.node(
                "Pad", [*data, self.constant(f"{out}_pads", np.concatenate([before, after]).astype(np.int64))], out
            )
        elif operator.code == RESHAPE:
            last = self.node("Transpose", data, f"{out}_nhwc", perm=[0, 2, 3, 1])
            shape = np.array(
                self.graph.tensors[operator.outputs[0]].shape or self.weights[operator.inputs[1]], np.int64
            )
            self.node("Reshape", [last, self.constant(f"{out}_shape", shape)], out)
        elif operator.code == CONCAT:
            self.node("Concat", data, out, axis=1)
        elif operator.code in (ADD, RELU):
            self.node("Add" if operator.code == ADD else "Relu", data, out)
        else:
            raise InputError(f"An operator {operator.code} of TensorFlow Lite.", rule="BlazeFace has none such.")

    def _convolution(self, operator: Operator, data: str, out: str) -> None:
        kernel, bias = (self.weights[i].astype(np.float32) for i in operator.inputs[1:3])
        depthwise = operator.code == DEPTHWISE
        weight = kernel.transpose(3, 0, 1, 2) if depthwise else kernel.transpose(0, 3, 1, 2)
        names = [data, self.constant(f"{out}_w", weight), self.constant(f"{out}_b", bias)]
        self.node(
            "Conv",
            names,
            out,
            strides=_pair(operator.options, 1),
            auto_pad=_padding(operator.options),
            kernel_shape=list(weight.shape[2:]),
            group=weight.shape[0] if depthwise else 1,
        )


def _pair(options: Table | None, first: int) -> list[int]:
    """(h, w) of two fields that stand as w, h."""
    return [] if options is None else [options.number(first + 1), options.number(first)]


def _padding(options: Table | None) -> str:
    return "VALID" if options is not None and options.number(0, "b") == 1 else "SAME_UPPER"


def to_onnx(data: bytes) -> bytes:
    """The ONNX file of `face_detection_short_range.tflite`, with normalisation and anchors in its graph.

    Raises
    ------
    InputError
        for bytes that are not that network
    """
    graph = read_tflite(data)
    shapes = [graph.tensors[i].shape for i in graph.inputs + graph.outputs]
    if sorted(shapes) != [(1, SIDE, SIDE, 3), (1, 896, 1), (1, 896, 16)]:
        raise InputError(f"A network of inputs and outputs {shapes}.", rule="BlazeFace short range is wanted here.")
    build = _Builder(graph)
    _normalise(build, f"t{graph.inputs[0]}")
    for operator in graph.operators:
        build.add(operator)
    boxes, scores = sorted((f"t{i}" for i in graph.outputs), key=lambda name: -graph.tensors[int(name[1:])].shape[2])
    _decode(build, boxes, scores)
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SIDE, SIDE, 3])]
    outputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [896, 16]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [896]),
    ]
    onnx_graph = helper.make_graph(build.nodes, "blazeface_short_range", inputs, outputs, build.constants)
    proto = helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    proto.metadata_props.add(key="terms", value=TERMS)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def _normalise(build: _Builder, out: str) -> None:
    """Bytes to [-1, 1], channels first."""
    values = build.node("Cast", ["image"], "values", to=TensorProto.FLOAT)
    scaled = build.node("Div", [values, build.constant("half", np.array(127.5, np.float32))], "scaled")
    centred = build.node("Sub", [scaled, build.constant("one", np.array(1, np.float32))], "centred")
    build.node("Transpose", [centred], out, perm=[0, 3, 1, 2])


def _decode(build: _Builder, boxes: str, scores: str) -> None:
    """Offsets from anchors to places, logits to scores."""
    places = np.tile(anchors(), (1, 8))
    places[:, 2:4] = 0  # width and height have no anchor
    shares = build.node("Div", [boxes, build.constant("side", np.array(SIDE, np.float32))], "shares")
    placed = build.node("Add", [shares, build.constant("anchors", places)], "placed")
    build.node("Reshape", [placed, build.constant("boxes_shape", np.array([896, 16], np.int64))], "boxes")
    limits = [
        build.constant("low", np.array(-_LOGIT_LIMIT, np.float32)),
        build.constant("high", np.array(_LOGIT_LIMIT, np.float32)),
    ]
    clipped = build.node("Clip", [scores, *limits], "clipped")
    squashed = build.node("Sigmoid", [clipped], "squashed")
    build.node("Reshape", [squashed, build.constant("scores_shape", np.array([896], np.int64))], "scores")
