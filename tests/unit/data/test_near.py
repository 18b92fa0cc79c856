"""Near-duplicates: planted variants of smooth images are found, other images are not; splits hold them together."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest
from PIL import Image

from mien.core.artifacts.index import read_index, read_occurrences
from mien.core.config.index import IndexConfig, WorkConfig
from mien.core.labels import LABELS
from mien.data.duplicates.copies import copies
from mien.data.duplicates.near import components
from mien.data.duplicates.phash import View
from mien.data.duplicates.verify import quick_scores, registered_score
from mien.stages import evaluate_on
from mien.stages import index as stage


def scene(seed, side=64):
    """An image with structure at several scales, no two alike."""
    rng = np.random.default_rng(seed)
    out = sum(
        cv2.resize(rng.normal(size=(k, k, 3)), (side, side), interpolation=cv2.INTER_CUBIC) / k**0.3
        for k in (3, 6, 12, 24)
    )
    out = (out - out.min()) / (out.max() - out.min())
    return (255 * out).astype(np.uint8)


VARIANTS = {
    "flip": lambda x: np.ascontiguousarray(x[:, ::-1]),
    "crop": lambda x: cv2.resize(x[3:62, 4:63], (64, 64), interpolation=cv2.INTER_CUBIC),
    "jpeg": lambda x: cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR),
    "bright": lambda x: np.clip(x * 0.8 + 20, 0, 255).astype(np.uint8),
    "large": lambda x: cv2.resize(x, (200, 200), interpolation=cv2.INTER_CUBIC),
    "flipped crop": lambda x: np.ascontiguousarray(cv2.resize(x[0:61, 2:63], (64, 64))[:, ::-1]),
}


def write(root, label, name, image):
    (root / label).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / label / f"{name}.png")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """140 images, 12 of which have a variant of every kind, under any class."""
    root = tmp_path_factory.mktemp("planted") / "f"
    for k in range(140):
        write(root, LABELS[k % 7], f"a{k:03}", scene(k))
    for k in range(12):
        for i, (kind, make) in enumerate(VARIANTS.items()):
            write(root, LABELS[(k + i) % 7], f"v{k:03}_{kind.replace(' ', '-')}", make(scene(k)))
    return root


def built(out, *sources, **settings):
    return stage.run(IndexConfig(source=sources, **{"size": 48, **settings}), out, work=WorkConfig(workers=1))


def test_planted_variants_share_a_group_and_nothing_else_does(planted, tmp_path):
    index = built(tmp_path / "i", f"folder={planted}")
    groups = {}
    for path, group in zip(index.table["path"].to_pylist(), index.table["group_id"].to_pylist(), strict=True):
        groups.setdefault(group, set()).add(path.split("/")[1][1:4])
    assert all(len(names) == 1 for names in groups.values())  # no two scenes in one group
    assert len(groups) == 140
    audit = stage.audit(tmp_path / "i")
    assert (audit["near_duplicates"]["clusters"], audit["near_duplicates"]["pictures"]) == (12, 12 * 7)
    assert audit["groups_on_two_sides"] == 0
    assert audit["near_duplicates"]["groups_with_conflicting_labels"] == 12


def test_every_member_of_a_group_is_listed_with_its_score(planted, tmp_path):
    built(tmp_path / "i", f"folder={planted}")
    with (tmp_path / "i" / "duplicates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 * 7
    assert {row["kind"] for row in rows} == {"near"}
    assert all(0.6 <= float(row["score"]) <= 1 for row in rows)
    together = [row["group_id"] for row in rows]
    assert together == [g for g in dict.fromkeys(together) for _ in range(7)]  # group by group


def test_switched_off_and_whole_images_only(planted, tmp_path):
    assert (
        len(set(built(tmp_path / "off", f"folder={planted}", near_duplicates="off").table["group_id"].to_pylist()))
        == 212
    )
    plain = stage.audit(built(tmp_path / "plain", f"folder={planted}", near_duplicates="plain").folder)
    assert plain["near_duplicates"]["clusters"] >= 12
    assert plain["near_duplicates"]["pictures"] < 12 * 7


@pytest.mark.slow
def test_a_source_that_is_added_moves_no_row_but_those_of_its_duplicates(planted, tmp_path):
    first = tmp_path / "first"
    for k in range(210):
        write(first, LABELS[k % 7], f"b{k:03}", scene(1000 + k))
    second = tmp_path / "second"
    for split, many in (("train", 42), ("val", 14), ("test", 14)):
        for k in range(many):
            write(
                second / split,
                LABELS[k % 7],
                f"c{k:03}",
                scene({"train": 5000, "val": 6000, "test": 7000}[split] + k),
            )
    for k in range(20):  # the second source's test shows small crops of the first one's images
        write(second / "test", LABELS[k % 7], f"d{k:03}", VARIANTS["crop"](scene(1000 + k)))
    alone = built(tmp_path / "a", f"folder@a={first}")
    both = built(tmp_path / "ab", f"folder@a={first}", f"folder@b={second}", leaks="move")
    swapped = built(tmp_path / "ba", f"folder@b={second}", f"folder@a={first}", leaks="move")
    before = dict(zip(alone.image_ids.tolist(), alone.splits.tolist(), strict=True))
    after = dict(zip(both.image_ids.tolist(), both.splits.tolist(), strict=True))
    changed = {i for i, side in before.items() if after[i] != side}
    with (both.folder / "moved.csv").open() as file:
        moved = {row["image_id"]: row for row in csv.DictReader(file)}
    assert changed == set(moved)
    assert 0 < len(changed) <= 20
    for i, row in moved.items():
        assert (row["from_split"], row["to_split"]) == (before[i], "test")
        assert row["because"].split("/")[-1][0] == "d"
    assert dict(zip(swapped.image_ids.tolist(), swapped.splits.tolist(), strict=True)) == after
    dropped = built(tmp_path / "drop", f"folder@a={first}", f"folder@b={second}", leaks="drop")
    assert set(before) - set(dropped.image_ids.tolist()) == changed
    assert stage.audit(dropped.folder)["dropped"] == {"leak": len(changed)}
    assert {r["image_id"] for r in read_occurrences(dropped.folder).to_pylist() if r["why"] == "leak"} == changed


def test_an_official_train_image_near_a_test_image_is_moved_and_listed(tmp_path):
    for split, many in (("train", 70), ("val", 14), ("test", 14)):
        for k in range(many):
            write(
                tmp_path / "f" / split,
                LABELS[k % 7],
                f"{k:03}",
                scene({"train": 0, "val": 300, "test": 400}[split] + k),
            )
    write(tmp_path / "f" / "train", "happy", "leak", VARIANTS["flip"](scene(401)))
    kept = built(tmp_path / "kept", f"folder={tmp_path / 'f'}")
    official = [r["path"] for r in kept.table.to_pylist() if r["split"] == "test"]
    assert len(official) == 14  # by default an official test stays as published
    assert all("/test/" in path or path.startswith("folder:test") for path in official)
    assert stage.audit(kept.folder)["dropped"] == {"leak": 1}
    index = built(tmp_path / "i", f"folder={tmp_path / 'f'}", leaks="move")
    [row] = [r for r in index.table.to_pylist() if r["path"].endswith("leak.png")]
    assert row["split"] == "test"
    text = (tmp_path / "i" / "moved.csv").read_text()
    assert "train/happy/leak.png" in text
    assert "test/disgust/001.png" in text
    assert stage.audit(tmp_path / "i")["near_duplicates"]["official_rows_also_in_train"] == {"val": 0, "test": 1}


def test_scores_tell_a_registered_copy_from_another_image():
    grey = [cv2.cvtColor(scene(k, 48), cv2.COLOR_RGB2GRAY) for k in range(2)]
    moved = cv2.resize(grey[0][2:46, 3:47], (48, 48), interpolation=cv2.INTER_CUBIC)
    view = View(0.1, 2 / 3, 2 / 3, False)
    assert registered_score(grey[0], moved, view) > 0.8
    assert registered_score(grey[1], moved, view) < 0.5
    assert registered_score(grey[0][:, ::-1], moved, View(0.1, 2 / 3, 1 / 3, True)) > 0.8
    coarse, fine = quick_scores(grey[0][None], grey[0][None], View(0, 0, 0, False))
    assert coarse[0] == pytest.approx(1, abs=1e-4)
    assert fine[0] == pytest.approx(1, abs=1e-4)
    constant = np.zeros((1, 48, 48), np.uint8)
    assert quick_scores(constant, constant, view)[1][0] == 0  # nothing agrees with nothing
    assert registered_score(constant[0], constant[0], view) < 0.6


def test_components_against_a_naive_union():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 200, 120), rng.integers(0, 200, 120)
    label = np.arange(200)
    for _ in range(200):
        for x, y in zip(a, b, strict=True):
            label[x] = label[y] = min(label[x], label[y])
    assert (components(200, a, b) == label).all()


def test_persons_and_clusters_join(tmp_path):
    """A person's images in a table, one of which is a near-duplicate of another person's: all on one side."""
    lines = ["path,label,subject,age"]
    (tmp_path / "p").mkdir()
    for k in range(210):
        Image.fromarray(scene(2000 + k)).save(tmp_path / "p" / f"{k}.png")
        lines.append(f"p/{k}.png,{LABELS[k % 7]},s{k // 3},{20 + k % 5}")
    Image.fromarray(VARIANTS["crop"](scene(2000))).save(tmp_path / "p" / "x.png")
    lines.append("p/x.png,happy,s69,")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    index = built(tmp_path / "i", f"csv={tmp_path / 't.csv'}")
    rows = index.table.to_pylist()
    sides = {}
    for row in rows:
        sides.setdefault(row["subject_id"], set()).add(row["split"])
    assert all(len(s) == 1 for s in sides.values())
    assert sides["s0"] == sides["s69"]
    assert dict(rows[0]["attributes"]) == {"age": "20"}
    assert read_index(tmp_path / "i").table["attributes"].null_count == 1
    audit = stage.audit(tmp_path / "i")
    assert audit["by_attribute"]["age"]["rows"] == 210
    assert audit["subjects_on_two_sides"] == 0


def test_a_crowd_is_joined_without_all_its_pairs(tmp_path, monkeypatch):
    """Two hundred frames of one scene: one cluster, though no query keeps more than a few of its matches."""
    from mien.data.duplicates import candidates

    monkeypatch.setattr(candidates, "MOST", 3)
    for k in range(200):
        noisy = np.clip(scene(1).astype(int) + np.random.default_rng(k).integers(-6, 7, (64, 64, 3)), 0, 255)
        write(tmp_path / "f", "happy", f"frame{k:03}", noisy.astype(np.uint8))
    for k in range(140):
        write(tmp_path / "f", LABELS[k % 7], f"a{k:03}", scene(10 + k))
    audit = stage.audit(built(tmp_path / "i", f"folder={tmp_path / 'f'}").folder)
    assert (audit["near_duplicates"]["clusters"], audit["near_duplicates"]["largest"]) == (1, 200)
    assert audit["near_duplicates"]["pairs"] < 200 * 3 * 52


def test_images_that_show_nothing_are_no_duplicates_of_each_other_but_suspicious(tmp_path):
    for k in range(140):
        write(tmp_path / "f", LABELS[k % 7], f"a{k:03}", scene(k))
    for k in range(9):
        write(tmp_path / "f", "sad", f"blank{k}", np.full((40 + k, 40, 3), 20 * k, np.uint8))
    index = built(tmp_path / "i", f"folder={tmp_path / 'f'}")
    audit = stage.audit(index.folder)
    assert audit["near_duplicates"]["clusters"] == 0
    assert audit["suspicious"][0]["what"] == "images that show nothing"
    assert audit["suspicious"][0]["count"] == 9


def test_another_build_in_the_same_place_and_process_searches_its_own_hashes(planted, tmp_path):
    for k in range(140):
        write(tmp_path / "f", LABELS[k % 7], f"a{k:03}", scene(3000 + k))
    built(tmp_path / "i", f"folder={tmp_path / 'f'}")
    import shutil

    shutil.rmtree(tmp_path / "i")
    audit = stage.audit(built(tmp_path / "i", f"folder={planted}").folder)
    assert audit["near_duplicates"]["clusters"] == 12


@pytest.mark.slow
def test_a_sources_own_clusters_do_not_depend_on_other_sources(tmp_path):
    """Copies that only a registration finds, while another source joins both to a third image at once."""

    def turned(image, degrees):
        turn = cv2.getRotationMatrix2D((31.5, 31.5), degrees, 1)
        return cv2.warpAffine(image, turn, (64, 64), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)

    for k in range(210):
        write(tmp_path / "a", LABELS[k % 7], f"a{k:03}", scene(9000 + k))
        write(tmp_path / "a", LABELS[k % 7], f"t{k:03}", turned(scene(9000 + k), 3))
        write(tmp_path / "b", LABELS[k % 7], f"b{k:03}", turned(scene(9000 + k), 1.5))
    alone = built(tmp_path / "one", f"folder@a={tmp_path / 'a'}")
    both = built(tmp_path / "two", f"folder@a={tmp_path / 'a'}", f"folder@b={tmp_path / 'b'}")
    assert stage.audit(alone.folder)["near_duplicates"]["clusters"] > 150
    rank = {"train": 0, "calib": 1, "val": 2, "test": 3}
    after = dict(zip(both.image_ids.tolist(), both.splits.tolist(), strict=True))
    changed = {}
    for image, side in zip(alone.image_ids.tolist(), alone.splits.tolist(), strict=True):
        assert rank[after[image]] >= rank[side]
        if after[image] != side:
            changed[image] = (side, after[image])
    with (both.folder / "moved.csv").open() as file:
        listed = {
            r["image_id"]: (r["from_split"], r["to_split"]) for r in csv.DictReader(file) if r["path"].startswith("a:")
        }
    assert listed == changed


@pytest.mark.slow
def test_rows_of_an_earlier_source_that_move_because_another_one_decides_are_listed(tmp_path):
    """The same images in two folders, one with its own splits: what the other one's splits change is in moved.csv."""
    for k in range(280):
        write(tmp_path / "free", LABELS[k % 7], f"{k:03}", scene(k))
        side = ("train", "train", "train", "train", "train", "val", "test")[k // 7 % 7]
        write(tmp_path / "stated" / side, LABELS[k % 7], f"{k:03}", scene(k))
    alone = built(tmp_path / "one", f"folder@free={tmp_path / 'free'}")
    for order in (("free", "stated"), ("stated", "free")):
        both = built(tmp_path / f"{order[0]}-first", *(f"folder@{name}={tmp_path / name}" for name in order))
        after = dict(zip(both.image_ids.tolist(), both.splits.tolist(), strict=True))
        changed = {
            i for i, side in zip(alone.image_ids.tolist(), alone.splits.tolist(), strict=True) if after[i] != side
        }
        with (both.folder / "moved.csv").open() as file:
            listed = {r["image_id"] for r in csv.DictReader(file) if r["path"].startswith("free:")}
        assert listed == changed
        assert len(changed) > 20


def test_copies_between_two_sets_are_found_whatever_was_done_to_them():
    """Planted variants of one set's images among another's; images that show nothing are no copies."""
    blank = np.full((64, 64, 3), 90, np.uint8)
    seen = np.stack([*(scene(k) for k in range(60)), blank])
    kinds = [make for name, make in VARIANTS.items() if name != "large"]
    asked = np.stack([*(make(scene(k)) for k, make in enumerate(kinds)), *(scene(200 + k) for k in range(30)), blank])
    found = copies(asked, np.arange(len(asked)), seen, np.arange(len(seen)))
    assert found.tolist() == [True] * len(kinds) + [False] * 31
    back = copies(seen, np.arange(len(seen)), asked, np.arange(len(asked)))  # a crop of what is asked, the other way
    assert back.tolist() == [True] * len(kinds) + [False] * (61 - len(kinds))
    assert not copies(asked, np.arange(0), seen, np.arange(5)).any()
    assert not copies(asked, np.arange(5), seen, np.arange(0)).any()


@pytest.mark.slow
def test_what_another_index_has_seen_is_left_out_of_its_test(tmp_path):
    """Mirror images of rows that the other index decided on go; those of its test, new images, drawn faces stay."""
    for k in range(140):
        write(tmp_path / "one", LABELS[k % 7], f"a{k:03}", scene(k))
        write(tmp_path / "two", LABELS[k % 7], f"b{k:03}", np.ascontiguousarray(scene(k)[:, ::-1]))
        write(tmp_path / "two", LABELS[k % 7], f"c{k:03}", scene(1000 + k))
    one, two = built(tmp_path / "i", f"folder={tmp_path / 'one'}"), built(tmp_path / "j", f"folder={tmp_path / 'two'}")
    split = {path[-7:-4]: s for path, s in zip(one.table["path"].to_pylist(), one.splits.tolist(), strict=True)}
    rows, left = evaluate_on._unseen(one.folder, two.folder)
    names = [two.table["path"].to_pylist()[r][-8:-4] for r in two.rows("test").tolist()]
    gone = {n for n in names if n[0] == "b" and split[n[1:]] != "test"}
    assert len(gone) > 5
    assert left == {"same": 0, "near": len(gone)}
    assert {two.table["path"].to_pylist()[r][-8:-4] for r in rows.tolist()} == set(names) - gone
    drawn = [built(tmp_path / f"d{s}", f"synthetic@drawn={140 + s}", seed=s) for s in (0, 7)]
    assert all(i.drawn.all() for i in drawn)
    assert not one.drawn.any()
    assert len(evaluate_on._unseen(drawn[0].folder, drawn[1].folder)[0]) == len(drawn[1].rows("test"))
