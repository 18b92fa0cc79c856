"""Sources in faithful layouts, and what is said of anything else."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mien.core.errors import InputError, RejectedImage, UsageError
from mien.core.labels import FERPLUS, LABELS
from mien.data.sources import SOURCES, open_source
from mien.data.sources.ferplus import majority

RNG = np.random.default_rng(0)


def write_fer2013(path, rows, header=("emotion", "pixels", "Usage")):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def pixels(value=None):
    return " ".join(map(str, RNG.integers(0, 256, 2304) if value is None else [value] * 2304))


def write_ferplus(root, rows):
    for folder in ("FER2013Train", "FER2013Valid", "FER2013Test"):
        (root / folder).mkdir(parents=True)
    with (root / "fer2013new.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Usage", "Image name", *FERPLUS])
        for usage, name, votes in rows:
            writer.writerow([usage, name, *votes])
            folder = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}[usage]
            Image.fromarray(RNG.integers(0, 256, (48, 48), dtype=np.uint8)).save(root / folder / name)
    return root


def opened(text, *drop):
    return open_source(text, seed=0, size=32, drop=frozenset(drop))


def test_fer2013_rows(tmp_path):
    path = write_fer2013(
        tmp_path / "fer2013.csv",
        [(3, pixels(), "Training"), (6, pixels(7), "PublicTest"), (0, pixels(), "PrivateTest")],
    )
    items = list(opened(f"fer2013={path}"))
    assert [i.label for i in items] == ["happy", "neutral", "angry"]
    assert [i.official_split for i in items] == ["train", "val", "test"]
    assert items[1].path == "fer2013:fer2013.csv#1"
    image = items[1].image.load(min_side=16)
    assert image.shape == (48, 48, 3)
    assert (image == 7).all()


def test_kaggles_header_with_spaces_is_understood(tmp_path):
    path = write_fer2013(tmp_path / "icml_face_data.csv", [(3, "Training", pixels())], ("emotion", " Usage", " pixels"))
    assert len(opened(f"fer2013={path}")) == 1


@pytest.mark.parametrize("text", ["", "1 2 3", " ".join(["256"] * 2304), "x y z"])
def test_damaged_pixels_are_rejected_by_name(tmp_path, text):
    path = write_fer2013(tmp_path / "f.csv", [(3, pixels(), "Training"), (3, text, "Training")])
    with pytest.raises(RejectedImage):
        list(opened(f"fer2013={path}"))[1].image.load(min_side=16)


@pytest.mark.parametrize(
    "rows, header, expected",
    [
        ([(1, 2)], ("a", "b"), "not FER2013: its columns are a, b"),
        ([(9, pixels(), "Training")], ("emotion", "pixels", "Usage"), "row 0: emotion is 9"),
        ([(1, pixels(), "Somewhere")], ("emotion", "pixels", "Usage"), "Usage is 'somewhere'"),
        ([("joy", pixels(), "Training")], ("emotion", "pixels", "Usage"), "not FER2013"),
    ],
)
def test_a_csv_that_is_not_fer2013(tmp_path, rows, header, expected):
    path = write_fer2013(tmp_path / "f.csv", rows, header)
    with pytest.raises(InputError, match=expected):
        opened(f"fer2013={path}")


def naive_ferplus(votes):
    """FER+'s rules once more, in words: drop single votes; more than half of the rest must agree."""
    named = dict(zip(FERPLUS, votes, strict=True))
    left = {name: count for name, count in named.items() if count >= 2}
    if not left:
        return None
    top = max(left.values())
    winners = [name for name, count in left.items() if count == top]
    if len(winners) > 1 or not top > sum(left.values()) / 2:
        return None
    return FERPLUS[winners[0]]


@given(st.lists(st.integers(0, 10), min_size=10, max_size=10))
def test_ferplus_rules(votes):
    label, why, soft = majority(votes)
    assert label == naive_ferplus(votes)
    assert (label is None) == bool(why) == (soft is None)
    if soft is not None:
        assert sum(soft) == pytest.approx(1)
        assert soft[LABELS.index(label)] == max(soft)


def test_ferplus_folder(tmp_path):
    root = write_ferplus(
        tmp_path / "fp",
        [
            ("Training", "fer0000000.png", [0, 9, 1, 0, 0, 0, 0, 0, 0, 0]),
            ("PublicTest", "fer0000001.png", [5, 5, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("PrivateTest", "fer0000002.png", [0, 0, 0, 0, 0, 0, 0, 8, 2, 0]),
            ("Training", "fer0000003.png", [0, 0, 0, 0, 0, 0, 0, 0, 0, 10]),
        ],
    )
    items = list(opened(f"ferplus={root}"))
    assert [(i.label, i.why) for i in items] == [
        ("happy", ""),
        (None, "no_majority"),
        (None, "contempt"),
        (None, "not_a_face"),
    ]
    assert items[0].votes == (0, 0, 0, 1, 0, 0, 0)
    (root / "FER2013Train" / "fer0000000.png").unlink()
    with pytest.raises(RejectedImage, match="missing"):
        items[0].image.load(min_side=16)


def test_a_vote_table_with_a_byte_order_mark_and_one_that_is_no_text(tmp_path):
    root = write_ferplus(tmp_path / "fp", [("Training", "a.png", [0, 9, 1, 0, 0, 0, 0, 0, 0, 0])])
    table = root / "fer2013new.csv"
    text = table.read_bytes()
    table.write_bytes(b"\xef\xbb\xbf" + text)
    assert len(opened(f"ferplus={root}")) == 1
    table.write_bytes(text + b"Training,\xff\xfe,1")
    with pytest.raises(InputError, match="no table of text"):
        opened(f"ferplus={root}")


def test_folders_of_classes_with_and_without_splits(tmp_path):
    for place in ("happiness", "sad"):
        (tmp_path / "plain" / place).mkdir(parents=True)
        (tmp_path / "split" / "Training" / place).mkdir(parents=True)
        (tmp_path / "split" / "validation" / place).mkdir(parents=True)
        for k, root in enumerate(("plain", "split/Training", "split/validation")):
            Image.fromarray(RNG.integers(0, 256, (20 + k, 20, 3), dtype=np.uint8)).save(
                tmp_path / root / place / "a.png"
            )
    plain, split = list(opened(f"folder={tmp_path / 'plain'}")), list(opened(f"folder={tmp_path / 'split'}"))
    assert [(i.label, i.official_split, i.path) for i in plain] == [
        ("happy", None, "folder:happiness/a.png"),
        ("sad", None, "folder:sad/a.png"),
    ]
    assert sorted({i.official_split for i in split}) == ["train", "val"]
    (tmp_path / "plain" / "hapy").mkdir()
    with pytest.raises(InputError, match="Did you mean 'happy'"):
        opened(f"folder={tmp_path / 'plain'}")
    shutil.rmtree(tmp_path / "plain" / "hapy")
    (tmp_path / "plain" / "train").mkdir()
    with pytest.raises(InputError, match="mixes"):
        opened(f"folder={tmp_path / 'plain'}")


@pytest.mark.parametrize(
    "text, kind, expected",
    [
        ("fer2013", UsageError, "names no place"),
        ("fer2014=x", UsageError, "Did you mean 'fer2013'"),
        ("fer2013=/nowhere.csv", InputError, "No file"),
        ("ferplus=/nowhere", InputError, "Expected a folder with fer2013new.csv"),
        ("folder=/nowhere", InputError, "one folder a class"),
        ("synthetic=many", UsageError, "takes a count"),
        ("synthetic=0", UsageError, "takes a count"),
    ],
)
def test_wrong_places_say_what_was_expected(text, kind, expected):
    with pytest.raises(kind, match=expected):
        opened(text)


def test_an_empty_folder_says_what_it_found(tmp_path):
    (tmp_path / "readme.txt").write_text("x")
    for name in ("folder", "ferplus"):
        with pytest.raises(InputError, match=r"readme\.txt"):
            opened(f"{name}={tmp_path}")


def test_every_source_states_form_and_terms():
    for name, source in SOURCES.items():
        assert source.form.startswith(f"{name}=")
        assert source.license


def test_synthetic_is_balanced_and_repeats_persons():
    items = list(opened("synthetic=70"))
    assert [i.label for i in items].count("fear") == 10
    assert len({i.subject for i in items}) == 14


def test_missing_and_other_labels_of_tables_and_folders(tmp_path):
    """None is no calm face: such rows have no label, and labels beyond the seven are dropped by name."""
    table = tmp_path / "t.csv"
    table.write_text("path,label\na.png,none\nb.png,\nc.png,NaN\nd.png,sad\n")
    assert [(i.label, i.why) for i in opened(f"csv={table}")] == [(None, "no_label")] * 3 + [("sad", "")]
    table.write_text("path,label\na.png,Contempt\nb.png,sad\n")
    with pytest.raises(InputError, match=r"line 2: .*'Contempt'.*--drop-labels 'contempt'"):
        opened(f"csv={table}")
    assert [(i.label, i.why) for i in opened(f"csv={table}", "contempt")] == [(None, "contempt"), ("sad", "")]
    for name in ("None", "contempt", "sad"):
        (tmp_path / "f" / name).mkdir(parents=True)
        Image.fromarray(RNG.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(tmp_path / "f" / name / "a.png")
    with pytest.raises(InputError, match="--drop-labels 'contempt'"):
        opened(f"folder={tmp_path / 'f'}")
    found = {i.path: (i.label, i.why) for i in opened(f"folder={tmp_path / 'f'}", "contempt")}
    assert found == {
        "folder:None/a.png": (None, "no_label"),
        "folder:contempt/a.png": (None, "contempt"),
        "folder:sad/a.png": ("sad", ""),
    }


def test_a_table_is_hashed_once(tmp_path, monkeypatch):
    from mien.data.sources import fer2013

    path, calls = write_fer2013(tmp_path / "fer2013.csv", [(3, pixels(), "Training")]), []
    whole = fer2013.sha256_file
    monkeypatch.setattr(fer2013, "sha256_file", lambda path: calls.append(path) or whole(path))
    source = opened(f"fer2013={path}")
    assert source.table_hash() == source.table_hash() == whole(path)
    assert calls == [path]
