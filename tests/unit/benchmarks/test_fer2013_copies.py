"""The table of FER2013's copies: kinds and the closest copy in Training of planted ones, on a drawn index."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

from mien.core.config.index import IndexConfig
from mien.core.errors import UsageError
from mien.core.labels import FER2013
from mien.stages import index as stage
from unit.data.test_sources import write_fer2013

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from fer2013_copies import COLUMNS, copies, read_copies, write

USAGE = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}


def face(seed: int) -> np.ndarray:
    """A surface of broad stains, unlike any other."""
    import cv2

    noise = np.random.default_rng(seed).normal(0, 1, (48, 48))
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def rows() -> list[tuple[str, np.ndarray]]:
    """(official split, image): twelve single ones, then the planted ones, from row 12 on."""
    single = [(split, face(i)) for i, split in enumerate(("train",) * 6 + ("val",) * 3 + ("test",) * 3)]
    a, b, c, d = (face(100 + i) for i in range(4))
    return [
        *single,
        ("train", a),
        ("test", a),  # 12, 13: identical in Training
        ("train", b),
        ("val", b[:, ::-1]),  # 14, 15: mirrored in Training
        ("test", c),
        ("val", c),  # 16, 17: identical, none of them in Training
        ("train", d[:, ::-1]),
        ("test", d),
        ("test", d),  # 18-20: identical to each other, near to one in Training
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("copies")
    table = [(next(iter(FER2013)), " ".join(map(str, pixels.ravel())), USAGE[split]) for split, pixels in rows()]
    source = write_fer2013(root / "fer2013.csv", table)
    stage.run(IndexConfig(source=(f"fer2013={source}",), size=48), root / "index")
    return root / "index"


def test_planted_copies_have_their_kinds(folder):
    lines, counts = copies(folder)
    found = {int(line["row"]): (line["split"], line["kind"], line["training"]) for line in lines}
    assert found == {
        12: ("train", "identical", ""),
        13: ("test", "identical", "identical"),
        14: ("train", "near", ""),
        15: ("val", "near", "near"),
        16: ("test", "identical", "none"),
        17: ("val", "identical", "none"),
        18: ("train", "near", ""),
        19: ("test", "identical", "near"),
        20: ("test", "identical", "near"),
    }
    group = {int(line["row"]): line["group"] for line in lines}
    assert [len({group[row] for row in rows}) for rows in ((12, 13), (14, 15), (16, 17), (18, 19, 20))] == [1, 1, 1, 1]
    assert len(set(group.values())) == 4
    # val: three single rows, the mirrored one, and one whose twin is in test
    assert counts == {"val": {"identical": 0, "near": 1, "none": 4}, "test": {"identical": 1, "near": 2, "none": 4}}


def test_an_image_id_can_be_made_from_the_pixels_alone(folder, tmp_path):
    lines, _ = copies(folder)
    line = next(line for line in lines if line["row"] == "13")
    pixels = rows()[13][1]
    assert line["image_id"] == hashlib.sha256(b"mien-grey8:48x48:" + pixels.tobytes()).hexdigest()[:16]
    write(tmp_path / "copies.csv", lines)
    assert (tmp_path / "copies.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert read_copies(tmp_path / "copies.csv")[line["image_id"]] == "identical"
    assert len(read_copies(tmp_path / "copies.csv")) == len({x["image_id"] for x in lines if x["training"]})


def test_an_index_of_other_sources_is_refused(small_index):
    with pytest.raises(UsageError, match="of it alone"):
        copies(small_index)


def test_the_published_counts_are_those_of_the_published_rows():
    """Recounts the table in docs/results/near-duplicates.md: rows of a split less those with a copy in Training."""
    import csv
    import re

    results = Path(__file__).parents[3] / "docs" / "results"
    with (results / "fer2013_copies.csv").open(newline="") as file:
        rows = [(row["split"], row["training"]) for row in csv.DictReader(file)]
    text = (results / "near-duplicates.md").read_text(encoding="utf-8")
    for split in ("val", "test"):
        cells = re.search(rf"^\| {split} \(\w+\) \|(.*)\|$", text, re.MULTILINE)[1].replace(",", "").split("|")
        total, identical, near, none = map(int, cells)
        assert (identical, near) == tuple(rows.count((split, kind)) for kind in ("identical", "near"))
        assert none == total - identical - near
