"""Weights that others trained: from timm's names, or a local safetensors file; with their terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from mien.core.artifacts import base
from mien.core.artifacts.checkpoint import load_weights
from mien.core.config.base import expand
from mien.core.config.train import ALIASES, OURS
from mien.core.errors import InputError, UsageError
from mien.nn.torchvision_cure import import_timm

UNKNOWN = "unknown (state it with --pretrained-license)"


def load_pretrained(settings: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The state that `--pretrained` names, in timm's form, and where it comes from; None for `none`."""
    choice, name = settings["pretrained"], settings["backbone"]
    if choice == "none":
        return None
    return _from_timm(name) if choice == "timm" else _from_file(Path(expand(choice)), settings)


def _from_timm(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if name in OURS:
        raise UsageError(
            f"--pretrained timm with {name}.",
            rule="timm has no weights of it.",
            fix="Name a file, or train from scratch.",
        )
    timm: Any = import_timm()
    timm_name = ALIASES.get(name, name)
    known = timm.get_pretrained_cfg(timm_name, allow_unregistered=True)
    if known is None or not known.has_weights:
        raise UsageError(f"timm names no pretrained weights for {name}.", fix="Name a file with --pretrained FILE.")
    try:
        network = timm.create_model(timm_name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"The weights of {timm_name} cannot be fetched: {str(error).splitlines()[0][:200]}",
            rule="--pretrained timm downloads from the place that timm names.",
            fix="Fetch its model.safetensors where there is a network, and name the file with --pretrained FILE.",
        ) from None
    origin = {
        "from": f"timm/{known.architecture}.{known.tag}" if known.tag else f"timm/{timm_name}",
        "license": known.license or UNKNOWN,
    }
    return network.state_dict(), origin


def _from_file(path: Path, settings: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A file of timm's, or of a run of ours (its backbone is taken)."""
    if path.suffix != ".safetensors" or not path.is_file():
        raise UsageError(
            f"--pretrained {path}: " + ("no such file." if not path.is_file() else "not a .safetensors file."),
            rule="none, timm, or a safetensors file; pickled weights (.pth, .bin) can run code and are not read.",
            fix="Convert them: safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'weights.safetensors').",
        )
    state = load_weights(path)
    ours = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    return ours or state, {
        "from": path.name, "sha256": base.sha256_file(path), "license": settings["pretrained_license"] or UNKNOWN,
    }  # fmt: skip


def check_fit(state: dict[str, Tensor], expected: dict[str, Tensor], where: str, name: str) -> None:
    """Raise unless `state` has every tensor of `expected` in its size; positions and patches may be resampled."""
    missing = [key for key in expected if key not in state]
    if missing:
        raise InputError(
            f"{where} lacks {len(missing)} of the {len(expected)} tensors of {name}, e.g. {missing[0]!r}.",
            rule="Weights must be of the same architecture, with timm's names.",
            fix="Name the backbone that the file was made for with --backbone.",
        )
    flexible = ("pos_embed", "patch_embed.proj.weight")
    for key, like in expected.items():
        if state[key].shape != like.shape and not key.endswith(flexible):
            raise InputError(
                f"{where}: {key!r} has size {tuple(state[key].shape)}, {name} needs {tuple(like.shape)}.",
                rule="Weights must be of the same architecture.",
                fix="Name the backbone that the file was made for with --backbone.",
            )
