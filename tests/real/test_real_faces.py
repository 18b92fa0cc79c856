"""What only real faces can show. Skipped where they are absent."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mien.cli import run
from mien.core.config.index import IndexConfig
from mien.core.config.live import DetectConfig
from mien.core.labels import FER2013, FERPLUS, LABELS
from mien.runtime.recognizer import Recognizer
from mien.stages import index as stage

pytestmark = pytest.mark.real
FOLDERS = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}


@pytest.fixture(scope="module")
def rows(real_data):
    return pq.read_table(real_data / "fer2013plus.parquet").to_pylist()


def grey(row) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(row["image"])))


@pytest.fixture(scope="module")
def fer2013(rows, tmp_path_factory):
    """The challenge's own file."""
    numbers = {name: number for number, name in FER2013.items()}
    path = tmp_path_factory.mktemp("real") / "fer2013.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        for row in rows:
            pixels = " ".join(map(str, grey(row).ravel().tolist()))
            writer.writerow([numbers[row["fer2013_label"]], pixels, row["usage"]])
    return path


def test_the_full_file_is_indexed_as_was_measured(fer2013, tmp_path):
    index = stage.run(IndexConfig(source=(f"fer2013={fer2013}",)), tmp_path / "i")
    audit = stage.audit(tmp_path / "i")
    assert audit["source_rows"] == {"fer2013": 35_710}
    assert audit["duplicates"] == {
        "identical_groups": 1_513, "pictures_in_groups": 3_353, "groups_crossing_official_splits": 556,
        "official_rows_also_in_train": {"val": 279, "test": 288}, "groups_with_conflicting_labels": 56,
    }  # fmt: skip
    assert audit["groups_on_two_sides"] == 0
    assert len(set(index.image_ids.tolist())) == len(index.table)
    assert audit["rejected"] == {}
    assert index.crop.color == "grey"


def test_ferplus_rules_keep_what_was_counted(rows, tmp_path):
    """A sixth of the pictures through the folder form, against counts taken straight from the votes."""
    root, some = tmp_path / "fp", rows[::6]
    for folder in FOLDERS.values():
        (root / folder).mkdir(parents=True)
    with (root / "fer2013new.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Usage", "Image name", *FERPLUS])
        for row in some:
            writer.writerow([row["usage"], row["name"], *(row[f"ferplus_{name.lower()}"] for name in FERPLUS)])
            (root / FOLDERS[row["usage"]] / row["name"]).write_bytes(row["image"])
    stage.run(IndexConfig(source=(f"ferplus={root}",)), tmp_path / "i")
    audit = stage.audit(tmp_path / "i")
    expected = {"contempt": 0, "no_majority": 0, "not_a_face": 0, "unknown": 0}
    for row in some:
        votes = {name: row[f"ferplus_{name.lower()}"] for name in FERPLUS}
        left = {name: v for name, v in votes.items() if v > 1}
        top = max(left, key=left.get) if left else ""
        if not left or left[top] * 2 <= sum(left.values()):
            expected["no_majority"] += 1
        elif FERPLUS[top] is None:
            expected[{"NF": "not_a_face"}.get(top, top)] += 1
    assert {k: v for k, v in audit["dropped"].items() if k != "label_conflict"} == {
        k: v for k, v in expected.items() if v
    }


def test_a_photograph_with_several_faces(real_data, rows, small_study, tmp_path):
    """Six real faces pasted into one picture are found, where they are, and none elsewhere."""
    big = [r for r in rows[:3000] if r["ferplus_happiness"] >= 9][:6]
    canvas = np.full((460, 680, 3), 90, np.uint8)
    places = []
    for k, row in enumerate(big):
        face = np.asarray(Image.fromarray(grey(row)).resize((160, 160), Image.Resampling.BICUBIC))
        x, y = 30 + 220 * (k % 3), 35 + 220 * (k // 3)
        canvas[y : y + 160, x : x + 160] = face[..., None]
        places.append((x + 80, y + 80))
    recognizer = Recognizer.load(small_study / "export" / "student.onnx", detect=DetectConfig(detect_side=680))
    faces = recognizer(canvas)
    assert 5 <= len(faces) <= 6
    for face in faces:
        x, y, w, h = face.box
        assert min(np.hypot(x + w / 2 - px, y + h / 2 - py) for px, py in places) < 40
        assert set(face.probabilities) == set(LABELS)


def test_the_video_to_its_end(real_data, small_study, tmp_path, capsys):
    video, model = real_data / "woman_sad_to_happy.mp4", small_study / "export" / "student.onnx"
    log, out = tmp_path / "f.parquet", tmp_path / "o.mp4"
    code = run(["live", "--input", str(video), "--model", str(model), "--log", str(log), "--out", str(out), "--json"])
    assert code == 0
    done = json.loads(capsys.readouterr().out)
    assert done["frames"] == 472
    assert done["frames_with_face"] >= 460
    assert done["identities"] == 1
    assert done["dropped"] == 0
    assert done["flips_per_minute"]["smoothed"] <= done["flips_per_minute"]["raw"]
    assert out.stat().st_size > 100_000
    table = pq.read_table(log)
    assert len(table) >= 460
