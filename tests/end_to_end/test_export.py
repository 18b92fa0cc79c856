"""A run to a float and to a quantised model file."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from mien.cli import run
from mien.core.artifacts.calibration import read_calibration
from mien.core.artifacts.index import read_index
from mien.core.artifacts.run import read_run
from mien.core.labels import LABELS
from mien.evaluate import quantization
from mien.evaluate.metrics import log_softmax
from mien.nn import export as exporting
from mien.runtime.recognizer import open_session
from mien.stages import export as stage


@pytest.fixture(scope="module")
def trained(small_index, tmp_path_factory):
    """A calibrated run of a small CNN."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    index = ["--index", str(small_index)]
    small = ["--backbone", "cnn", "--epochs", "6", "--batch-size", "32", "--head", "linear"]
    commands = [
        ["train", *index, "--out", str(folder), *small],
        *[["predict", str(folder), *index, "--split", split] for split in ("val", "calib")],
        ["calibrate", str(folder), "--method", "temperature"],
    ]
    assert [run(command) for command in commands] == [0, 0, 0, 0]
    return folder


@pytest.fixture(scope="module")
def graph(trained, small_index):
    """The run's float graph, exported once."""
    from mien.nn.inference import load_network

    found, calibration = read_run(trained), _calibration(trained)
    model = exporting.Calibrated(load_network(found), calibration.matrix, calibration.bias)
    return exporting.to_onnx(model, stage.card_of(found, calibration, read_index(small_index)))


@pytest.fixture
def quick(graph, monkeypatch):
    """Exports take the graph that was made once, with the card that they want."""

    def to_onnx(model, card):
        proto = onnx.ModelProto()
        proto.CopyFrom(graph)
        exporting.describe(proto, card)
        return proto

    monkeypatch.setattr(exporting, "to_onnx", to_onnx)


@pytest.fixture
def lenient(monkeypatch):
    """Limits that any model keeps: few val rows show chance more than quantisation."""
    monkeypatch.setattr(quantization, "F1_LOSS", 1.0)
    monkeypatch.setattr(quantization, "ECE_RISE", 1.0)


def _calibration(folder):
    return read_calibration(folder / "calibration.json", weights_hash=read_run(folder).weights_hash)


def test_a_map_of_its_own_leaves_the_rest_of_the_graph(graph, small_index):
    """Identity gives log-probabilities, any other map is applied to them, and the weights' hash does not move."""
    proto = onnx.ModelProto()
    proto.CopyFrom(graph)
    index, rng = read_index(small_index), np.random.default_rng(0)
    matrix, bias = np.eye(7) + rng.normal(0, 0.1, (7, 7)), rng.normal(0, 1, 7)
    exporting.set_calibration(proto, np.eye(7), np.zeros(7))
    hashed = exporting.hash_weights(proto)
    _, plain = stage._answers(proto, index, index.rows("val"))
    exporting.set_calibration(proto, matrix, bias)
    assert exporting.hash_weights(proto) == hashed
    probabilities, mapped = stage._answers(proto, index, index.rows("val"))
    assert plain == pytest.approx(log_softmax(plain), abs=1e-5)
    assert mapped == pytest.approx(plain @ matrix.T + bias, abs=1e-4)
    assert np.log(probabilities) == pytest.approx(log_softmax(mapped), abs=1e-3)
    proto.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(
            onnx.numpy_helper.to_array(proto.graph.initializer[0]) + 1, proto.graph.initializer[0].name
        )
    )
    assert exporting.hash_weights(proto) != hashed


def test_int8_is_calibrated_on_its_own_logits(trained, small_index, tmp_path, quick, lenient, monkeypatch, capsys):
    """A quantiser that makes logits 1.5 times as large changes the temperature by 1.5, and probabilities little."""
    asked = []

    def quantize(proto, crops, folder):
        asked.append(len(crops))
        out = onnx.ModelProto()
        out.CopyFrom(proto)
        _scale_logits(out, 1.5)
        return out

    monkeypatch.setattr(exporting, "quantize", quantize)
    seen = []
    rows = type(read_index(small_index)).rows
    monkeypatch.setattr(
        type(read_index(small_index)), "rows", lambda self, split: seen.append(split) or rows(self, split)
    )
    settings = ["--index", str(small_index), "--out", str(tmp_path / "m.onnx"), "--int8", "--json"]
    assert run(["export", str(trained), *settings]) == 0
    done = json.loads(capsys.readouterr().out)
    card = open_session(tmp_path / "m.onnx", 1)[1]
    calibration, origin = _calibration(trained), read_run(trained).weights_hash
    assert set(seen) == {"train", "val", "calib"}
    assert asked == [len(stage._spread(rows(read_index(small_index), "train"), stage.RANGE_CROPS))]
    assert card.temperature == pytest.approx(1.5 * calibration.temperature, rel=1e-3)
    assert card.int8
    assert card.quantized_from == origin
    assert card.weights_hash != origin
    assert card.decisions.asked == calibration.decisions.asked
    assert done["val"]["labels_changed"] == 0
    assert done["val"]["int8"]["ece"] == pytest.approx(done["val"]["float"]["ece"], abs=1e-3)
    assert done["val"]["rows"] == len(read_index(small_index).rows("val"))
    assert json.loads((tmp_path / "parity.json").read_text())["val"] == done["val"]


def _scale_logits(proto, factor):
    """What enters the log-softmax, times `factor`."""
    node = next(n for n in proto.graph.node if n.op_type == "LogSoftmax")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(factor, np.float32), "factor"))
    place = list(proto.graph.node).index(node)
    proto.graph.node.insert(place, onnx.helper.make_node("Mul", [node.input[0], "factor"], ["scaled"]))
    node.input[0] = "scaled"


def test_real_int8_is_smaller_and_recognises(trained, small_index, tmp_path, quick, lenient):
    assert run(["export", str(trained), "--index", str(small_index), "--out", str(tmp_path / "f.onnx")]) == 0
    assert run(["export", str(trained), "--index", str(small_index), "--out", str(tmp_path / "q.onnx"), "--int8"]) == 0
    (float_session, plain), (session, card) = (open_session(tmp_path / name, 1) for name in ("f.onnx", "q.onnx"))
    assert (plain.int8, card.int8) == (False, True)
    assert plain.quantized_from is None
    assert card.quantized_from == plain.weights_hash != card.weights_hash
    assert (tmp_path / "q.onnx").stat().st_size < 0.6 * (tmp_path / "f.onnx").stat().st_size
    parity = json.loads((tmp_path / "parity.json").read_text())
    index = read_index(small_index)
    crops = np.repeat(index.pixels[index.rows("val")], 3 // index.pixels.shape[3], axis=3)
    named = [s.run(["probabilities"], {"crops": crops})[0].argmax(1) for s in (float_session, session)]
    assert parity["val"]["labels_changed"] == pytest.approx((named[0] != named[1]).mean(), abs=2 / len(crops))
    held = [onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "q.onnx").graph.initializer]
    weights = [w for w in held if w.dtype == np.int8 and w.ndim >= 2]
    assert len(weights) > 2
    assert max(np.abs(w.astype(int)).max() for w in weights) == 64


def test_int8_answers_alike_on_every_processor(trained, small_index, tmp_path, quick, lenient):
    """Unoptimised, the graph computes in floating point what integers stand for: no sum can overflow there."""
    assert run(["export", str(trained), "--index", str(small_index), "--out", str(tmp_path / "q.onnx"), "--int8"]) == 0
    index = read_index(small_index)
    crops = np.repeat(index.pixels[index.rows("val")], 3 // index.pixels.shape[3], axis=3)
    answers = []
    for level in ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(str(tmp_path / "q.onnx"), options, providers=["CPUExecutionProvider"])
        answers.append(session.run(["probabilities"], {"crops": crops})[0])
    assert np.abs(answers[0] - answers[1]).mean() < 1e-3


def test_int8_that_loses_is_refused_and_the_float_model_stays(
    trained, small_index, tmp_path, quick, monkeypatch, capsys
):
    def spoil(proto, crops, folder):
        """Half of the classes are never named again."""
        out = onnx.ModelProto()
        out.CopyFrom(proto)
        node = next(n for n in out.graph.node if n.op_type == "LogSoftmax")
        bias = np.where(np.arange(7) < 3, -30, 0).astype(np.float32)
        out.graph.initializer.append(onnx.numpy_helper.from_array(bias, "spoiled"))
        out.graph.node.insert(
            list(out.graph.node).index(node), onnx.helper.make_node("Add", [node.input[0], "spoiled"], ["less"])
        )
        node.input[0] = "less"
        return out

    out = tmp_path / "m.onnx"
    assert run(["export", str(trained), "--index", str(small_index), "--out", str(out)]) == 0
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(exporting, "quantize", spoil)
    capsys.readouterr()
    assert run(["export", str(trained), "--index", str(small_index), "--out", str(out), "--int8"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "int8" in said
    assert "macro-F1" in said or "calibrated" in said
    assert "without --int8" in said
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert open_session(out, 1)[1].labels == LABELS


def test_half_precision_halves_the_file_and_keeps_the_answers(quick, trained, small_index, tmp_path, capsys):
    """The stored weights are the float ones rounded to half precision; the rest of the graph and calibration stay."""
    command = ["export", str(trained), "--index", str(small_index), "--out"]
    assert run([*command, str(tmp_path / "float.onnx")]) == 0
    capsys.readouterr()
    assert run([*command, str(tmp_path / "half.onnx"), "--fp16", "--json"]) == 0
    parity = json.loads(capsys.readouterr().out)
    assert parity["fp16"]
    assert parity["val"]["max_probability_difference"] < stage.HALF_TOLERANCE
    whole, half = (onnx.load(tmp_path / f"{name}.onnx") for name in ("float", "half"))
    assert half.ByteSize() < 0.6 * whole.ByteSize()
    weights = {c.name: onnx.numpy_helper.to_array(c) for c in whole.graph.initializer}
    stored = {c.name.removesuffix(".half"): onnx.numpy_helper.to_array(c) for c in half.graph.initializer}
    assert weights.keys() == stored.keys()
    for name, value in weights.items():
        assert np.array_equal(stored[name], value.astype(stored[name].dtype))
    assert sum(value.dtype == np.float16 for value in stored.values()) > 3
    index = read_index(small_index)
    crops = stage._crops(index, index.rows("val"))
    a, b = (
        open_session(tmp_path / f"{name}.onnx", threads=1)[0].run(["probabilities"], {"crops": crops})[0]
        for name in ("float", "half")
    )
    assert 0 < np.abs(a - b).max() < 0.01
    cards = [json.loads(m.metadata_props[0].value) for m in (whole, half)]
    assert cards[1]["quantized_from"] == cards[0]["weights_hash"] != cards[1]["weights_hash"]
    assert cards[1]["temperature"] == cards[0]["temperature"]


def test_weights_that_half_precision_cannot_hold_are_refused(
    quick, graph, trained, small_index, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(stage, "HALF_TOLERANCE", 1e-9)
    command = ["export", str(trained), "--index", str(small_index), "--out", str(tmp_path / "m.onnx")]
    assert run([*command, "--fp16"]) == 1
    assert "Export without --fp16" in capsys.readouterr().err
    assert run([*command, "--fp16", "--int8"]) == 2
    assert not (tmp_path / "m.onnx").exists()


def test_an_exported_file_tells_of_no_source_line(graph):
    assert graph.graph.node
    assert not [node.name for node in graph.graph.node if node.metadata_props or node.doc_string]
    assert b"stack_trace" not in graph.SerializeToString()
