"""Models that ship: the catalogue, verified files, pinned downloads, and the command that shows them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mien.cli.commands import run
from mien.core.artifacts import models as store
from mien.core.errors import ArtifactError, UsageError
from mien.stages import models as stage

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    """A package folder with one model of a few bytes, in the place of the real one."""
    data = b"not a model, and that does not matter here"
    (tmp_path / "a.onnx").write_bytes(data)
    entry = {
        "name": "a",
        "version": "1",
        "file": "a.onnx",
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "precision": "fp32",
        "backbone": "cnn",
        "parameters": 1,
        "input_size": 48,
        "data": ["synthetic"],
        "terms": ["CC0"],
        "figures": {"accuracy": {"value": 0.5, "ci95": [0.4, 0.6], "on": "10 images"}},
        "command": "mien export",
    }
    document = {"default": "a", "models": [entry], "downloads": []}
    (tmp_path / "models.json").write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.setattr(store.resources, "files", lambda package: tmp_path)
    store.read_catalogue.cache_clear()
    yield tmp_path
    store.read_catalogue.cache_clear()


def test_a_shipped_file_is_found_by_name_and_by_default(catalogue):
    assert store.shipped_file() == store.shipped_file("a") == catalogue / "a.onnx"
    with pytest.raises(UsageError, match="No model 'b'"):
        store.shipped_file("b")


def test_a_damaged_or_missing_file_is_refused(catalogue):
    path = catalogue / "a.onnx"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="damaged or altered"):
        store.shipped_file()
    path.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        store.shipped_file()


def test_a_damaged_catalogue_is_named(catalogue):
    (catalogue / "models.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactError, match="Install mien again"):
        store.read_catalogue()


def test_the_list_shows_figures_terms_and_what_may_be_fetched(catalogue, capsys):
    assert run(["models"]) == 0
    text = capsys.readouterr().out
    assert "a 1 (default)" in text
    assert "0.500 [0.400, 0.600] on 10 images" in text
    assert "CC0" in text


def test_this_installation_is_right(capsys):
    """Every file that really ships opens, classifies and has the size and hash that the catalogue states."""
    found = stage.listing()
    assert [row["name"] for row in stage.verify()] == [model.name for model in found.models]
    for model in found.models:
        assert store.shipped_file(model.name).stat().st_size == model.bytes
        assert model.terms
        assert model.command.startswith("mien ")
    assert found.default in {None, *(model.name for model in found.models)}
    assert run(["models", "verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == stage.verify()


def test_the_published_figures_are_those_of_the_file_that_ships():
    """`mien evaluate FILE --on INDEX` was of this very file, and the catalogue holds what it said."""
    published = json.loads((RESULTS / "shipped_model.json").read_text())
    catalogue = store.read_catalogue()
    (model,) = (m for m in catalogue.models if m.name == catalogue.default)
    assert published["calibration_hash"] == model.sha256
    assert model.figures
    for name, figure in model.figures.items():
        assert figure.value == pytest.approx(published["test"][name], abs=1e-6)
        assert figure.ci95 == pytest.approx(published["test"]["ci95"][name], abs=1e-6)


def test_a_download_is_kept_only_with_the_right_hash(tmp_path, monkeypatch):
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path))
    assert store.downloaded_file("yunet") is None
    path = store.downloads_folder() / "face_detection_yunet_2023mar.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    with pytest.raises(ArtifactError, match="damaged or altered"):
        store.downloaded_file("yunet")
    with pytest.raises(UsageError, match="Downloads: yunet"):
        store.fetch("yunett")


@pytest.mark.real
def test_the_pinned_detector_is_the_file_that_we_know(real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path))
    path = store.downloads_folder() / "face_detection_yunet_2023mar.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes((real_data / "face_detection_yunet_2023mar.onnx").read_bytes())
    assert store.downloaded_file("yunet") == path
