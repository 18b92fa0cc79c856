"""Packed pixels: several files, verified, shared, and streamed from another place through a bounded cache."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from mien.core.artifacts.index import hash_rows, read_index
from mien.core.artifacts.pixels import PixelWriter, cache_folder, open_pixels
from mien.core.config.index import IndexConfig, WorkConfig
from mien.core.errors import ArtifactError, UsageError
from mien.stages import index as stage

RNG = np.random.default_rng(0)
ROWS = RNG.integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)


def written(folder, *, per_file=7, where=None, cuts=(3, 10, 11, 60)):
    with PixelWriter(folder, ROWS.shape, shard_bytes=per_file * 192, where=where) as writer:
        for part in np.split(ROWS, cuts):
            writer.append(part)
        return writer.close()


@pytest.mark.parametrize("per_file", [1, 7, 99, 100, 1000])
def test_rows_come_back_however_they_are_cut(tmp_path, per_file):
    meta = written(tmp_path, per_file=per_file)
    assert [f["rows"] for f in meta["files"]] == [min(per_file, 100 - k) for k in range(0, 100, per_file)]
    pixels = open_pixels(tmp_path, meta, fix="")
    assert pixels.shape == ROWS.shape
    some = RNG.integers(0, 100, 40)
    assert (pixels[some] == ROWS[some]).all()
    assert (pixels[5:91:3] == ROWS[5:91:3]).all()
    assert (pixels[17] == ROWS[17]).all()
    assert (pixels[np.arange(100) % 2 == 0] == ROWS[::2]).all()
    assert (pixels[np.array([-1])] == ROWS[-1:]).all()
    with pytest.raises(IndexError):
        pixels[np.array([100])]


def test_too_few_rows_are_noticed(tmp_path):
    with PixelWriter(tmp_path, ROWS.shape, shard_bytes=10_000, where=None) as writer:
        writer.append(ROWS[:50])
        with pytest.raises(ArtifactError, match="50 rows"):
            writer.close()


@pytest.mark.parametrize("per_file", [7, 1000])
def test_an_altered_file_is_refused(tmp_path, per_file):
    meta = written(tmp_path, per_file=per_file)
    path = sorted((tmp_path / "pixels").iterdir())[-1]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="altered"):
        open_pixels(tmp_path, meta, fix="")[np.array([99])]


def test_pixels_at_a_uri_come_through_a_bounded_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MIEN_CACHE_GIB", str(4000 / 2**30))  # two files of 7 rows fit
    where = (tmp_path / "far").as_uri()
    meta = written(tmp_path / "near", where=where)
    assert not list((tmp_path / "near" / "pixels").iterdir())
    assert len(list((tmp_path / "far").iterdir())) == 15
    pixels = open_pixels(tmp_path / "near", meta, fix="")
    for number in range(15):  # whole files in turn: a stream
        assert (pixels.file(number) == ROWS[7 * number : 7 * number + 7]).all()
        assert sum(p.stat().st_size for p in cache_folder().glob("*.npy")) <= 4000
    assert (pixels[np.arange(100)] == ROWS).all()
    again = open_pixels(tmp_path / "near", meta, fix="")
    again.file(14)
    for path in cache_folder().glob("*.npy"):
        path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(ArtifactError, match="altered"):
        open_pixels(tmp_path / "near", meta, fix="").file(14)
    (tmp_path / "far" / meta["files"][0]["name"]).unlink()
    for path in cache_folder().glob("*.npy"):
        path.unlink()
    with pytest.raises(ArtifactError, match="not there"):
        open_pixels(tmp_path / "near", meta, fix="")[0]


def test_a_place_that_is_no_place():
    with pytest.raises(UsageError, match="cannot be used"):
        PixelWriter(cache_folder(), ROWS.shape, shard_bytes=100, where="nowhere:/x")


def test_an_index_with_its_pixels_elsewhere_is_the_same_index(tmp_path, monkeypatch):
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    config = IndexConfig(source=("synthetic=210",), size=32)
    near = stage.run(config, tmp_path / "a")
    far = stage.run(config, tmp_path / "b", work=WorkConfig(pixels=(tmp_path / "far").as_uri(), shard_mib=1))
    assert near.table == far.table
    assert (np.asarray(near.pixels[:]) == far.pixels[:]).all()
    assert read_index(tmp_path / "b").fingerprint == near.fingerprint
    assert far.manifest["pixels"]["files"] != near.manifest["pixels"]["files"]
    assert far.content_hash == near.content_hash


@pytest.mark.slow
def test_the_content_hash_knows_pixels_rows_and_crop_and_no_packing(tmp_path):
    config = IndexConfig(source=("synthetic=420",), size=32)
    one = stage.run(config, tmp_path / "one")
    many = stage.run(config, tmp_path / "many", work=WorkConfig(shard_mib=1))
    assert len(many.manifest["pixels"]["files"]) > len(one.manifest["pixels"]["files"]) == 1
    assert many.content_hash == one.content_hash
    assert stage.run(config.model_copy(update={"crop_scale": 1.2}), tmp_path / "c").content_hash != one.content_hash
    assert stage.run(config.model_copy(update={"seed": 1}), tmp_path / "s").content_hash != one.content_hash


def test_the_hash_of_rows_is_that_of_values(tmp_path):
    index = stage.run(IndexConfig(source=("synthetic=210",), size=32), tmp_path / "i")

    def hashed(table: pa.Table) -> str:
        digest = hashlib.sha256()
        hash_rows(digest, table)
        return digest.hexdigest()

    table = index.table
    assert hashed(pa.concat_tables([table.slice(0, 100), table.slice(100)])) == hashed(table)
    assert hashed(table.slice(5, 60)) == hashed(pa.Table.from_pylist(table.slice(5, 60).to_pylist(), table.schema))
    for number, name in enumerate(table.column_names):  # every column counts, and a null is no empty value
        column = table[name]
        other = pa.nulls(len(table), column.type)
        if column.null_count == len(table):
            kind = column.type
            value = [("a", "b")] if pa.types.is_map(kind) else [0.0] if pa.types.is_list(kind) else ""
            other = pa.array([value] * len(table), kind)
        assert hashed(table.set_column(number, name, other)) != hashed(table), name


@pytest.mark.slow
def test_two_indexes_at_one_place_do_not_touch_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    where = (tmp_path / "far").as_uri()
    first = stage.run(IndexConfig(source=("synthetic=210",), size=32), tmp_path / "a", work=WorkConfig(pixels=where))
    second = stage.run(IndexConfig(source=("synthetic=210",), size=40), tmp_path / "b", work=WorkConfig(pixels=where))
    assert first.pixels[:].shape[1] == 32
    assert second.pixels[:].shape[1] == 40
    assert len(list((tmp_path / "far").iterdir())) == 2


def test_altered_pixels_elsewhere_are_refused_by_their_own_name_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    meta = written(tmp_path / "near", where=(tmp_path / "far").as_uri())
    path = tmp_path / "far" / meta["files"][2]["name"]
    path.write_bytes(b"y" * path.stat().st_size)
    with pytest.raises(ArtifactError, match="/far/"):
        open_pixels(tmp_path / "near", meta, fix="").file(2)
    assert not list(cache_folder().glob("*.npy"))


def test_a_damaged_index_is_not_called_complete(tmp_path):
    config = IndexConfig(source=("synthetic=210",), size=32)
    stage.run(config, tmp_path / "i")
    path = tmp_path / "i" / "pixels" / "00000.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for act in (lambda: stage.run(config, tmp_path / "i"), lambda: stage.audit(tmp_path / "i")):
        with pytest.raises(ArtifactError, match=r"Remove .* and build it again"):
            act()
    path.unlink()
    with pytest.raises(ArtifactError, match=r"Remove .* and build it again"):
        stage.run(config, tmp_path / "i")


def test_a_place_that_cannot_be_written_to_costs_no_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be"):
        stage.run(
            IndexConfig(source=("synthetic=210",)),
            tmp_path / "i",
            work=WorkConfig(pixels=(tmp_path / "file" / "x").as_uri()),
        )
    with pytest.raises(UsageError, match="%20"):
        stage.run(IndexConfig(source=("synthetic=210",)), tmp_path / "i", work=WorkConfig(pixels="file:///a b"))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
