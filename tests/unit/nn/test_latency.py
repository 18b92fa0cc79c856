"""What networks cost: counts against independent ones, times by the test's own clock, errors before measuring."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from mien.cli import run
from mien.core.config import LatencyConfig
from mien.core.errors import UsageError
from mien.nn import latency
from mien.nn.latency import Contender, compare, macs, weight_bytes
from mien.stages import bench

QUICK = {"img_size": 32, "runs": 12, "warmup": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "cnn.json"
    found = bench.run(LatencyConfig(backbone=("cnn", "cnn+cnn"), **QUICK), path)
    assert json.loads(path.read_text()) == found
    return found


def cnn_parameters() -> int:
    """The small CNN's: 3x3 convolutions without bias, each with a batch norm; a linear head of seven."""
    from mien.nn.models.blocks import SmallCnn

    convolutions = [m for m in SmallCnn(drop=0).modules() if isinstance(m, nn.Conv2d)]
    assert convolutions
    kernels = sum(
        m.in_channels // m.groups * m.out_channels * m.kernel_size[0] * m.kernel_size[1]
        + (m.bias is not None) * m.out_channels
        for m in convolutions
    )
    norms = sum(2 * m.num_features for m in SmallCnn(drop=0).modules() if isinstance(m, nn.BatchNorm2d))
    return kernels + norms + 7 * (SmallCnn(drop=0)(torch.zeros(2, 3, 32, 32)).shape[1] + 1)


def test_parameters_and_bytes_are_those_of_an_independent_count(document):
    cnn, pair = document["models"]
    assert cnn["parameters"] == cnn_parameters()
    assert cnn["weight_bytes"] >= 4 * cnn["parameters"]
    assert cnn["onnx_bytes"] > 4 * cnn["parameters"]
    for key in ("parameters", "macs", "weight_bytes", "onnx_bytes"):
        assert pair[key] == 2 * cnn[key]


def test_macs_of_a_convolution_and_of_attention_by_hand():
    # 8x8 outputs, each of 5 channels from 3 channels of 3x3
    plain = nn.Sequential(Cast(), nn.Conv2d(3, 5, 3, stride=2, padding=1))
    assert macs(plain, 16) == 8 * 8 * 5 * 3 * 9
    # 64 tokens of 3: q k^T and its product with v
    assert macs(Attention(), 8) == 2 * 64 * 64 * 3
    assert weight_bytes(plain) == 4 * (5 * 27 + 5)


class Cast(nn.Module):
    def forward(self, x):
        return x.float()


class Attention(nn.Module):
    def forward(self, x):
        tokens = x.float().flatten(2).transpose(1, 2)[:, None]
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)


def test_every_model_is_timed_in_both_engines(document):
    seen = {(t["model"], t["engine"], t["threads"]) for t in document["timings"]}
    threads = [n for n in (1, 2) if n <= document["cores"]]
    assert seen == {(m, e, n) for m in ("cnn", "cnn+cnn") for e in ("torch", "onnxruntime") for n in threads}
    for t in document["timings"]:
        assert 0 < t["p50_ms"] <= t["p95_ms"] <= t["p99_ms"]
        low, high = t["p50_of_turns_ms"]
        assert low <= t["p50_ms"] <= high
    assert {"torch", "timm", "onnxruntime"} <= set(document["environment"]["packages"])
    assert "cnn+cnn" in bench.table(document)


def test_contenders_take_turns_and_what_is_not_counted_is_not(monkeypatch):
    clock = [0.0]
    calls = []

    def call(name, seconds):
        def runs():
            calls.append(name)
            clock[0] += seconds if calls.count(name) > 5 else 100.0  # its warm-up is slow

        return runs

    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])
    threads = torch.get_num_threads()
    contenders = [Contender("a", "torch", 1, call("a", 0.001)), Contender("b", "torch", 1, call("b", 0.002))]
    first, second = compare(contenders, runs=25, warmup=5)
    assert torch.get_num_threads() == threads
    assert calls[:10] == ["a"] * 5 + ["b"] * 5
    turns = "".join(calls[10:])
    # turns of ten, ten and five runs, each with one before it
    assert sorted(turns[:22]) == sorted("a" * 11 + "b" * 11)
    assert turns.count("a") == turns.count("b") == 25 + 3
    assert first["p99_ms"] == pytest.approx(1.0)
    assert second["p50_ms"] == pytest.approx(2.0)
    assert second["p50_of_turns_ms"] == pytest.approx([2.0, 2.0])


def test_the_percentiles_are_numpys_and_the_spread_that_of_the_turns(monkeypatch):
    times = iter(np.linspace(1, 20, 20).tolist())
    monkeypatch.setattr(
        latency, "time_runs", lambda call, n, wait=None: [next(times) for _ in range(n)] if n > 1 else [0.0]
    )
    (found,) = compare([Contender("a", "torch", 1, lambda: None)], runs=20, warmup=1)
    assert found["p50_ms"] == pytest.approx(10.5)
    assert found["p95_ms"] == pytest.approx(19.05)
    assert found["p50_of_turns_ms"] == pytest.approx([5.5, 15.5])


def test_the_device_is_waited_for():
    waited = []
    latency.time_runs(lambda: None, 3, lambda: waited.append(1))
    assert len(waited) == 3
    assert latency.waiting_for(torch.device("cpu")) is None


@pytest.mark.slow
def test_an_ensemble_gives_its_members_mean_in_both_engines():
    config = LatencyConfig(backbone=("cnn+hybrid",), **QUICK)
    built = bench._build(config)
    torch_found, onnx_found = (
        next(bench._contenders(engine, 1, built, config, torch.device("cpu"))).call()
        for engine in ("torch", "onnxruntime")
    )
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    with torch.inference_mode():
        expected = sum(member.network(image).softmax(1).numpy() for member in built.values()) / 2
    np.testing.assert_allclose(torch_found.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(onnx_found, expected, atol=1e-4)


@pytest.mark.slow
def test_mixed_precision_is_for_torch_alone():
    found = bench.run(LatencyConfig(backbone=("cnn",), amp="bf16", **QUICK))
    assert {t["engine"] for t in found["timings"]} == {"torch"}
    assert found["amp"] == "bf16"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--backbone", "resnet81"], "resnet18"),
        (["--backbone", "cnn+"], "empty member"),
        (["--device", "cuda:99"], "Here are: cpu"),
        (["--device", "abacus"], "Here are: cpu"),
        (["--engine", "onnxruntime", "--amp", "bf16"], "fp32"),
        (["--backbone", "vit_tiny", "--img-size", "50"], "patches"),
        (["--out", "table.csv"], ".json"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_measured(flags, expected, capsys, monkeypatch):
    monkeypatch.setattr(latency, "compare", lambda *a, **k: pytest.fail("measured"))
    assert run(["bench", "latency", *flags]) == 2
    assert expected in capsys.readouterr().err


def test_onnxruntime_is_measured_on_processors():
    with pytest.raises(UsageError, match="processors"):
        bench._engines(LatencyConfig(engine=("onnxruntime",)), torch.device("cuda"))
    assert bench._engines(LatencyConfig(), torch.device("cuda")) == ("torch",)


def test_several_names_after_one_flag(capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(bench, "run", lambda config, out: seen.append(config) or {"x": 1})
    monkeypatch.setattr(bench, "table", lambda document: "a table")
    assert run(["bench", "latency", "--backbone", "cnn", "cnn+hybrid", "--img-size", "48", "--json"]) == 0
    assert seen[0].models == {"cnn": ("cnn",), "cnn+hybrid": ("cnn", "hybrid")}
    assert json.loads(capsys.readouterr().out) == {"x": 1}
