"""RAF-DB, AffectNet, ExpW, CSV tables and Hugging Face data sets, in their official layouts with drawn faces."""

from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from helpers import layouts
from mien.core.errors import InputError, RejectedImage, UsageError
from mien.core.labels import LABELS
from mien.data.sources import open_source
from mien.data.sources.base import content_hash


def opened(text):
    return open_source(text, seed=0, size=48)


def test_rafdb_aligned(tmp_path):
    source = opened(f"rafdb={layouts.rafdb(tmp_path / 'basic')}")
    items = list(source)
    assert len(items) == len(source) == 21
    assert [i.label for i in items[:7]] == list(LABELS)
    assert Counter(i.official_split for i in items) == {"train": 14, "test": 7}
    assert items[0].path == "rafdb:Image/aligned/train_00001_aligned.jpg"
    assert items[14].path == "rafdb:Image/aligned/test_0001_aligned.jpg"
    assert dict(items[1].attributes) == {"gender": "female", "race": "African-American", "age": "4-19"}
    assert source.cropped
    assert items[0].image.box is None
    assert items[0].image.load(min_side=16).shape == (48, 48, 3)


def test_rafdb_originals_have_boxes_and_points(tmp_path):
    source = opened(f"rafdb={layouts.rafdb(tmp_path / 'basic', aligned=False)}")
    item = next(iter(source))
    assert not source.cropped
    assert item.image.box == (30, 20, 48, 48)
    assert item.image.landmarks[:2] == ((46, 39), (62, 39))
    assert item.image.load(min_side=16).shape == (120, 160, 3)


@pytest.mark.parametrize(
    "line, expected",
    [
        ("train_00001.jpg 8", "a number from 1 to 7"),
        ("train_00001.jpg", "a number from 1 to 7"),
        ("x_1.jpg 3", "begin with train or test"),
        ("train_/../../../etc/passwd 3", "stay inside"),
    ],
)
def test_rafdb_damaged_table(tmp_path, line, expected):
    root = layouts.rafdb(tmp_path / "basic")
    (root / "EmoLabel" / "list_patition_label.txt").write_text(line)
    with pytest.raises(InputError, match=expected):
        opened(f"rafdb={root}")


def test_an_annotation_that_changes_changes_the_content(tmp_path):
    root = layouts.rafdb(tmp_path / "basic")
    before = content_hash(opened(f"rafdb={root}"))
    shutil.copytree(root, tmp_path / "copy")
    assert content_hash(opened(f"rafdb={tmp_path / 'copy'}")) == before
    note = root / "Annotation" / "manual" / "train_00001_manu_attri.txt"
    note.write_text(note.read_text().replace("\n0\n0\n0\n", "\n1\n0\n0\n"))
    assert content_hash(opened(f"rafdb={root}")) != before


def test_affectnet_folders(tmp_path):
    items = list(opened(f"affectnet={layouts.affectnet_folders(tmp_path / 'a')}"))
    assert len(items) == 23
    assert Counter(i.official_split for i in items) == {"train": 15, "test": 8}
    assert [i.label for i in items[:7]] == list(LABELS)
    assert [(i.label, i.why) for i in items if i.why] == [(None, "contempt")] * 2
    assert dict(items[0].attributes) == {"arousal": "0.5", "valence": "-0.25"}
    assert items[9].path == "affectnet:train_set/images/9.jpg"
    assert items[10].path == "affectnet:train_set/images/10.jpg"  # by number, not by text


def test_affectnet_tables(tmp_path):
    items = list(opened(f"affectnet={layouts.affectnet_tables(tmp_path / 'a')}"))
    assert len(items) == 16
    assert [i.official_split for i in items] == ["train"] * 8 + ["test"] * 8
    assert items[7].why == "uncertain"
    assert items[0].image.box == (30, 20, 48, 48)
    assert items[0].image.landmarks == ((46, 39), (62, 41))
    assert items[0].image.load(min_side=16).shape == (120, 160, 3)


@pytest.mark.parametrize(
    "damage, expected",
    [
        (lambda r: np.save(r / "train_set/annotations/0_exp.npy", np.array("11")), "from 0 to 10"),
        (lambda r: (r / "train_set/annotations/0_exp.npy").write_bytes(b"junk"), "cannot be read"),
        (lambda r: np.save(r / "train_set/annotations/0_exp.npy", np.array([{}], dtype=object)), "cannot be read"),
    ],
)
def test_affectnet_damaged(tmp_path, damage, expected):
    root = layouts.affectnet_folders(tmp_path / "a")
    damage(root)
    with pytest.raises(InputError, match=expected):
        opened(f"affectnet={root}")


def test_expw_rows_are_boxes(tmp_path):
    items = list(opened(f"expw={layouts.expw(tmp_path / 'e')}"))
    assert len(items) == 14
    assert {i.official_split for i in items} == {None}
    assert items[0].image.box == (10, 20, 48, 48)
    assert items[1].image.box == (100, 40, 48, 48)
    assert [i.path for i in items[:2]] == ["expw:origin/p_0.jpg#0", "expw:origin/p_0.jpg#1"]
    assert [i.label for i in items[:7]] == list(LABELS)


@pytest.mark.parametrize(
    "line", ["p_0.jpg 0 1 2 3", "p_0.jpg 0 1 2 3 4 5 9", "p_0.jpg 0 a 2 3 4 5 1", "../p 0 1 2 3 4 5 1"]
)
def test_expw_damaged(tmp_path, line):
    root = layouts.expw(tmp_path / "e")
    (root / "label.lst").write_text(line)
    with pytest.raises(InputError):
        opened(f"expw={root}")


def table(root, text):
    root.mkdir(exist_ok=True)
    for k in range(3):
        Image.fromarray(layouts.face(k)).save(root / f"{k}.png")
    (root / "t.csv").write_text(text)
    return root / "t.csv"


def test_csv_columns(tmp_path):
    path = table(
        tmp_path / "c",
        "path, label,split,subject,x,y,width,height,age\n"
        "0.png,joy,Training,bob,,,,,31\n"
        "1.png,,test,,4,4,30,30,\n"
        "2.png,sad,,,,,,,\n",
    )
    items = list(opened(f"csv={path}"))
    assert [(i.label, i.why, i.official_split, i.subject) for i in items] == [
        ("happy", "", "train", "bob"),
        (None, "no_label", "test", None),
        ("sad", "", None, None),
    ]
    assert items[1].image.box == (4, 4, 30, 30)
    assert items[0].attributes == (("age", "31"),)
    assert items[0].path == "csv:0.png"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("file,label\n0.png,sad\n", "has the columns file, label"),
        ("path,label\n", "has no rows"),
        ("path,label\n/etc/passwd,sad\n", "stay inside"),
        ("path,label\n0.png,hapy\n", "Did you mean 'happy'"),
        ("path,label,split\n0.png,sad,later\n", "split 'later'"),
        ("path,label,x,y,width,height\n0.png,sad,1,2,3,\n", "all empty"),
    ],
)
def test_csv_damaged(tmp_path, text, expected):
    with pytest.raises(InputError, match=expected):
        opened(f"csv={table(tmp_path / 'c', text)}")


@pytest.fixture
def hub(tmp_path):
    """A data set as the `datasets` library keeps it."""
    datasets = pytest.importorskip("datasets", reason="needs the extra hf")
    names = ["sad", "happy", "contempt", "anger"]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names), "age": datasets.Value("int32")}
    )
    rows = {
        "image": [Image.fromarray(layouts.face(k)) for k in range(8)],
        "label": [k % 4 for k in range(8)],
        "age": list(range(8)),
    }
    made = datasets.Dataset.from_dict(rows, features=features)
    return datasets.DatasetDict({"train": made.select(range(6)), "validation": made.select(range(6, 8))}), tmp_path


def check_hub(source):
    items = list(source)
    assert [i.label for i in items[:4]] == ["sad", "happy", None, "angry"]
    assert items[2].why == "contempt"
    assert [i.official_split for i in items] == ["train"] * 6 + ["val"] * 2
    assert items[5].attributes == (("age", "5"),)
    assert (items[3].image.load(min_side=16) == layouts.face(3)).all()


def test_datasets_saved_to_disk(hub):
    made, root = hub
    made.save_to_disk(root / "saved")
    source = opened(f"hf={root / 'saved'}")
    check_hub(source)
    shutil.copytree(root / "saved", root / "moved" / "saved")
    assert content_hash(opened(f"hf={root / 'moved' / 'saved'}")) == content_hash(source)


def test_datasets_as_parquet(hub, monkeypatch):
    made, root = hub
    monkeypatch.setenv("HF_DATASETS_CACHE", str(root / "cache"))
    (root / "pq").mkdir()
    for name, part in made.items():
        part.to_parquet(root / "pq" / f"{name}-00000.parquet")
    check_hub(opened(f"hf={root / 'pq'}"))
    alone = list(opened(f"hf={root / 'pq' / 'train-00000.parquet'}"))  # a file is a set of its own, without splits
    assert [(i.label, i.official_split) for i in alone[:3]] == [("sad", None), ("happy", None), (None, None)]
    assert (alone[3].image.load(min_side=16) == layouts.face(3)).all()
    assert len({i.image.fingerprint() for i in alone}) == len(alone)  # other images under the same table are seen
    (root / "t.csv").write_text("image,label\n")
    with pytest.raises(InputError, match=r"t\.csv is no Parquet file"):
        opened(f"hf={root / 't.csv'}")


def test_a_data_set_that_is_not_there(tmp_path):
    pytest.importorskip("datasets", reason="needs the extra hf")
    with pytest.raises(InputError, match="No folder"):
        opened("hf=./nowhere/at/all")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="cannot be opened"):
        opened(f"hf={tmp_path / 'empty'}")


def test_without_the_library_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"\.\[hf\]"):
        opened("hf=x")


def test_ferplus_over_the_challenges_own_table(tmp_path):
    """The vote table and fer2013.csv beside it, as downloads lie; rows without a name are left out."""
    from unit.data.test_sources import pixels, write_fer2013, write_ferplus

    votes = [0, 9, 1, 0, 0, 0, 0, 0, 0, 0]
    root = write_ferplus(
        tmp_path / "fp", [("Training", "fer0000000.png", votes), ("PrivateTest", "fer0000001.png", votes)]
    )
    for folder in ("FER2013Train", "FER2013Valid", "FER2013Test"):
        shutil.rmtree(root / folder)
    lines = (root / "fer2013new.csv").read_text().splitlines()
    (root / "fer2013new.csv").write_text("\n".join([*lines[:2], "Training,,0,0,0,0,0,0,0,0,0,10", lines[2]]) + "\n")
    with pytest.raises(RejectedImage, match="missing"):
        next(iter(opened(f"ferplus={root}"))).image.load(min_side=16)
    write_fer2013(
        root / "fer2013.csv", [(3, pixels(v), u) for v, u in ((1, "Training"), (2, "Training"), (3, "PrivateTest"))]
    )
    items = list(opened(f"ferplus={root}"))
    assert [int(i.image.load(min_side=16)[0, 0, 0]) for i in items] == [1, 3]
    write_fer2013(root / "fer2013.csv", [(3, pixels(1), "Training")])
    with pytest.raises(InputError, match="Row by row"):
        opened(f"ferplus={root}")
