"""Model files that need neither torch nor a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mien.core.artifacts.abstention import AbstentionPolicy
from mien.core.artifacts.onnx_model import KEY, ModelCard
from mien.core.geometry import CropSpec
from mien.core.labels import LABELS


def colour_model(path: Path, *, crop: CropSpec | None = None) -> Path:
    """A model whose logits are linear in the crop's mean red, green and blue: red is happy, green is sad."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    crop = crop or CropSpec(size=32)
    weights = np.zeros((3, len(LABELS)), np.float32)
    weights[0, LABELS.index("happy")] = weights[1, LABELS.index("sad")] = 0.05
    nodes = [
        helper.make_node("Cast", ["crops"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
        numpy_helper.from_array(weights, "weights"),
    ]
    inputs = [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", crop.size, crop.size, 3])]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 7]) for n in ("probabilities", "logits")]
    graph = helper.make_graph(nodes, "colour", inputs, outputs, constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    proto.metadata_props.add(key=KEY, value=card(crop).model_dump_json())
    onnx.save(proto, path)
    return path


def card(crop: CropSpec) -> ModelCard:
    """A card that answers always."""
    return ModelCard(
        name="colour",
        labels=LABELS,
        crop=crop,
        calibration="temperature",
        temperature=1.0,
        decisions=AbstentionPolicy(abstain_below=0.0, coverage=1.0, answered=1.0, n=1),
        parameters=21,
        weights_hash="0" * 64,
        backbone="colour",
        mien="0",
        git=None,
        sources=[],
        licenses=[],
    )
