"""An accelerator for machines without one: torch's `meta` device, which refuses to be mixed with CPU tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from torch.overrides import TorchFunctionMode

from mien.nn.devices import processes

META = torch.device("meta")
# What is read out of a meta tensor, which holds no values: no step was bad (-1), everything was finite (True).
READ = {torch.bool: True, torch.int64: -1}
SCALARS = {
    torch.Tensor.__bool__: bool,
    torch.Tensor.__int__: int,
    torch.Tensor.__float__: float,
    torch.Tensor.item: None,
}


class _Readable(TorchFunctionMode):
    """Lets values be read out of meta tensors as out of an accelerator's: explicitly, by `.cpu()` and the like."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = args[0] if args else None
        if isinstance(first, torch.Tensor) and first.device == META:
            value = READ.get(first.dtype, 0.25)
            if func in SCALARS:
                kind = SCALARS[func]
                return value if kind is None else kind(value)
            if func is torch.Tensor.tolist:
                return torch.full(first.shape, value, dtype=first.dtype).tolist()
            if func is torch.Tensor.cpu:
                assert first.dtype != torch.float64, "mps has no float64"
                return torch.full(first.shape, value, dtype=first.dtype)
        return func(*args, **(kwargs or {}))


AUTOCAST = torch.autocast


def _autocast(device: str, **options: Any) -> Any:
    return nullcontext() if device == "meta" else AUTOCAST(device, **options)  # meta has no autocast


@contextmanager
def accelerator() -> Iterator[torch.device]:
    """Within it this process computes on `meta`: an operation on tensors of both devices raises."""
    processes()
    before = PartialState._shared_state["device"]
    PartialState._shared_state["device"] = META
    try:
        with _Readable(), mock.patch("torch.autocast", _autocast):
            yield META
    finally:
        PartialState._shared_state["device"] = before
        AcceleratorState._reset_state(reset_partial_state=False)
