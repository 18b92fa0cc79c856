"""Alignment: the same crop that live recognition makes; eyes made level; what has no face is counted."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from helpers import layouts
from mien.core.artifacts.index import read_index
from mien.core.config.index import IndexConfig, WorkConfig
from mien.core.geometry import CropSpec, crop_face, crop_square, cut
from mien.data.loading import load
from mien.runtime.detect import Detection
from mien.stages import index as stage


def test_level_eyes_change_nothing():
    image = layouts.on_canvas(3)
    spec = CropSpec(size=40, scale=1.2, shift_y=0.05)
    level = np.array([[46.0, 40], [62, 40]])
    plain = crop_face(image, (30, 20, 48, 48), spec)
    assert (crop_face(image, (30, 20, 48, 48), spec.model_copy(update={"align": "eyes"}), level) == plain).all()
    assert (crop_face(image, (30, 20, 48, 48), spec, np.array([[46.0, 30], [62, 50]])) == plain).all()  # not asked for
    assert (crop_face(image, (30, 20, 48, 48), spec.model_copy(update={"align": "eyes"})) == plain).all()  # not known


@pytest.mark.parametrize("degrees", [-25, -10, 15, 30])
def test_a_turned_face_is_turned_back(degrees):
    """An image is turned about the box's centre; aligning by the turned eyes gives the crop of the image as it was."""
    image = cv2.GaussianBlur(layouts.on_canvas(5, side=80, at=(40, 20), shape=(140, 160)), (0, 0), 1.0)
    centre = (79.5, 59.5)
    turn = cv2.getRotationMatrix2D(centre, degrees, 1)
    turned = cv2.warpAffine(image, turn, (160, 140), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    eyes = np.array([[66.0, 50], [94, 50]])
    moved = eyes @ turn[:, :2].T + turn[:, 2]
    spec = CropSpec(size=64, scale=0.8, align="eyes")
    wanted = crop_face(image, (40, 20, 80, 80), spec, eyes).astype(float)
    back = crop_face(turned, (40, 20, 80, 80), spec, moved[::-1]).astype(float)  # eyes in either order
    ignored = crop_face(turned, (40, 20, 80, 80), spec.model_copy(update={"align": "none"}), moved).astype(float)
    assert np.abs(back - wanted).mean() < 4
    assert np.abs(ignored - wanted).mean() > 2 * np.abs(back - wanted).mean()


def test_a_source_box_is_what_the_image_is(tmp_path):
    """ExpW: two faces of one image are two images, each cropped as `crop_face` crops."""
    root = layouts.expw(tmp_path / "e", 84)
    config = IndexConfig(source=(f"expw={root}",), near_duplicates="off", size=40, crop_scale=1.1, color="rgb")
    index = stage.run(config, tmp_path / "i", work=WorkConfig(workers=1))
    assert len(index.table) == 84
    row = next(i for i, r in enumerate(index.table.to_pylist()) if r["path"].endswith("p_0.jpg#1"))
    image = cv2.cvtColor(cv2.imread(str(root / "origin" / "p_0.jpg")), cv2.COLOR_BGR2RGB)
    expected = crop_face(image, (100, 40, 48, 48), CropSpec(size=40, scale=1.1))
    assert np.abs(index.pixels[row].astype(int) - expected).max() <= 6  # two JPEG decoders
    assert index.table["width"][row].as_py() == 48
    assert stage.audit(tmp_path / "i")["aligned"] == {"by the source's box": 84}


def test_a_bad_detection_is_passed_over(tmp_path):
    """A detector's box without an area or outside the image ends nothing: the next face is taken, or none was found."""
    spec, image = CropSpec(size=40), layouts.on_canvas(3)
    recipe = load.Recipe(spec, "csv", 16, 10**7)
    good, bad = (
        Detection((30.0, 20.0, 48.0, 48.0), 0.9),
        [Detection((30.0, 20.0, 0.0, 9.0), 1.0), Detection((900.0, 9.0, 9.0, 9.0), 1.0)],
    )
    crop, aligned = load._detected(image, lambda _: [*bad, good], recipe)
    assert (crop == crop_face(image, good.box, spec)).all()
    assert load.ALIGNED[aligned] == "by a detected face"
    assert load._detected(image, lambda _: bad, recipe) is None


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Drawn faces in larger images, and images without any."""
    root = tmp_path_factory.mktemp("scenes") / "f"
    for k in range(56):
        layouts.save(
            root / layouts.LABELS[k % 7] / f"{k:02}.png", layouts.on_canvas(k, side=96, at=(40, 16), shape=(140, 200))
        )
    rng = np.random.default_rng(0)
    for k in range(2):
        layouts.save(root / "happy" / f"none{k}.png", rng.integers(0, 40, (90, 90, 3), dtype=np.uint8))
    return root


def test_faces_are_found_cropped_as_live_and_the_rest_is_counted(scenes, tmp_path):
    from mien.core.config.live import DetectConfig
    from mien.runtime.detect import make_finder

    settings = {
        "source": (f"folder={scenes}",),
        "near_duplicates": "off",
        "size": 48,
        "max_rejected": 1.0,
        "detect_side": 200,
        "min_confidence": 0.3,
    }
    kept = stage.run(IndexConfig(**settings, align="face"), tmp_path / "keep")
    counts = stage.audit(tmp_path / "keep")["aligned"]
    assert counts["by a detected face"] >= 28  # drawings are hard for a detector of photographs
    assert counts["no face found"] >= 2
    assert sum(counts.values()) == len(kept.table) == 58
    dropped = stage.run(IndexConfig(**settings, align="face", unaligned="drop"), tmp_path / "drop")
    assert len(dropped.table) == counts["by a detected face"]
    assert stage.audit(tmp_path / "drop")["rejected"] == {"no_face": counts["no face found"]}
    listed = (tmp_path / "drop" / "rejected.csv").read_text()
    assert "folder:happy/none0.png" in listed
    finder = make_finder(DetectConfig(detect_side=200, min_confidence=0.3))
    row = next(r for r in range(58) if kept.table["path"][r].as_py() == dropped.table["path"][0].as_py())
    image = cv2.cvtColor(cv2.imread(str(scenes / dropped.table["path"][0].as_py().split(":")[1])), cv2.COLOR_BGR2RGB)
    live = crop_face(image, finder(image)[0].box, kept.crop)
    assert (dropped.pixels[0] == live).all()
    assert (kept.pixels[row] == live).all()
    assert read_index(tmp_path / "keep").crop.align == "none"


def test_a_square_partly_outside_repeats_the_edge():
    image = layouts.on_canvas(0)
    x, y, side, _ = crop_square((-10, -10, 40, 40), CropSpec(size=40))
    out = cut(image, (x, y, side, side))
    assert out.shape == (40, 40, 3)
    assert (out[:10, :10] == image[0, 0]).all()
    assert (out[10:, 10:] == image[:30, :30]).all()
