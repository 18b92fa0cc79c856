"""Which device computes, and how many processes share a training (accelerate launch, torchrun, SLURM)."""

from __future__ import annotations

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from mien.nn.backbones import gains_by_bf16


def on_cpu() -> bool:
    """Whether processors do the work: no accelerator is there, or ACCELERATE_USE_CPU asks for it."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def processes() -> PartialState:
    """The processes of this training; on CPUs they talk through gloo."""
    return PartialState(cpu=on_cpu())


def compute_device() -> torch.device:
    """The device of this process: trainings, their teachers and predictions all run on it."""
    device: torch.device = processes().device
    return device


def pick_precision(choice: str, backbone: str, device: torch.device) -> str:
    """`auto` resolved: bf16 where the device computes in it and the family gains by it."""
    if choice != "auto":
        return choice
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return (
        "bf16" if gains_by_bf16(backbone) and device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "no"
    )
