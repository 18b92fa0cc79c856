"""The reader of TensorFlow Lite files, the converted detector against a naive run of the original, and its decoding."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from helpers.node import PAGE, node
from mien.core.errors import InputError
from mien.web import assets
from mien.web.tflite import read_tflite

RNG = np.random.default_rng(1)


def naive(graph, image):
    """The outputs of a TensorFlow Lite graph of BlazeFace's operators by loops over output places; image (h, w, 3)."""
    values = {i: t.values.astype(np.float32) for i, t in enumerate(graph.tensors) if t.values is not None}
    values[graph.inputs[0]] = image[None].astype(np.float32)
    for one in graph.operators:
        data, option = [values[i] for i in one.inputs], one.options
        if one.code == 6:
            out = data[0]
        elif one.code in (3, 4, 17):
            out = naive_window(one, data, option)
        elif one.code == 34:
            out = np.pad(data[0], graph.tensors[one.inputs[1]].values)
        elif one.code == 0:
            out = data[0] + data[1]
        elif one.code == 19:
            out = np.maximum(data[0], 0)
        elif one.code == 22:
            out = data[0].reshape(graph.tensors[one.outputs[0]].shape)
        else:
            assert one.code == 2
            out = np.concatenate(data, 1)
        values[one.outputs[0]] = out
    return [values[i] for i in graph.outputs]


def naive_window(one, data, option):
    """Convolution, depthwise convolution or maximum over windows with TensorFlow's padding."""
    image, same = data[0][0], option.number(0, "b") == 0
    stride_w, stride_h = option.number(1), option.number(2)
    kernel = (option.number(4), option.number(3)) if one.code == 17 else data[1].shape[1:3]
    sizes = [
        -(-n // s) if same else (n - k) // s + 1
        for n, k, s in zip(image.shape, kernel, (stride_h, stride_w), strict=False)
    ]
    pads = [
        max(0, (o - 1) * s + k - n) if same else 0
        for o, s, k, n in zip(sizes, (stride_h, stride_w), kernel, image.shape, strict=False)
    ]
    fill = -np.inf if one.code == 17 else 0
    padded = np.pad(image, [(p // 2, p - p // 2) for p in pads] + [(0, 0)], constant_values=fill)
    rows = []
    for y in range(sizes[0]):
        for x in range(sizes[1]):
            window = padded[y * stride_h : y * stride_h + kernel[0], x * stride_w : x * stride_w + kernel[1]]
            if one.code == 17:
                rows.append(window.max((0, 1)))
            elif one.code == 4:
                rows.append((window * data[1][0]).sum((0, 1)) + data[2])
            else:
                rows.append(data[1].reshape(len(data[1]), -1) @ window.ravel() + data[2])
    return np.array(rows, np.float32).reshape(1, *sizes, -1)


def test_the_converted_detector_computes_what_the_original_says():
    """Boxes and scores of noise and of a bright disc, decoded here by hand from MediaPipe's description."""
    if not assets.ready():
        pytest.skip("the page's assets are not here: `mien serve setup`")
    import onnxruntime

    graph = read_tflite((assets.FOLDER / assets.TFLITE).read_bytes())
    session = onnxruntime.InferenceSession((assets.FOLDER / assets.DETECTOR).read_bytes())
    y, x = np.mgrid[:128, :128]
    disc = (40 + 180 * ((x - 60) ** 2 + (y - 70) ** 2 < 900)[..., None] * np.array([1, 0.8, 0.7])).astype(np.uint8)
    for image in (RNG.integers(0, 256, (128, 128, 3)).astype(np.uint8), disc):
        raw, logits = naive(graph, image / 127.5 - 1)
        boxes, scores = session.run(["boxes", "scores"], {"image": image[None]})
        np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits[0, :, 0])), rtol=1e-3, atol=1e-6)
        for anchor in (0, 1, 33, 511, 512, 517, 518, 895):
            cell = anchor // 2 if anchor < 512 else (anchor - 512) // 6
            across = 16 if anchor < 512 else 8
            centre = ((cell % across + 0.5) / across, (cell // across + 0.5) / across)
            wanted = raw[0, anchor] / 128
            wanted[0:2] += centre
            for k in range(4, 16, 2):
                wanted[k : k + 2] += centre
            np.testing.assert_allclose(boxes[anchor], wanted, rtol=1e-3, atol=1e-3)


def test_boxes_become_those_that_were_measured():
    measured = json.loads((Path(__file__).parents[3] / "docs" / "results" / "page_boxes.json").read_text())
    assert json.loads((PAGE.parents[1] / "runtime" / "blazeface.json").read_text())["remap"] == measured["remap"]


def test_what_is_no_such_network_is_refused():
    from mien.web.blazeface import to_onnx

    with pytest.raises(InputError, match="TFL3"):
        read_tflite(b"PK\x03\x04 something else entirely")
    with pytest.raises(InputError, match="damaged"):
        read_tflite(struct.pack("<I4s", 4096, b"TFL3"))
    with pytest.raises(InputError, match="BlazeFace short range"):
        to_onnx(tiny_network())


def test_tensors_and_options_are_read():
    """A file of one pooling operator, built by FlatBuffers' own writer."""
    graph = read_tflite(tiny_network())
    assert [(t.name, t.shape) for t in graph.tensors] == [
        ("in", (1, 4, 6, 2)),
        ("out", (1, 2, 2, 2)),
        ("weights", (2, 3)),
    ]
    np.testing.assert_array_equal(graph.tensors[2].values, np.arange(6, dtype=np.float32).reshape(2, 3))
    assert graph.tensors[0].values is None
    assert (graph.inputs, graph.outputs) == ([0], [1])
    (one,) = graph.operators
    assert (one.code, one.inputs, one.outputs) == (17, [0], [1])
    assert [one.options.number(0, "b"), *(one.options.number(i) for i in range(1, 6))] == [1, 3, 2, 3, 2, 0]


def tiny_network() -> bytes:
    """A TensorFlow Lite file: maximum over windows of 2 by 3, and weights that nobody uses."""
    flatbuffers = pytest.importorskip("flatbuffers")
    b = flatbuffers.Builder(1024)

    def vector(items, size, prepend):
        b.StartVector(size, len(items), size)
        for item in reversed(items):
            prepend(item)
        return b.EndVector()

    def table(count, *slots):
        b.StartObject(count)
        for slot in slots:
            slot()
        return b.EndObject()

    def offset(field, value):
        return lambda: b.PrependUOffsetTRelativeSlot(field, value, 0)

    def tables(*items):
        return vector(items, 4, b.PrependUOffsetTRelative)

    def integers(*items):
        return vector(items, 4, b.PrependInt32)

    data = vector(np.arange(6, dtype="<f4").tobytes(), 1, b.PrependByte)
    buffers = tables(table(1), table(1, offset(0, data)))
    tensors = []
    for name, shape, buffer in (("in", (1, 4, 6, 2), 0), ("out", (1, 2, 2, 2), 0), ("weights", (2, 3), 1)):
        text, sides = b.CreateString(name), integers(*shape)
        tensors.append(table(4, offset(0, sides), lambda n=buffer: b.PrependUint32Slot(2, n, 0), offset(3, text)))
    ints = [lambda f=f, v=v: b.PrependInt32Slot(f, v, 0) for f, v in enumerate([3, 2, 3, 2], start=1)]
    options = table(6, lambda: b.PrependInt8Slot(0, 1, 0), *ints)
    inputs, outputs = integers(0), integers(1)
    operators = tables(table(6, offset(1, inputs), offset(2, outputs), offset(4, options)))
    inputs, outputs, tensors = integers(0), integers(1), tables(*tensors)
    graphs = tables(table(4, offset(0, tensors), offset(1, inputs), offset(2, outputs), offset(3, operators)))
    codes = tables(table(4, lambda: b.PrependInt8Slot(0, 17, 0), lambda: b.PrependInt32Slot(3, 17, 0)))
    b.Finish(table(5, offset(1, codes), offset(2, graphs), offset(4, buffers)), b"TFL3")
    return bytes(b.Output())


def test_overlapping_boxes_become_their_mean_by_score_in_the_frames_pixels():
    """Two boxes of one face, one of another, one too weak, in a frame of 256 by 128."""
    boxes, scores = np.zeros((896, 16), np.float32), np.zeros(896, np.float32)
    places = {
        3: (0.25, 0.5, 0.2, 0.2),
        10: (0.27, 0.5, 0.2, 0.2),
        600: (0.75, 0.5, 0.1, 0.1),
        700: (0.5, 0.5, 0.5, 0.5),
    }
    for row, score in zip(places, (0.9, 0.6, 0.8, 0.4), strict=True):
        boxes[row, :4], boxes[row, 4:], scores[row] = places[row], np.tile(places[row][:2], 6), score
    body = """
        const { faces } = await load("blazeface.js");
        const remap = { dx: 0.1, dy: -0.2, width: 0.5, height: 2 };
        const settings = { side: 128, min_score: 0.5, overlap: 0.3, remap };
        const boxes = Float32Array.from(given.boxes), scores = Float32Array.from(given.scores);
        return faces(boxes, scores, { scale: 0.5, left: 0, top: 32 }, settings);
    """
    found = node(body, {"boxes": boxes.ravel().tolist(), "scores": scores.tolist()})
    x = (0.9 * 0.25 + 0.6 * 0.27) / 1.5 * 256
    for face, (cx, cy, side, score) in zip(found, [(x, 64, 51.2, 0.9), (192, 64, 25.6, 0.8)], strict=True):
        wanted = [cx + 0.1 * side - side / 4, cy - 0.2 * side - side, side / 2, 2 * side]
        np.testing.assert_allclose(face["box"], wanted, rtol=1e-5)
        assert face["score"] == pytest.approx(score)
        np.testing.assert_allclose(face["landmarks"], [[cx, cy]] * 6, rtol=1e-5)


def test_a_frame_is_letterboxed_as_opencv_shrinks_it():
    import cv2

    rgb = cv2.GaussianBlur(RNG.integers(0, 256, (90, 161, 3)).astype(np.uint8), (5, 5), 0)
    rgba = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    body = """
        const { letterbox } = await load("blazeface.js");
        const { square, ...place } = letterbox({ data: Uint8ClampedArray.from(given), width: 161, height: 90 }, 128);
        return { square: Array.from(square), ...place };
    """
    found = node(body, rgba.ravel().tolist())
    wanted = np.zeros((128, 128, 3), np.uint8)
    wanted[28:100] = cv2.resize(rgb, (128, 72), interpolation=cv2.INTER_AREA)  # 90 * 128 / 161 = 71.6
    ours = np.array(found["square"], np.uint8).reshape(128, 128, 3)
    assert (found["left"], found["top"], found["scale"]) == (0, 28, pytest.approx(128 / 161))
    assert np.abs(ours.astype(int) - wanted.astype(int)).max() <= 1
