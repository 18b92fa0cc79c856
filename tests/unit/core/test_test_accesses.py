"""Records of accesses to test: recognised by images, merged over places, and never torn."""

from __future__ import annotations

import errno
import json
import shutil

import pytest

from mien.core.artifacts import base
from mien.core.artifacts import test_accesses as accesses
from mien.core.errors import ArtifactError, SplitError

IMAGES = ["b", "a", "c"]
FIGURES = {"accuracy": 0.5, "macro_f1": 0.4, "nll": 1.5}


def opened(places, *, name="run", images=IMAGES, index="i", weights="w", calibration="c", selection="s"):
    hashes = {"weights_hash": weights, "calibration_hash": calibration, "selection_hash": selection}
    return accesses.record(name, FIGURES, images, places, index=index, **hashes)


def found(folder, *, images=IMAGES, index="another", weights="none", index_folder=None):
    meta = accesses.test_meta(folder, images, index_folder) | {"index": index, "weights_hash": weights}
    return accesses.read_accesses([accesses.origin_of(folder, meta)])


def test_a_test_set_is_its_images_whatever_their_order():
    assert accesses.test_set_of(IMAGES) == accesses.test_set_of(sorted(IMAGES))
    others = [["a", "b"], ["a", "b", "c", "d"], ["ab", "c"], ["a,b", "c"]]
    assert len({accesses.test_set_of(images) for images in [IMAGES, *others]}) == 5


def test_accesses_count_models_calibrations_and_selections_and_no_repeats(tmp_path):
    run, beside = tmp_path / "runs" / "a", tmp_path / "indexes"
    assert opened([run, beside]) == 0
    assert opened([run, beside]) == 0  # the same once more
    assert opened([run, beside], weights="v") == 1
    assert opened([run, beside], calibration="d") == 2
    assert opened([run, beside], selection="t") == 3
    assert opened([run, beside], images=["x"], index="j") == 0  # another test set
    first = found(run)[0]
    assert (first.name, first.accuracy, first.macro_f1, first.nll, first.selection_hash) == ("run", 0.5, 0.4, 1.5, "s")
    assert len(found(run)) == 4
    assert len(found(run, images=["x"])) == 1
    assert found(run, images=["y"]) == []


def test_whichever_record_is_left_speaks(tmp_path):
    """The run's, the one beside the index, the one beside the ensembles: any of the three is enough."""
    run, index, ensembles = tmp_path / "runs" / "a", tmp_path / "data" / "index", tmp_path / "out" / "ens"
    ensembles.mkdir(parents=True)
    (ensembles / base.MANIFEST).write_text("{}")
    places = accesses.places_of([run], index, ensembles / "selected.json")
    assert places == [run, tmp_path / "data", tmp_path / "out"]
    opened(places)
    whole = tmp_path / "whole"
    whole.mkdir()
    for place in places:
        shutil.copytree(place, whole / place.name)
    kept = (tmp_path / "out" / accesses.FOLDER, tmp_path / "data" / accesses.FOLDER, run / accesses.FOLDER)
    meta = accesses.test_meta(run, IMAGES, index) | {"index": "rebuilt", "weights_hash": "none"}
    for left in kept:
        for folder in kept:
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole / left.parent.name / accesses.FOLDER, left)
        shutil.rmtree(ensembles, ignore_errors=True)  # removed, as the index was: the record is in neither
        assert len(accesses.read_accesses([accesses.origin_of(run, meta)], tmp_path / "out")) == 1, left


def test_places_merge_without_doubles_and_keep_the_first_time(tmp_path):
    a, b = tmp_path / "x" / "a", tmp_path / "y" / "b"
    opened([a])
    first = found(a)[0].when
    assert opened([b, a]) == 0
    assert [access.when for access in accesses.read_accesses([accesses.Origin((a, b), None, "i", "")])] == [first]
    shutil.copytree(a / accesses.FOLDER, tmp_path / "copied" / accesses.FOLDER)
    assert len(found(tmp_path / "copied")) == 1


def test_another_test_that_these_weights_were_judged_on_counts_too(tmp_path):
    opened([tmp_path / "a"], images=["x"], index="other")
    assert len(found(tmp_path / "a", weights="w")) == 1
    assert found(tmp_path / "a", weights="v") == []


def test_predictions_that_name_no_test_are_known_by_their_index(tmp_path):
    opened([tmp_path / "a"])
    old = {"index": "i", "weights_hash": "v"}  # as they were written before test sets were named
    assert len(accesses.read_accesses([accesses.origin_of(tmp_path / "a", old)])) == 1
    assert accesses.test_meta(tmp_path / "a", [], None) == {"test_set": None, "index_folder": None}


def test_deciding_after_an_access_is_refused_or_counted(tmp_path):
    what = "this selection was written"
    assert accesses.check_unopened([], what, again=False) == 0
    opened([tmp_path / "a"])
    opened([tmp_path / "a"], name="second", weights="v")
    with pytest.raises(
        SplitError, match=r"opened 2 times before this selection was written: last .*, second, .*--again"
    ):
        accesses.check_unopened(found(tmp_path / "a"), what, again=False)
    assert accesses.check_unopened(found(tmp_path / "a"), what, again=True) == 2
    assert accesses.told(0, what) == "No access to test is on record from before this selection was written."
    assert accesses.told(1, what) == "Test was opened once before this selection was written."


def test_a_place_that_may_not_be_written_to_is_said_and_others_are(tmp_path, monkeypatch, capsys):
    write = base.write_json

    def read_only(path, value):
        if "data" in path.parts:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        write(path, value)

    monkeypatch.setattr(base, "write_json", read_only)
    opened([tmp_path / "a", tmp_path / "data"])
    assert "data may not be written to" in " ".join(capsys.readouterr().err.split())
    assert len(found(tmp_path / "a")) == 1
    with pytest.raises(OSError, match="Read-only"):
        opened([tmp_path / "data", tmp_path / "a"], weights="v")


def test_a_record_that_is_none_is_named(tmp_path):
    opened([tmp_path / "a"])
    (path,) = (tmp_path / "a" / accesses.FOLDER).glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"accuracy": "good"}))
    with pytest.raises(ArtifactError, match="is no record of an access"):
        found(tmp_path / "a")
