"""Recipes: the default settings of each family of backbones, and how they join with a user's."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TypeVar

from mien.core.artifacts import base
from mien.core.config.base import Origins, expand, read_toml
from mien.core.config.train import OF_THE_RUN, TrainConfig
from mien.core.config.train_groups import ALIASES
from mien.core.errors import ConfigError, UsageError

C = TypeVar("C", bound=TrainConfig)
START = ("scratch", "finetune", "polish")


def recipe(backbone: str, start: str = "scratch") -> dict[str, object]:
    """The settings that `recipes/` gives this backbone's family, empty where none fits.

    `start` is `scratch` (random weights), `finetune` (pretrained elsewhere) or `polish` (a finished
    run of ours). A family without a recipe of its own takes the one for `any`.
    """
    timm_name = ALIASES.get(backbone, backbone)
    fallback: dict[str, object] = {}
    for entry in sorted(resources.files("mien.recipes").iterdir(), key=lambda item: item.name):
        if not entry.name.endswith(".toml"):
            continue
        with resources.as_file(entry) as path:
            data = read_toml(path)
        if data["start"] != start:
            continue
        if data["family"] == ["any"]:
            fallback = dict(data["settings"])
        elif any(timm_name.startswith(prefix) for prefix in data["family"]):
            return dict(data["settings"])
    return fallback


TRANSFORMERS = ("vit", "deit", "beit", "eva", "swin", "cait", "xcit")


def is_transformer(backbone: str) -> bool:
    """Whether a backbone's name is that of a vision transformer."""
    return ALIASES.get(backbone, backbone).startswith(TRANSFORMERS)


def resolve(model: type[C], *layers: tuple[str, Mapping[str, object]]) -> tuple[C, Origins]:
    """Join layers (built-in < recipe < study < flag) into a config and each value's origin.

    The recipe follows the backbone that the layers name, and what its training starts from. A
    polish stands on the settings of the run that it starts from (run < recipe). Returns the config
    and `{key: {"value": …, "from": …}}`.
    """
    settings: dict[str, object] = {key: value for _, layer in layers for key, value in layer.items()}
    earlier = _polished(settings.get("init_from"))
    backbone = settings.get("backbone", earlier.get("backbone", model.model_fields["backbone"].default))
    start = (
        "polish"
        if settings.get("init_from")
        else "finetune"
        if settings.get("pretrained", "none") != "none"
        else "scratch"
    )
    below = [("run", earlier), ("recipe", recipe(str(backbone), start))]
    stack = [*((name, {k: v for k, v in layer.items() if k in model.model_fields}) for name, layer in below), *layers]
    values: dict[str, object] = {}
    origin: dict[str, str] = {}
    for name, layer in stack:
        values.update(layer)
        origin.update(dict.fromkeys(layer, name))
    where = " and ".join(name for name, layer in stack if layer) or "defaults"
    config = model.parse(values, where=where)
    if wrong := config.contradictions():
        raise ConfigError(f"{where}: " + "; ".join(wrong))
    dumped = config.model_dump(mode="json")
    return config, {key: {"value": dumped[key], "from": origin.get(key, "built-in")} for key in dumped}


def _polished(run: object) -> dict[str, object]:
    """The settings of a finished run that a polish keeps; none while it is not there yet."""
    path = None if run is None else Path(expand(str(run))) / "config.json"
    if path is None or not path.is_file():
        return {}
    settings = base.read_json(path, kind="run configuration").get("settings")
    if settings is None:
        raise UsageError(
            f"--init-from {run} is no training: its config.json has no settings.",
            rule="A polish starts from the weights of a run; imported predictions have none.",
            fix="Name a run that `mien train` or `mien distill` left.",
        )
    return {key: entry["value"] for key, entry in settings.items() if key not in OF_THE_RUN}
