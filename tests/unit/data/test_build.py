"""The index: duplicates, conflicts, caps, rejects, and the same bytes again."""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mien.core.artifacts import base
from mien.core.artifacts.index import SCHEMA, _flat, read_index, read_occurrences
from mien.core.config.index import IndexConfig, WorkConfig
from mien.core.errors import InputError, SplitError, UsageError
from mien.core.labels import FER2013, LABELS
from mien.stages import index as stage
from unit.data.test_sources import pixels, write_fer2013, write_ferplus

RNG = np.random.default_rng(1)


def class_folder(root, per_class=12, side=24):
    for label in LABELS:
        (root / label).mkdir(parents=True)
        for k in range(per_class):
            Image.fromarray(RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(root / label / f"{k:03}.png")
    return root


def build(out, *sources, **settings):
    return stage.run(IndexConfig(source=sources, **{"size": 24, **settings}), out)


def hashes(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


@pytest.fixture
def fer(tmp_path):
    """FER2013 rows with planted duplicates: across splits, and with conflicting labels."""
    rows = [
        (number, pixels(), usage) for usage in ("Training",) * 8 + ("PublicTest", "PrivateTest") for number in FER2013
    ]
    leak_val, leak_test, quarrel, outvoted = pixels(), pixels(), pixels(), pixels()
    rows += [
        (3, leak_val, "Training"),
        (3, leak_val, "PublicTest"),
        (4, leak_test, "Training"),
        (4, leak_test, "PrivateTest"),
        (4, leak_test, "PrivateTest"),
    ]
    rows += [(0, quarrel, "Training"), (1, quarrel, "Training")]
    rows += [(5, outvoted, "Training"), (5, outvoted, "Training"), (2, outvoted, "Training")]
    return write_fer2013(tmp_path / "fer2013.csv", rows)


def test_duplicates_go_to_the_strictest_side_and_are_counted(fer, tmp_path):
    index = build(tmp_path / "i", f"fer2013={fer}", size=48)
    audit = stage.audit(tmp_path / "i")
    assert audit["duplicates"] == {
        "identical_groups": 4,
        "pictures_in_groups": 10,
        "groups_crossing_official_splits": 2,
        "official_rows_also_in_train": {"val": 1, "test": 2},
        "groups_with_conflicting_labels": 2,
    }
    assert audit["dropped"] == {"label_conflict": 2}
    assert audit["groups_on_two_sides"] == 0
    assert len(index.table) == 73
    occurrences = read_occurrences(tmp_path / "i").to_pylist()
    assert len(occurrences) == 80
    split = dict(zip(index.image_ids.tolist(), index.splits.tolist(), strict=True))
    for row in occurrences:
        if row["path"].endswith(("#70", "#71")):
            assert split[row["image_id"]] == "val"
        if row["path"].endswith(("#72", "#73", "#74")):
            assert split[row["image_id"]] == "test"
        if row["path"].endswith(("#75", "#76")):
            assert (row["kept"], row["why"]) == (False, "label_conflict")
    outvoted = {r["image_id"] for r in occurrences if r["path"].endswith("#79")}
    label = dict(zip(index.image_ids.tolist(), index.table["label"].to_pylist(), strict=True))
    assert {label[i] for i in outvoted} == {"surprise"}


def test_packed_pixels_are_the_sources_pixels(fer, tmp_path):
    index = build(tmp_path / "i", f"fer2013={fer}", size=48)
    assert index.pixels.shape == (73, 48, 48, 1)
    assert index.crop.color == "grey"
    lines = fer.read_text().splitlines()[1:]
    for row in (0, 30, 72):
        number = int(index.table["path"][row].as_py().split("#")[1])
        expected = np.array(lines[number].split(",")[1].split(), dtype=np.uint8).reshape(48, 48)
        assert (index.pixels[row, ..., 0] == expected).all()


def test_a_relabelled_image_is_taught_by_its_new_label_and_not_by_its_votes(tmp_path):
    """Also where its votes are a mean over several rows; a row that confirms the label keeps the votes."""
    votes = [np.roll([0, 7, 3, 0, 0, 0, 0, 0, 0, 0], i % 7 - 1).tolist() for i in range(70)]
    root = write_ferplus(tmp_path / "fp", [("Training", f"fer{i:07}.png", one) for i, one in enumerate(votes)])
    names = [f"ferplus:FER2013Train/fer{i:07}.png" for i in range(70)]
    shutil.copy(root / "FER2013Train" / "fer0000000.png", root / "FER2013Train" / "fer0000001.png")
    (tmp_path / "r.csv").write_text(f"path,label\n{names[0]},sad\n{names[2]},fear\n{names[3]},sad\n{names[4]},drop\n")
    index = build(tmp_path / "a", f"ferplus={root}", size=48, relabel=tmp_path / "r.csv")
    row = {path: i for i, path in enumerate(index.table["path"].to_pylist())}
    for name, label in ((names[0], "sad"), (names[2], "fear")):
        assert index.votes[row[name]].tolist() == [float(other == label) for other in LABELS]
    for name in (names[3], names[5]):
        assert index.votes[row[name]].max() == pytest.approx(0.7)
    assert index.table["votes"].null_count == 2
    assert stage.audit(tmp_path / "a")["with_votes"] == len(index.table) - 2 == 66


def test_the_relabelling_source_decides_unless_priorities_say_otherwise(tmp_path):
    happy = [0, 9, 0, 0, 0, 0, 0, 0, 0, 0]
    rows = [("Training", f"fer{i:07}.png", np.roll(happy, i % 7 - 1).tolist()) for i in range(70)]
    rows += [("PrivateTest", "fer0000099.png", [5, 5, 0, 0, 0, 0, 0, 0, 0, 0])]
    root = write_ferplus(tmp_path / "fp", rows)
    lines = []
    for usage, name, _ in rows:
        folder = {"Training": "FER2013Train", "PrivateTest": "FER2013Test"}[usage]
        lines.append((0, " ".join(map(str, np.asarray(Image.open(root / folder / name)).ravel())), usage))
    csv = write_fer2013(tmp_path / "fer2013.csv", lines)
    both = build(tmp_path / "a", f"ferplus={root}", f"fer2013={csv}", size=48)
    assert len(both.table) == 70
    assert set(both.table["source"].to_pylist()) == {"ferplus"}
    assert both.table["votes"].null_count == 0
    assert stage.audit(tmp_path / "a")["dropped"] == {"no_majority": 2}
    swapped = build(tmp_path / "c", f"fer2013={csv}", f"ferplus={root}", size=48)
    assert swapped.table.drop_columns(["path"]).sort_by("image_id") == both.table.drop_columns(["path"]).sort_by(
        "image_id"
    )
    rescued = build(tmp_path / "d", f"fer2013={csv}", f"ferplus={root}", size=48, fallback=("fer2013",))
    added = set(rescued.image_ids.tolist()) - set(both.image_ids.tolist())
    [row] = [r for r in rescued.table.to_pylist() if r["image_id"] in added]
    assert (row["source"], row["label"], row["split"]) == ("fer2013", "angry", "test")
    other = build(
        tmp_path / "b",
        f"fer2013={csv}",
        f"ferplus={root}",
        size=48,
        calib_fraction=0.2,
        priority=("fer2013", "ferplus"),
    )
    assert set(other.table["label"].to_pylist()) == {"angry"}


def test_a_shared_image_does_not_take_a_source_its_own_test(tmp_path):
    """One folder image that is also an official test image elsewhere; the rest is carved as ever."""
    root = class_folder(tmp_path / "f", 30, side=48)
    grey = np.asarray(Image.open(root / "happy" / "000.png"))[..., :1]
    Image.fromarray(np.repeat(grey, 3, axis=2)).save(root / "happy" / "000.png")
    rows = [
        (number, pixels(), usage) for usage in ("Training",) * 8 + ("PublicTest", "PrivateTest") for number in FER2013
    ]
    csv = write_fer2013(tmp_path / "fer2013.csv", [*rows, (3, " ".join(map(str, grey.ravel())), "PrivateTest")])
    build(tmp_path / "i", f"folder={root}", f"fer2013={csv}")
    sides = stage.audit(tmp_path / "i")["by_source"]
    assert sides["folder"]["test"] > 25
    assert (sides["fer2013"]["val"], sides["fer2013"]["test"]) == (7, 7)


def test_nothing_but_rejects_is_said_and_not_a_crash(tmp_path):
    (tmp_path / "f" / "sad").mkdir(parents=True)
    (tmp_path / "f" / "sad" / "x.png").write_bytes(b"junk")
    with pytest.raises(InputError, match="1 of 1 images were rejected"):
        build(tmp_path / "i", f"folder={tmp_path / 'f'}")


def test_only_train_is_capped(tmp_path):
    root = class_folder(tmp_path / "f", 30)
    free, capped = build(tmp_path / "a", f"folder={root}"), build(tmp_path / "b", f"folder={root}", max_train=70)
    for split in ("val", "calib", "test"):
        assert (free.image_ids[free.rows(split)] == capped.image_ids[capped.rows(split)]).all()
    labels = capped.labels[capped.rows("train")]
    assert np.bincount(labels).tolist() == [10] * 7
    assert stage.audit(tmp_path / "b")["dropped"] == {"cap": len(free.rows("train")) - 70}


def test_the_same_again_wherever_it_lies(tmp_path):
    root = class_folder(tmp_path / "f")
    build(tmp_path / "a", f"folder={root}")
    shutil.move(root, tmp_path / "elsewhere")
    build(tmp_path / "b", f"folder={tmp_path / 'elsewhere'}")
    first, second = hashes(tmp_path / "a"), hashes(tmp_path / "b")
    assert {k: v for k, v in first.items() if k != "provenance.json" and k != "manifest.json"} == {
        k: v for k, v in second.items() if k != "provenance.json" and k != "manifest.json"
    }
    assert read_index(tmp_path / "a").fingerprint == read_index(tmp_path / "b").fingerprint
    again = build(tmp_path / "b", f"folder={tmp_path / 'elsewhere'}")
    assert again.fingerprint == read_index(tmp_path / "a").fingerprint


def test_a_truncated_image_is_listed_and_not_fatal(tmp_path):
    root = class_folder(tmp_path / "f")
    bad = root / "sad" / "zz.png"
    bad.write_bytes((root / "sad" / "000.png").read_bytes()[:200])
    (root / "sad" / "empty.png").write_bytes(b"")
    build(tmp_path / "i", f"folder={root}")
    assert stage.audit(tmp_path / "i")["rejected"] == {"empty": 1, "truncated": 1}
    listed = (tmp_path / "i" / "rejected.csv").read_text()
    assert "folder:sad/zz.png" in listed
    assert "truncated" in listed


def test_too_many_rejects_stop_the_build_and_leave_what_was_read(tmp_path):
    root = class_folder(tmp_path / "f", 3)
    for k in range(5):
        (root / "sad" / f"bad{k}.png").write_bytes(b"junk")
    with pytest.raises(InputError, match="5 of 26 images were rejected"):
        build(tmp_path / "i", f"folder={root}")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".i.building", "f"]
    assert sorted(p.name for p in (tmp_path / ".i.building").iterdir()) == ["pieces", "started.json"]
    build(tmp_path / "i", f"folder={root}", max_rejected=0.5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f", "i"]


def test_another_folder_is_not_overwritten(tmp_path):
    root = class_folder(tmp_path / "f")
    build(tmp_path / "i", f"folder={root}")
    with pytest.raises(UsageError, match="holds something else"):
        build(tmp_path / "i", f"folder={root}", seed=3)
    assert read_index(tmp_path / "i")


@pytest.mark.slow
def test_several_processes_give_the_same_bytes(tmp_path, monkeypatch):
    from mien.data.loading import collect

    root = class_folder(tmp_path / "f")
    monkeypatch.setattr(collect, "CHUNK", 10)
    config = IndexConfig(source=(f"folder={root}",), size=24)
    for workers in (1, 2, 3):
        stage.run(config, tmp_path / str(workers), work=WorkConfig(workers=workers))
    first, *others = (hashes(tmp_path / str(workers)) for workers in (1, 2, 3))
    assert all(first == other for other in others)


def test_csv_twin_has_a_row_an_image(small_index):
    lines = (small_index / "index.csv").read_text().splitlines()
    assert len(lines) == 1 + pq.read_metadata(small_index / "index.parquet").num_rows
    assert {"image_id", "label", "split"} <= set(lines[0].replace('"', "").split(","))


def test_no_person_on_two_sides(small_index):
    audit = stage.audit(small_index)
    assert audit["subjects_on_two_sides"] == 0
    assert sum(audit["totals"][s] for s in ("train", "val", "calib", "test")) == 560


def test_two_sources_of_one_kind_have_names_of_their_own(tmp_path):
    one, two = class_folder(tmp_path / "one"), class_folder(tmp_path / "two")
    with pytest.raises(UsageError, match="Two sources are called 'folder'"):
        build(tmp_path / "i", f"folder={one}", f"folder={two}")
    for wrong in ("folder@a b", "folder@", "folder@csv"):
        with pytest.raises(UsageError):
            build(tmp_path / "i", f"{wrong}={one}", f"folder@={two}")
    index = build(tmp_path / "i", f"folder@one={one}", f"folder@two={two}", priority=("two",), keep=("two:side>=20",))
    assert set(index.table["source"].to_pylist()) == {"one", "two"}
    assert {p.split(":")[0] for p in index.table["path"].to_pylist()} == {"one", "two"}
    assert len(set(index.table["path"].to_pylist())) == len(index.table) == 168
    assert set(stage.audit(tmp_path / "i")["by_source"]) == {"one", "two"}
    again = build(tmp_path / "i", f"folder@one={one}", f"folder@two={two}", priority=("two",), keep=("two:side>=20",))
    assert again.fingerprint == index.fingerprint


def test_file_names_in_any_bytes(tmp_path):
    import os

    root = class_folder(tmp_path / "f")
    data = (root / "sad" / "000.png").read_bytes()
    (root / "sad" / "Ü und 寒.PNG").write_bytes(class_bytes())
    try:
        Path(os.fsdecode(os.fsencode(root / "sad") + b"/latin-\xe9.png")).write_bytes(data)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    index = build(tmp_path / "i", f"folder={root}")
    assert "folder:sad/Ü und 寒.PNG" in index.table["path"].to_pylist()
    paths = [r["path"] for r in read_occurrences(tmp_path / "i").to_pylist()]
    assert "folder:sad/latin-\\xe9.png" in paths
    assert build(tmp_path / "i", f"folder={root}").fingerprint == index.fingerprint


def class_bytes():
    out = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def test_files_that_are_no_known_images_are_read_and_listed(tmp_path):
    root = class_folder(tmp_path / "f", 30)
    for k in range(20):
        (root / "happy" / f"{k:03}.png").rename(root / "happy" / f"{k:03}.jfif")
    (root / "happy" / "scan.heic").write_bytes(b"no image that we know")
    (root / "happy" / "notes.txt").write_text("not an image")
    build(tmp_path / "i", f"folder={root}")
    audit = stage.audit(tmp_path / "i")
    assert audit["source_rows"] == {"folder": 211}
    assert audit["rejected"] == {"unknown_format": 1}


def test_nothing_left_says_why(tmp_path):
    for label in LABELS:
        (tmp_path / "f" / label).mkdir(parents=True)
        Image.fromarray(np.full((30, 30), 7, np.uint8)).save(tmp_path / "f" / label / "x.png")
    with pytest.raises(
        InputError, match=r"No image with a label is left of 7: label_conflict 1; the first is folder:angry/x\.png"
    ):
        build(tmp_path / "i", f"folder={tmp_path / 'f'}")


def test_an_empty_table_is_no_source(tmp_path):
    (tmp_path / "f.csv").write_text("emotion,pixels,Usage\n")
    with pytest.raises(InputError, match=r"has no rows|is not FER2013"):
        build(tmp_path / "i", "synthetic=210", f"fer2013={tmp_path / 'f.csv'}")


def photographs(root, count=30):
    """A table of labelled images, all test, that show five of the classes."""
    root.mkdir()
    lines = ["path,label,split"]
    for k in range(count):
        (root / f"{k}.png").write_bytes(class_bytes())
        lines.append(f"{k}.png,{('happy', 'sad', 'angry', 'neutral', 'surprise')[k % 5]},test")
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    return root / "table.csv"


def test_a_table_of_test_images_with_five_classes(tmp_path):
    from mien.data.audit.text import audit_text

    index = build(tmp_path / "i", f"csv={photographs(tmp_path / 'own')}")
    assert index.rows("test").tolist() == list(range(30))
    assert np.bincount(index.labels, minlength=7).tolist() == [6, 0, 0, 6, 6, 6, 6]
    audit = stage.audit(tmp_path / "i")
    assert audit["absent"] == {"splits": ["train", "val", "calib"], "classes": {"test": ["disgust", "fear"]}}
    assert "absent         splits train, val, calib; in test disgust, fear" in audit_text(audit)
    for name in ("train", "val", "calib"):
        with pytest.raises(
            SplitError, match=f"has no {name} rows.*holds test 30.*--{'test' if name == 'train' else name}"
        ):
            index.rows(name)
    stage.figures(tmp_path / "i", tmp_path / "figures")
    whole = build(tmp_path / "f", f"folder={class_folder(tmp_path / 'classes', 4)}", test_fraction=1.0)
    assert set(whole.splits.tolist()) == {"test"}


def test_other_labels_are_counted_by_name(tmp_path):
    root = class_folder(tmp_path / "f", 4)
    (root / "contempt").mkdir()
    for k in range(3):
        (root / "contempt" / f"{k}.png").write_bytes(class_bytes())
    with pytest.raises(InputError, match="--drop-labels 'contempt'"):
        build(tmp_path / "i", f"folder={root}")
    index = build(tmp_path / "i", f"folder={root}", drop_labels=("Contempt",))
    assert len(index.table) == 28
    assert stage.audit(tmp_path / "i")["dropped"] == {"contempt": 3}


def test_a_late_error_keeps_what_was_read(tmp_path, monkeypatch):
    """Other settings of later steps read no image again; another size does."""
    from mien.data.loading import collect

    root, read = class_folder(tmp_path / "f"), []
    load = collect.load
    monkeypatch.setattr(collect, "load", lambda task: read.append(len(task.items)) or load(task))
    with pytest.raises(UsageError, match="no row has the attribute"):
        build(tmp_path / "i", f"folder={root}", keep=("age>=3",))
    assert read == [84]
    with pytest.raises(InputError, match="No image with a label is left"):
        build(tmp_path / "i", f"folder={root}", keep=("side>=999",), seed=5)
    index = build(tmp_path / "i", f"folder={root}", test_fraction=0.3)
    assert read == [84]
    assert not (tmp_path / ".i.building").exists()
    fresh = build(tmp_path / "fresh", f"folder={root}", test_fraction=0.3)
    assert read == [84, 84]
    assert fresh.content_hash == index.content_hash
    with pytest.raises(UsageError, match="no row has the attribute"):
        build(tmp_path / "j", f"folder={root}", keep=("age>=3",))
    build(tmp_path / "j", f"folder={root}", size=32)
    assert read == [84] * 4


def test_a_build_reads_its_packed_pixels_from_no_file(tmp_path, monkeypatch):
    """They are hashed while they are written; a reader verifies them against that hash."""
    hashed, whole = [], base.sha256_file
    monkeypatch.setattr(base, "sha256_file", lambda path: hashed.append(Path(path).name) or whole(path))
    index = stage.run(
        IndexConfig(source=(f"folder={class_folder(tmp_path / 'f')}",), size=24),
        tmp_path / "i",
        work=WorkConfig(shard_mib=1),
    )
    assert "index.csv" in hashed
    assert not [name for name in hashed if name.endswith(".npy")]
    stage.audit(tmp_path / "i", verify=False)
    assert not [name for name in hashed if name.endswith(".npy")]
    index.check()
    assert hashed[-1] == "00000.npy"
    for name, entry in index.manifest["files"].items():
        assert entry["sha256"] == hashlib.sha256((tmp_path / "i" / name).read_bytes()).hexdigest()


def test_lists_and_maps_as_text():
    values = [
        {"votes": [0.0, 0.123456, 1.0], "attributes": [("age", "20-39"), ("who", "a;b")]},
        {"votes": None, "attributes": None},
        {"votes": [], "attributes": []},
        {"votes": [1e-5, 1 / 3, 123456.0], "attributes": [("x", "")]},
    ]
    fields = [SCHEMA.field("votes"), SCHEMA.field("attributes")]
    table = pa.Table.from_pylist(values, pa.schema(fields))
    expected = [
        {
            "votes": " ".join(f"{np.float32(v):.4g}" for v in row["votes"]) if row["votes"] else None,
            "attributes": "; ".join(f"{k}={v}" for k, v in row["attributes"]) if row["attributes"] else None,
        }
        for row in values
    ]
    assert _flat(table).to_pylist() == expected
    assert _flat(table.slice(1)).to_pylist() == expected[1:]
    assert _flat(table.schema.empty_table()).to_pylist() == []


def test_an_index_like_a_run_or_a_model_file(tmp_path, monkeypatch):
    from mien.core.geometry import CropSpec
    from mien.runtime import recognizer

    crop = CropSpec(size=32, color="grey", scale=1.2, shift_y=0.1)
    run = tmp_path / "run"
    run.mkdir()
    (run / "best.safetensors").write_bytes(b"weights")
    base.write_json(run / "config.json", {"crop": crop.model_dump()})
    base.write_manifest(run, kind="run", version=2, fingerprint="", files=["best.safetensors", "config.json"])
    monkeypatch.setattr(recognizer, "open_session", lambda path, threads: (None, SimpleNamespace(crop=crop)))
    source = (f"csv={photographs(tmp_path / 'own')}",)
    for number, model in enumerate((run, tmp_path / "model.onnx")):
        index = stage.run(stage.like(IndexConfig(source=source), model), tmp_path / str(number))
        assert index.crop == crop
        assert index.pixels.shape == (30, 32, 32, 1)
    assert stage.like(IndexConfig(source=source, align="face"), run).align == "face"
    for wrong in ({"size": 48}, {"color": "rgb"}, {"align": "eyes"}):
        with pytest.raises(UsageError, match=f"--{next(iter(wrong))} is .*--like takes size, crop and colour"):
            stage.like(IndexConfig(source=source, **wrong), run)
    eyes = crop.model_copy(update={"align": "eyes"})
    monkeypatch.setattr(recognizer, "open_session", lambda path, threads: (None, SimpleNamespace(crop=eyes)))
    assert stage.like(IndexConfig(source=source), tmp_path / "model.onnx").align == "eyes"
