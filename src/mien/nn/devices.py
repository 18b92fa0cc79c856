"""Which device computes, and how many processes share a training (accelerate launch, torchrun, SLURM)."""

from __future__ import annotations

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def on_cpu() -> bool:
    """Whether processors do the work: no accelerator is there, or ACCELERATE_USE_CPU asks for it."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def processes() -> PartialState:
    """The processes of this training; on CPUs they talk through gloo."""
    return PartialState(cpu=on_cpu())
