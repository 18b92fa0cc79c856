"""Weights that others trained: from timm's names, or a local safetensors file; with their terms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mien.core.artifacts import base
from mien.core.artifacts.checkpoint import load_weights
from mien.core.artifacts.run import WEIGHTS, StartedFrom, read_run, run_of
from mien.core.config.base import expand
from mien.core.config.train_groups import ALIASES, OURS, NetworkSettings
from mien.core.errors import InputError, UsageError
from mien.nn.torchvision_cure import PretrainedConfig, import_timm

UNKNOWN = "unknown (state it with --pretrained-license)"


@dataclass(frozen=True)
class Start:
    """Weights of a backbone to start from.

    `state` is in timm's form for the unchanged architecture, or, if `is_run`, for our final backbone
    (with its stem and attention). `mean` and `std` (3,), of images in [0, 1], are what they were
    trained with; None: ours.
    """

    state: dict[str, Tensor]
    origin: StartedFrom
    is_run: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def where(self) -> str:
        """How errors name them."""
        return f"--pretrained {self.origin['from']}"


def load_pretrained(config: NetworkSettings) -> Start | None:
    """The weights that `--pretrained` names; None for `none`."""
    if config.pretrained == "none":
        return None
    return _from_timm(config.backbone) if config.pretrained == "timm" else _from_file(config)


def _timm_config(name: str) -> PretrainedConfig | None:
    return None if name in OURS else import_timm().get_pretrained_cfg(ALIASES.get(name, name), allow_unregistered=True)


def _from_timm(name: str) -> Start:
    if name in OURS:
        raise UsageError(
            f"--pretrained timm with {name}.",
            rule="timm has no weights of it.",
            fix="Name a file, or train from scratch.",
        )
    timm_name, timm_config = ALIASES.get(name, name), _timm_config(name)
    if timm_config is None or not timm_config.has_weights:
        raise UsageError(f"timm names no pretrained weights for {name}.", fix="Name a file with --pretrained FILE.")
    try:
        network = import_timm().create_model(timm_name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"The weights of {timm_name} cannot be fetched: {str(error).splitlines()[0][:200]}",
            rule="--pretrained timm downloads from the place that timm names.",
            fix="Fetch its model.safetensors where there is a network, and name the file with --pretrained FILE.",
        ) from None
    origin: StartedFrom = {
        "from": f"timm {timm_config.architecture}.{timm_config.tag}",
        "license": timm_config.license or UNKNOWN,
    }
    return Start(network.state_dict(), origin, mean=timm_config.mean, std=timm_config.std)


def _from_file(config: NetworkSettings) -> Start:
    """A file of timm's, or a run of ours or its weights, of which the backbone is taken."""
    path = Path(expand(config.pretrained))
    if path.is_dir():
        path = read_run(path).folder / WEIGHTS
    if path.suffix != ".safetensors" or not path.is_file():
        raise UsageError(
            f"--pretrained {path}: " + ("no such file." if not path.is_file() else "not a .safetensors file."),
            rule=(
                "none, timm, a run, or a safetensors file; pickled weights (.pth, .bin) can run code and are not read."
            ),
            fix=(
                "Convert them: safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'weights.safetensors')."
            ),
        )
    state, run = load_weights(path), run_of(path)
    terms = config.pretrained_license or ("; ".join(run.terms) if run is not None else UNKNOWN)
    origin: StartedFrom = {
        "from": path.name if run is None else f"run {run.name}",
        "sha256": base.sha256_file(path),
        "license": terms,
    }
    backbone = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    if backbone:
        return Start(backbone, origin, is_run=True)
    timm_config = _timm_config(config.backbone)
    return (
        Start(state, origin)
        if timm_config is None
        else Start(state, origin, mean=timm_config.mean, std=timm_config.std)
    )


def check_fit(state: dict[str, Tensor], expected: dict[str, Tensor], where: str, name: str, *, strict: bool) -> None:
    """Raise unless `state` has every tensor of `expected`, and (`strict`) in its size and no other.

    Without `strict` timm's own filters may still resample positions, patches and relative positions.
    """
    missing = [key for key in expected if key not in state]
    if missing:
        raise InputError(
            f"{where} lacks {len(missing)} of the {len(expected)} tensors of {name}, e.g. {missing[0]!r}.",
            rule="Weights must be of the same architecture, with timm's names"
            + (", and of the same stem and attention." if strict else "."),
            fix="Give the flags that the file was made with: --backbone"
            + (", --stem, --attention." if strict else "."),
        )
    more = [key for key in state if key not in expected] if strict else []
    if more:
        raise InputError(
            f"{where} has tensors that {name} lacks here, e.g. {more[0]!r}.",
            rule="A run of ours is taken up with its stem and attention.",
            fix="Give the flags that it was made with: --backbone, --stem, --attention.",
        )
    for key, parameter in expected.items():
        flexible = not strict and any(part in key for part in ("pos_embed", "patch_embed.proj", "relative_position"))
        if state[key].shape != parameter.shape and not flexible:
            raise InputError(
                f"{where}: {key!r} has size {tuple(state[key].shape)}, {name} needs {tuple(parameter.shape)}.",
                rule="Weights must be of the same architecture.",
                fix="Give the flags that the file was made with: --backbone"
                + (", --stem, --attention, --patch-size." if strict else "."),
            )
