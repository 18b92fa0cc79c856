"""The page's YuNet beside Python's: what the network is given, what its outputs mean, and when it is used."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers.models import card
from helpers.node import node
from mien.core.config.live import DetectConfig
from mien.core.geometry import CropSpec
from mien.runtime.detect import BLAZEFACE_SETTINGS, Finder, YuNet, crop_of
from mien.stages import serve as stage

RNG = np.random.default_rng(5)
SETTINGS = {"side": 64, "min_score": 0.6, "overlap": YuNet.OVERLAP}


class Network:
    """A session that records what it is given and answers the same random outputs for every image of one size."""

    def __init__(self, height: int, width: int) -> None:
        self.outputs = {}
        for stride in (8, 16, 32):
            n = (height // stride) * (width // stride)
            for kind, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
                values = RNG.uniform(0.2, 1.1, (1, n, 1)) if channels == 1 else RNG.normal(0, 1, (1, n, channels))
                self.outputs[f"{kind}_{stride}"] = values.astype(np.float32)

    def run(self, names, inputs):
        self.given = inputs["input"]
        return [self.outputs[name] for name in names]


@pytest.mark.parametrize("size", [(41, 90), (64, 33), (30, 40)])
def test_the_page_finds_what_python_finds(size):
    """The same image and network outputs give the same input, boxes, scores and landmarks, in the same order."""
    image = RNG.integers(0, 256, (*size, 3)).astype(np.uint8)
    scale = min(1, 64 / max(size))
    network = Network(*(32 * -(-round(side * scale) // 32) for side in size))
    detector = object.__new__(YuNet)
    detector._names, detector._session = list(network.outputs), network
    theirs = Finder(detector, min_confidence=SETTINGS["min_score"], side=SETTINGS["side"])(image)
    rgba = np.dstack([image, np.full(size, 255, np.uint8)])
    body = """
        const { yunet } = await load("yunet.js"), asked = [];
        const arrays = Object.entries(given.outputs).map(([name, flat]) => [name, Float32Array.from(flat)]);
        const outputs = Object.fromEntries(arrays);
        const run = async ({ input }) => { asked.push(...input); return outputs; };
        const image = { data: Uint8ClampedArray.from(given.rgba), width: given.w, height: given.h };
        const faces = await yunet(given.settings, run)(image);
        return { faces, values: Array.from(asked[0]), shape: asked[1] };
    """
    outputs = {name: values.ravel().tolist() for name, values in network.outputs.items()}
    given = {"settings": SETTINGS, "outputs": outputs, "rgba": rgba.ravel().tolist(), "w": size[1], "h": size[0]}
    ours = node(body, given)
    assert ours["shape"] == list(network.given.shape)
    assert np.abs(np.reshape(ours["values"], ours["shape"]) - network.given).max() <= 1  # a grey level, from rounding
    assert len(ours["faces"]) == len(theirs) > 3
    for face, detection in zip(ours["faces"], theirs, strict=True):
        np.testing.assert_allclose(face["box"], detection.box, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(face["landmarks"], detection.landmarks, rtol=1e-4, atol=1e-3)
        assert face["score"] == pytest.approx(detection.confidence, rel=1e-5)


def test_the_page_takes_yunet_where_it_was_fetched(monkeypatch, tmp_path):
    """Its settings are Python's defaults, its network takes any size, and crops around its boxes are as in Python."""
    (tmp_path / "blazeface.onnx").write_bytes(b"blazeface")
    monkeypatch.setattr(stage, "BLAZEFACE_FILE", tmp_path / "blazeface.onnx")
    monkeypatch.setattr(stage, "downloaded_file", lambda name: None)
    assert stage.page_detector() == (BLAZEFACE_SETTINGS, b"blazeface")
    yunet = tmp_path / "yunet.onnx"
    yunet.write_bytes(b"before" + YuNet._FIXED + b"after")
    monkeypatch.setattr(stage, "downloaded_file", {"yunet": yunet}.get)
    settings, network = stage.page_detector()
    defaults = DetectConfig()
    assert settings == {
        "name": "yunet",
        "side": defaults.detect_side,
        "min_score": defaults.min_confidence,
        "overlap": YuNet.OVERLAP,
    }
    assert network == b"before" + YuNet._NAMED + b"after"
    given, spec = card(CropSpec(size=40)), CropSpec(size=40)
    assert stage.page_card(given, "yunet")["crop"] == crop_of(spec, "yunet").model_dump() != spec.model_dump()
    assert stage.page_card(given, "blazeface")["crop"] == spec.model_dump()
    json.dumps(settings)
