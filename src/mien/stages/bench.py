"""The cost of untrained networks for one image: parameters, multiply-accumulates, bytes, time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from mien.core.artifacts import base
from mien.core.artifacts.metrics import ContenderLatency
from mien.core.artifacts.run import Environment, environment
from mien.core.config.bench import ENGINES, JOIN, Engine, LatencyConfig
from mien.core.config.train import TrainConfig
from mien.core.errors import UsageError
from mien.core.labels import N_CLASSES
from mien.core.progress import say

if TYPE_CHECKING:
    import torch

    from mien.nn.latency import Contender
    from mien.nn.models.network import Network

THREADS = (1, 2)


@dataclass(frozen=True)
class _Member:
    network: Network
    graph: bytes


class Cost(TypedDict):
    """What a model costs on any machine."""

    name: str
    parameters: int
    macs: int
    weight_bytes: int
    onnx_bytes: int


class Benchmark(TypedDict):
    """The cost of models, and their time for one image on this machine."""

    img_size: int
    batch: int
    runs: int
    warmup: int
    device: str
    device_name: str | None
    amp: str
    cores: int
    models: list[Cost]
    timings: list[ContenderLatency]
    environment: Environment


def run(config: LatencyConfig, out: Path | None = None) -> Benchmark:
    """Measure all of `config.models`; with `out` the document is written there too.

    Raises `UsageError` for a backbone, device or file name that cannot be, before anything is measured.
    """
    if out is not None and out.suffix != ".json":
        raise UsageError(f"--out {out}.", rule="The file's name ends in .json.")
    from mien.nn.devices import device_name, named_device  # noqa: PLC0415  (torch)
    from mien.nn.latency import compare, waiting_for  # noqa: PLC0415  (torch)

    device = named_device(config.device)
    engines = _engines(config, device)
    members = _build(config)
    models = [_cost(name, members) for name in config.models]
    for member in members.values():
        member.network.to(device)
    threads = tuple(n for n in THREADS if n <= _cores()) if device.type == "cpu" else THREADS[:1]
    contenders = [c for engine in engines for n in threads for c in _contenders(engine, n, members, config, device)]
    say(f"{len(contenders)} contenders take turns of {config.runs} runs each")
    timings = compare(contenders, runs=config.runs, warmup=config.warmup, synchronize=waiting_for(device))
    document: Benchmark = {
        "img_size": config.img_size,
        "batch": 1,
        "runs": config.runs,
        "warmup": config.warmup,
        "device": device.type,
        "device_name": device_name(device),
        "amp": config.amp,
        "cores": _cores(),
        "models": models,
        "timings": sorted(timings, key=lambda t: list(config.models).index(t["model"])),
        "environment": environment(),
    }
    if out is not None:
        base.write_json(out, document)
    return document


def table(document: Benchmark) -> str:
    """The document for people: a line a model, engine and number of threads."""
    costs = {model["name"]: model for model in document["models"]}
    wide = max(map(len, costs))
    amp = "" if document["amp"] == "no" else f", amp {document['amp']}"
    lines = [
        (
            f"one image of {document['img_size']} px on "
            f"{document['device_name'] or document['environment']['processor']}{amp}; medians of turns in brackets"
        ),
        (
            f"{'model':{wide}}  params/M  GMACs  weights/MB  ONNX/MB  "
            "engine       threads  p50/ms                     p95/ms   p99/ms"
        ),
    ]
    for t in document["timings"]:
        c, (low, high) = costs[t["model"]], t["p50_of_turns_ms"]
        p50 = f"{t['p50_ms']:.2f} [{low:.2f}, {high:.2f}]"
        lines.append(
            f"{t['model']:{wide}}  {c['parameters'] / 1e6:8.2f}  {c['macs'] / 1e9:5.2f}  "
            f"{c['weight_bytes'] / 1e6:10.1f}  {c['onnx_bytes'] / 1e6:7.1f}"
            f"  {t['engine']:11}  {t['threads']:7}  {p50:25}  {t['p95_ms']:7.2f}  {t['p99_ms']:7.2f}"
        )
    return "\n".join(lines)


def _engines(config: LatencyConfig, device: torch.device) -> tuple[Engine, ...]:
    if config.engine is None:
        return ENGINES if device.type == "cpu" and config.amp == "no" else ("torch",)
    if "onnxruntime" in config.engine and device.type != "cpu":
        raise UsageError(
            f"--engine onnxruntime on {device}.",
            rule="onnxruntime is measured on processors.",
            fix="Use --device cpu, or --engine torch.",
        )
    return config.engine


def _build(config: LatencyConfig) -> dict[str, _Member]:
    """{backbone: it with random weights, seven logits and its graph as `mien export` writes it}, each once."""
    from mien.nn.export import Calibrated, trace  # noqa: PLC0415  (torch)
    from mien.nn.models.network import make_network  # noqa: PLC0415  (torch)

    size = config.img_size
    networks = {}
    for name in dict.fromkeys(name for members in config.models.values() for name in members):
        settings = TrainConfig(backbone=name, img_size=size, head="linear")
        networks[name] = make_network(settings, crop_size=size, color="rgb").eval()
    members_by_name = {}
    for name, network in networks.items():
        say(f"{name}: export and count")
        unchanged = Calibrated(network, np.eye(N_CLASSES).tolist(), [0.0] * N_CLASSES)
        members_by_name[name] = _Member(network, trace(unchanged, size).SerializeToString())
    return members_by_name


def _cost(name: str, members: dict[str, _Member]) -> Cost:
    """What does not depend on the machine; an ensemble's is its members' sum."""
    from mien.nn.latency import macs, weight_bytes  # noqa: PLC0415  (torch)
    from mien.nn.models.network import parameter_count  # noqa: PLC0415  (torch)

    parts = [members[member] for member in name.split(JOIN)]
    return {
        "name": name,
        "parameters": sum(parameter_count(m.network) for m in parts),
        "macs": sum(macs(m.network, m.network.preprocess.img_size) for m in parts),
        "weight_bytes": sum(weight_bytes(m.network) for m in parts),
        "onnx_bytes": sum(len(m.graph) for m in parts),
    }


def _contenders(
    engine: Engine, threads: int, built: dict[str, _Member], config: LatencyConfig, device: torch.device
) -> Iterator[Contender]:
    """Every model in one engine with so many threads; members that several models share are opened once."""
    from mien.nn.latency import Contender, onnx_call, onnx_session, torch_call  # noqa: PLC0415  (torch)

    opened = {name: onnx_session(m.graph, threads) for name, m in built.items()} if engine == "onnxruntime" else {}
    for name, members in config.models.items():
        call: Callable[[], object]
        if engine == "onnxruntime":
            call = onnx_call([opened[m] for m in members], config.img_size)
        else:
            call = torch_call([built[m].network for m in members], config.img_size, device, config.amp)
        yield Contender(name, engine, threads, call)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
