"""Filters, relabelling files and caps: applied, counted, and refused with a reason."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from helpers import layouts
from mien.core.artifacts.index import read_occurrences
from mien.core.config.index import IndexConfig, WorkConfig
from mien.core.errors import InputError, UsageError
from mien.core.labels import LABELS
from mien.data.curate import parse_filter
from mien.stages import index as stage


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curate")
    rng = np.random.default_rng(0)
    lines = ["path,label,agreement,place"]
    for k in range(210):
        side = 30 if k % 2 == 0 else 40
        Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8)).save(folder / f"{k}.png")
        lines.append(f"{k}.png,{LABELS[k % 7]},{k / 210:.3f},{'in' if k % 3 else 'out'}")
    (folder / "t.csv").write_text("\n".join(lines))
    return folder


def built(out, root, **settings):
    config = IndexConfig(source=(f"csv={root / 't.csv'}",), near_duplicates="off", **settings)
    return stage.run(config, out, work=WorkConfig(workers=1))


@pytest.mark.parametrize(
    "rule, expected",
    [
        ("side>=35", lambda k: k % 2 != 0),
        ("csv:agreement>0.5", lambda k: round(k / 210, 3) > 0.5),
        ("place = in", lambda k: k % 3),
        ("label!=fear", lambda k: LABELS[k % 7] != "fear"),
        ("width<40", lambda k: k % 2 == 0),
    ],
)
def test_filters(tmp_path, root, rule, expected):
    index = built(tmp_path / "i", root, keep=(rule,))
    numbers = {int(p.split(":")[1].removesuffix(".png")) for p in index.table["path"].to_pylist()}
    assert numbers == {k for k in range(210) if expected(k)}
    assert stage.audit(tmp_path / "i")["dropped"] == {"filter": 210 - len(numbers)}


def test_filters_go_together(tmp_path, root):
    index = built(tmp_path / "i", root, keep=("side>35", "place=in"))
    assert len(index.table) == sum(k % 2 != 0 and k % 3 != 0 for k in range(210))


@pytest.mark.parametrize(
    "rule, expected",
    [
        ("side", "no condition"),
        ("agrement>1", "Did you mean 'agreement'"),
        ("side>big", "no number"),
        ("label>fear", "orders labels"),
        ("place>3", "no number"),
        ("fer:side>3", "no source of this index"),
        ("label=joyous", "Did you mean 'joy"),
    ],
)
def test_filters_that_cannot_be(tmp_path, root, rule, expected):
    with pytest.raises((UsageError, InputError), match=expected):
        built(tmp_path / "i", root, keep=(rule,))
    assert not (tmp_path / "i").exists()  # what was read is kept beside it, for the next attempt


def test_relabelling_is_applied_and_recorded(tmp_path, root):
    free = built(tmp_path / "a", root)
    (tmp_path / "r.csv").write_text("path,label\ncsv:3.png,fear\ncsv:4.png,drop\ncsv:5.png,sad\n")
    index = built(tmp_path / "b", root, relabel=tmp_path / "r.csv")
    labels = dict(zip(index.table["path"].to_pylist(), index.table["label"].to_pylist(), strict=True))
    assert labels["csv:3.png"] == "fear"
    assert "csv:4.png" not in labels
    known = json.loads((tmp_path / "b" / "provenance.json").read_text())["relabelled"]
    assert [(c["from"], c["to"]) for c in known] == [("happy", "fear"), ("neutral", "drop")]  # 5 is sad already
    audit = stage.audit(tmp_path / "b")
    assert (audit["relabelled"], audit["dropped"]) == (2, {"relabel_drop": 1})
    diff = stage.diff(tmp_path / "a", tmp_path / "b")
    assert diff["label_changed"]["changes"] == {"happy -> fear": 1}
    assert (diff["removed"]["count"], diff["added"]["count"], diff["split_changed"]["count"]) == (1, 0, 0)
    assert free.fingerprint != index.fingerprint
    by_id = tmp_path / "id.csv"
    ids = dict(zip(free.table["path"].to_pylist(), free.image_ids.tolist(), strict=True))
    by_id.write_text(f"image_id,label\n{ids['csv:3.png']},fear\n{ids['csv:4.png']},drop\n")
    again = built(tmp_path / "c", root, relabel=by_id)
    assert again.table == index.table


@pytest.mark.parametrize(
    "text, expected",
    [
        ("name,label\nx,sad\n", "has the columns"),
        ("path,label\ncsv:999.png,sad\n", "does not have"),
        ("path,label\n", "no rows"),
        ("path,label\ncsv:1.png,sad\ncsv:1.png,fear\n", "twice"),
        ("path,label\ncsv:1.png,sadd\n", "Did you mean 'sad'"),
    ],
)
def test_relabelling_files_that_cannot_be(tmp_path, root, text, expected):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(InputError, match=expected):
        built(tmp_path / "i", root, relabel=tmp_path / "r.csv")
    assert not (tmp_path / "i").exists()


def test_caps(tmp_path, root):
    index = built(tmp_path / "i", root, max_per_class=9)
    assert np.bincount(index.labels[index.rows("train")]).max() == 9
    other = built(tmp_path / "j", root, max_per_source=("csv=70",))
    assert np.bincount(other.labels[other.rows("train")]).tolist() == [10] * 7
    for split in ("val", "calib", "test"):
        assert (index.image_ids[index.rows(split)] == other.image_ids[other.rows(split)]).all()
    why = [r["why"] for r in read_occurrences(tmp_path / "j").to_pylist() if not r["kept"]]
    assert set(why) == {"cap"}
    for wrong in ("csv", "csv=0", "fer2013=10"):
        with pytest.raises(UsageError):
            built(tmp_path / "k", root, max_per_source=(wrong,))


def test_a_filter_is_read():
    rule = parse_filter("ferplus:agreement >= 0.6")
    assert (rule.source, rule.field, rule.op, rule.value) == ("ferplus", "agreement", ">=", "0.6")


def test_a_class_of_too_few_groups_is_absent_from_a_split_and_the_audit_says_so(tmp_path):
    (tmp_path / "f" / "fear").mkdir(parents=True)
    for k in range(70):
        layouts.save(tmp_path / "f" / LABELS[k % 7] / f"{k}.png", layouts.face(k)) if LABELS[k % 7] != "fear" else None
    for k in range(3):
        layouts.save(tmp_path / "f" / "fear" / f"{k}.png", layouts.face(7 * k + 2))
    stage.run(IndexConfig(source=(f"folder={tmp_path / 'f'}",), near_duplicates="off"), tmp_path / "i")
    absent = stage.audit(tmp_path / "i")["absent"]
    assert [split for split, names in absent["classes"].items() if "fear" in names], absent
