"""Which device computes, and how many processes share a training (accelerate launch, torchrun, SLURM)."""

from __future__ import annotations

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from mien.core.errors import UsageError
from mien.nn.models.backbones import gains_by_bf16


def on_cpu() -> bool:
    """Whether the CPU computes: no accelerator is there, or ACCELERATE_USE_CPU is set."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def processes() -> PartialState:
    """The processes of this training; on CPUs they communicate by gloo."""
    return PartialState(cpu=on_cpu())


def compute_device() -> torch.device:
    """The device of this process: trainings, their teachers and predictions all run on it."""
    device: torch.device = processes().device
    return device


def named_device(name: str) -> torch.device:
    """The device that a user names; `auto`: the accelerator where one is there and wanted, else the processors.

    Raises `UsageError` for a device that torch cannot use here.
    """
    accelerator = None if on_cpu() else torch.accelerator.current_accelerator()
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    fits = device is not None and accelerator is not None and device.type == accelerator.type
    if device is not None and (
        device.type == "cpu" or (fits and (device.index or 0) < torch.accelerator.device_count())
    ):
        return device
    available = (
        ["cpu"]
        if accelerator is None
        else ["cpu", *(f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count()))]
    )
    raise UsageError(
        f"--device {name}: torch has no such device here.",
        rule=f"Here are: {', '.join(available)}.",
        fix="Name one of them.",
    )


def device_name(device: torch.device) -> str | None:
    """The maker's name of an accelerator, None for processors and where torch knows none."""
    ask = getattr(torch.get_device_module(device), "get_device_name", None)
    return str(ask(device)) if device.type != "cpu" and ask is not None else None


def pick_precision(choice: str, backbone: str, device: torch.device) -> str:
    """`auto` resolved: bf16 where the device computes in it and the family gains by it."""
    if choice != "auto":
        return choice
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return (
        "bf16" if gains_by_bf16(backbone) and device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "no"
    )
