"""Images to faces: one geometry, bad detections, bad images, threads."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from helpers.models import card, colour_model
from mien.cli import run
from mien.core.artifacts.abstention import ConformalSets
from mien.core.config.index import IndexConfig
from mien.core.config.live import DetectConfig
from mien.core.errors import InputError
from mien.core.geometry import CropSpec
from mien.core.images import image_id
from mien.core.labels import LABELS
from mien.evaluate.conformal import Conformal
from mien.runtime.detect import Detection, Finder, make_finder
from mien.runtime.recognizer import Recognizer
from mien.stages import index as index_stage

RNG = np.random.default_rng(0)


class Given:
    """A detector that answers what it was given."""

    name = "given"

    def __init__(self, *boxes):
        self.boxes = boxes

    def detect(self, image):
        return [Detection(tuple(map(float, box)), 0.9) for box in self.boxes]


class EchoSession:
    """Stands for an onnxruntime session: keeps the crops it is asked about."""

    def run(self, names, feeds):
        self.crops = feeds["crops"]
        return np.full((len(self.crops), 7), 1 / 7, np.float32), np.zeros((len(self.crops), 7), np.float32)


def recognizer(finder, spec: CropSpec) -> Recognizer:
    return Recognizer(EchoSession(), card(spec), finder)


@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (1.3, 0.1)])
def test_without_a_detector_the_crop_is_what_packing_makes(scale, shift, tmp_path):
    """`--detector none`, `classify` and `mien index build` cut the same pixels out of one file."""
    odd = [RNG.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((40, 40), (40, 72), (90, 36), (50, 20))]
    images = [*odd, *RNG.integers(0, 256, (56, 32, 32, 3), dtype=np.uint8)]
    lines = ["path,label"]
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{LABELS[i % 7]}")
    (tmp_path / "faces.csv").write_text("\n".join(lines) + "\n")
    source = f"csv={tmp_path / 'faces.csv'}"
    config = IndexConfig(source=(source,), size=32, near_duplicates="off", crop_scale=scale, crop_shift_y=shift)
    built = index_stage.run(config, tmp_path / "index")
    one = recognizer(make_finder(DetectConfig(detector="none")), built.crop)
    ids = built.image_ids.tolist()
    for image in odd:
        packed = np.asarray(built.pixels[np.array([ids.index(image_id(image))])])[0]
        for ask in (one, one.classify):
            ask(image)
            assert (one._session.crops[0] == packed).all()


BAD = [
    (500, 500, 20, 20),
    (-90, 0, 20, 20),
    (float("nan"), 0, 20, 20),
    (0, 0, float("inf"), 20),
    (5, 5, 0, 20),
    (5, 5, 10, -3),
    (0, 0, 4000, 4000),
]


@pytest.mark.parametrize("box", BAD)
def test_a_bad_detection_is_left_out_and_the_others_are_answered(box):
    image = RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    found = recognizer(Finder(Given(box, (10, 10, 30, 30)), min_confidence=0.5, side=320), CropSpec(size=32))(image)
    assert [face.box for face in found] == [(10, 10, 30, 30)]
    assert recognizer(Finder(Given(box), min_confidence=0.5, side=320), CropSpec(size=32))(image) == []


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 12, 3), (12, 0), (0, 0)])
def test_an_image_without_pixels_is_an_input_error(shape):
    one = recognizer(make_finder(DetectConfig(detector="haar")), CropSpec(size=32))
    for ask in (one, one.classify):
        with pytest.raises(InputError, match="at least one pixel"):
            ask(np.zeros(shape, np.uint8))


def test_a_bad_image_does_not_silence_the_others(tmp_path, capsys):
    model = colour_model(tmp_path / "colour.onnx")
    for name, colour in (("red", (250, 0, 0)), ("green", (0, 250, 0))):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.png").write_text("no image")
    names = ["red", "notes", "nowhere", "green"]
    paths = [str(tmp_path / f"{name}.png") for name in names]
    settings = ["--model", str(model), "--detector", "none"]
    assert run(["recognize", *paths, *settings, "--json"]) == 1
    out, err = capsys.readouterr()
    images = json.loads(out)["pictures"]
    assert [p["image"] for p in images] == paths
    assert ["error" in p for p in images] == [False, True, True, False]
    assert [images[i]["faces"][0]["label"] for i in (0, 3)] == ["happy", "sad"]
    assert "unknown_format" in images[1]["error"]
    assert "No file" in images[2]["error"]
    assert "2 of 4 images were not recognised" in " ".join(err.split())
    assert run(["recognize", *paths, *settings]) == 1
    out, err = capsys.readouterr()
    assert "happy" in out
    assert "sad" in out
    assert run(["recognize", paths[1], *settings]) == 2


class Stateful:
    """Like YuNet: the size is set in one call and used in another; a thread in between spoils the answer."""

    name = "stateful"

    def detect(self, image):
        self.size = image.shape[:2]
        time.sleep(0.002)
        return [Detection((0.0, 0.0, float(self.size[1]), float(self.size[0])), 0.9)]


def test_a_detector_with_state_is_asked_by_one_thread_at_a_time():
    finder = Finder(Stateful(), min_confidence=0.5, side=4096)
    images = [np.zeros((20 + k, 40 + k, 3), np.uint8) for k in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(finder, images))
    assert [f[0].box[2:] for f in found] == [(40 + k, 20 + k) for k in range(40)]


def test_yunet_answers_the_same_in_several_threads(real_data):
    path = real_data / "face_detection_yunet_2023mar.onnx"
    if not path.is_file():
        pytest.skip(f"no {path.name} at {real_data}")
    from mien.synthetic import draw_face

    finder = make_finder(DetectConfig(detector="yunet", detector_model=path, min_confidence=0.3))
    images = []
    for k in range(6):
        canvas = np.full((150 + 30 * k, 260 - 20 * k, 3), 90, np.uint8)
        canvas[10:138, 10:138] = draw_face(0, k, 128).image
        images.append(canvas)
    alone = [[d.box for d in finder(image)] for image in images]
    assert any(alone)
    failures = []

    def work(k):
        for _ in range(10):
            if [d.box for d in finder(images[k])] != alone[k]:
                failures.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_face_carries_the_labels_that_it_may_have():
    """The split conformal set of `mien.evaluate.conformal`, likeliest first; all labels without a fitted quantile."""
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.full(7, 0.4), 200)
    quantiles = {"alpha": 0.1, "n": 700, "class_conditional": dict.fromkeys(LABELS), "raps": None}
    for quantile in (0.7, 0.95, None):
        sets = Conformal(0.1, 700, quantile, (None,) * 7, None).sets(rows)
        decisions = card(CropSpec(size=32)).decisions.model_copy(
            update={"conformal": ConformalSets(split=quantile, **quantiles)}
        )
        for row, truth in zip(rows, sets, strict=True):
            found = decisions.conformal_set(row)
            assert set(found) == {LABELS[c] for c in np.flatnonzero(truth)}
            shown = [row[LABELS.index(name)] for name in found]
            assert shown == sorted(shown, reverse=True)
