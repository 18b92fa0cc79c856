"""What a network takes for one image: time in torch and onnxruntime, multiply-accumulates, bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mien.core.artifacts.metrics import ContenderLatency, Latency, Percentiles
from mien.nn.models.network import Network

BLOCK = 10
"""Runs of one contender before the next one has its turn."""
AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Session(Protocol):
    """What we use of an onnxruntime session."""

    def run(self, outputs: list[str], inputs: dict[str, NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """The named outputs."""


def measure(network: Network, size: int, *, runs: int = 60, warmup: int = 10) -> Latency:
    """Milliseconds of one uint8 crop of `size` pixels: percentiles of `runs`."""
    image = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    with torch.inference_mode():
        time_runs(lambda: network(image), warmup)
        times = time_runs(lambda: network(image), runs)
    return {
        "engine": "torch eager fp32",
        "batch": 1,
        "threads": torch.get_num_threads(),
        "input": network.preprocess.img_size,
        **percentiles(times),
    }


def time_runs(call: Callable[[], object], runs: int, synchronize: Callable[[], None] | None = None) -> list[float]:
    """Milliseconds of each of `runs` calls; `synchronize` waits until the device has done what was asked of it."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        if synchronize is not None:
            synchronize()
        times.append(1000 * (time.perf_counter() - start))
    return times


def percentiles(times: Sequence[float]) -> Percentiles:
    """Median, 95th and 99th percentile of milliseconds."""
    p50, p95, p99 = map(float, np.percentile(times, [50, 95, 99]))
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


@dataclass(frozen=True)
class Contender:
    """A model in an engine with a number of threads; `call` runs it on one image."""

    model: str
    engine: str
    threads: int
    call: Callable[[], object]


def compare(
    contenders: Sequence[Contender], *, runs: int, warmup: int, synchronize: Callable[[], None] | None = None
) -> list[ContenderLatency]:
    """Time all contenders in turns of `BLOCK` runs, so that a busy moment of the machine hits all of them alike.

    Each turn starts with one run that is not counted: caches and thread pools are then the contender's own. Besides
    percentiles of all runs each record gives the least and the largest median of a turn, as the spread.
    """
    order = np.random.default_rng(0)
    turns: list[list[list[float]]] = [[] for _ in contenders]
    before = torch.get_num_threads()
    try:
        for contender in contenders:
            torch.set_num_threads(contender.threads)
            time_runs(contender.call, warmup, synchronize)
        for start in range(0, runs, BLOCK):
            for i in order.permutation(len(contenders)).tolist():
                torch.set_num_threads(contenders[i].threads)
                time_runs(contenders[i].call, 1, synchronize)
                turns[i].append(time_runs(contenders[i].call, min(BLOCK, runs - start), synchronize))
    finally:
        torch.set_num_threads(before)
    return [_record(c, times) for c, times in zip(contenders, turns, strict=True)]


def _record(contender: Contender, turns: list[list[float]]) -> ContenderLatency:
    medians = [float(np.median(times)) for times in turns]
    return {
        "model": contender.model,
        "engine": contender.engine,
        "threads": contender.threads,
        **percentiles(np.concatenate(turns).tolist()),
        "p50_of_turns_ms": [min(medians), max(medians)],
    }


def waiting_for(device: torch.device) -> Callable[[], None] | None:
    """What waits until an accelerator has done all it was asked to; None for processors, whose calls do."""
    return None if device.type == "cpu" else lambda: torch.accelerator.synchronize(device)


def torch_call(members: Sequence[Network], size: int, device: torch.device, amp: str) -> Callable[[], Tensor]:
    """Mean probabilities (1, 7) of networks that run one after another on one image, which lies on the device."""
    image = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)

    def call() -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, AMP.get(amp), enabled=amp != "no"):
            return torch.stack([member(image).float().softmax(1) for member in members]).mean(0)

    return call


def onnx_session(model: bytes, threads: int) -> Session:
    """An onnxruntime session on processors, whose threads rest between its runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin after a run would slow the next measurement.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session: Session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session


def onnx_call(sessions: Sequence[Session], size: int) -> Callable[[], NDArray[np.float32]]:
    """Mean probabilities (1, 7) of exported networks that run one after another on one image."""
    image = np.zeros((1, size, size, 3), dtype=np.uint8)

    def call() -> NDArray[np.float32]:
        outputs = [session.run(["probabilities"], {"crops": image})[0] for session in sessions]
        return np.asarray(np.mean(outputs, axis=0))

    return call


def macs(network: nn.Module, size: int) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image of `size` pixels, attention's too.

    torch counts two operations for each; its fused attention on processors is not counted, so the plain one is taken.
    """
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        network(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    return int(counter.get_total_flops()) // 2


def weight_bytes(network: nn.Module) -> int:
    """Bytes of the parameters and statistics that a checkpoint holds."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
