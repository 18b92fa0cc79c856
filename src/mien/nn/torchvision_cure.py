"""Lets timm import where torchvision's compiled operators do not fit the installed torch.

With a CPU build of torch, PyPI's torchvision fails on import with "operator torchvision::nms does
not exist". The real import is tried first; only on that error the two schemas are declared, the
half-imported modules forgotten, and the import repeated. Nothing of ours uses these operators.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, Protocol

import torch
from torch import nn

_LIBRARY: object = None


class PretrainedConfig(Protocol):
    """What timm says of a name's weights; `mean` and `std` (3,) are of images in [0, 1]."""

    architecture: str
    tag: str
    license: str | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fixed_input_size: bool
    has_weights: bool


class Timm(Protocol):
    """What we use of timm."""

    def list_models(self) -> list[str]:
        """All names."""

    def get_pretrained_cfg(self, name: str, *, allow_unregistered: bool) -> PretrainedConfig | None:
        """What is known of a name's weights, None without any."""

    def create_model(self, name: str, **options: object) -> nn.Module:
        """The network of that name."""


def import_timm() -> Timm:
    """Import and return timm, curing torchvision first where that is needed."""
    global _LIBRARY  # noqa: PLW0603  (the declaration lives as long as the process)
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [m for m in sys.modules if m == "torchvision" or m.startswith("torchvision.")]:
            del sys.modules[name]
        library: Any = torch.library.Library  # torch states no types of it
        declared = _LIBRARY = library("torchvision", "DEF")
        declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
    return importlib.import_module("timm")
