"""The benchmark of accelerators: it runs, it compares, and it says where there is none."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "accelerator.py"


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("accelerator_benchmark", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_an_accelerator_it_says_so(benchmark, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(sys, "argv", ["accelerator.py", "--out", str(tmp_path / "a.json")])
    assert benchmark.main() == 2
    assert "No accelerator is here" in capsys.readouterr().out
    assert not (tmp_path / "a.json").exists()


def scores(accuracy):
    return {"run": {"val": {"n": 400, "accuracy": accuracy, "macro_f1": accuracy, "nll": 1.0}}}


@pytest.mark.parametrize(
    "accuracy, logit, within", [(0.8, 1e-5, True), (0.72, 1e-5, True), (0.7, 1e-5, False), (0.8, 2e-3, False)]
)
def test_what_is_tolerated(benchmark, accuracy, logit, within):
    """Of 400 images .8 against .72 is 2.7 standard errors of a difference, .8 against .7 is 3.3; logits to 1e-3."""
    one = {"figures": scores(0.8), "seconds": {"train": 10.0}}
    two = {"figures": scores(accuracy), "seconds": {"train": 4.0}, "same_weights": {"run": logit}}
    found = benchmark.compare(one, two)
    assert found["within_tolerance"] is within
    assert found["times_as_fast"] == {"train": 2.5}
    assert found["differences"][0]["accuracy"] == pytest.approx(accuracy - 0.8)


@pytest.mark.long
def test_the_processor_agrees_with_itself(benchmark, monkeypatch, tmp_path):
    small = [
        "--device",
        "cpu",
        "--faces",
        "560",
        "--size",
        "32",
        "--epochs",
        "3",
        "--batch-size",
        "32",
        "--backbones",
        "cnn",
        "--student",
        "cnn",
    ]
    monkeypatch.setattr(sys, "argv", ["accelerator.py", *small, "--out", str(tmp_path / "a.json")])
    assert benchmark.main() == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["processor"]["device"] == found["other"]["device"] == "cpu"
    assert set(found["times_as_fast"]) == {"train", "predict", "distill"}
    assert [(d["run"], d["split"]) for d in found["differences"]] == [
        (r, s) for r in ("cnn", "student") for s in ("val", "calib")
    ]
    assert all(d["accuracy"] == 0 for d in found["differences"])
    assert max(found["same_weights_largest_logit_difference"].values()) < 1e-4
    assert found["command"].endswith(" ".join(["benchmarks/accelerator.py", *small, "--out", str(tmp_path / "a.json")]))
