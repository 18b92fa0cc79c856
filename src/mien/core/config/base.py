"""Frozen configuration models, their errors, and where each value came from."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypedDict, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from mien.core.errors import ConfigError, UsageError, nearest

SettingOrigin = TypedDict("SettingOrigin", {"value": object, "from": str})
"""A setting's value and where it came from: built-in, recipe, study, flag …"""
Origins = dict[str, SettingOrigin]
"""All settings of a stage by name."""


class StageConfig(BaseModel):
    """Base of all stage configurations: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def parse(cls, values: Mapping[str, object], *, where: str) -> Self:
        """Build from `values`; one `ConfigError` lists every fault, `where` names the place."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(describe(error, cls, where)) from None


def field_names(model: type[BaseModel]) -> list[str]:
    """Names of all fields of `model`, of its nested models too."""
    names = []
    for name, info in model.model_fields.items():
        names.append(name)
        for inner in (info.annotation, *get_args(info.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                names += field_names(inner)
    return names


def describe(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """All faults of a validation error in words, each unknown key with its nearest name."""
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"]) or "(whole)"
        if fault["type"] == "extra_forbidden":
            hint = nearest(str(fault["loc"][-1]), field_names(model))
            lines.append(f"unknown key '{key}'.{hint}")
        elif fault["type"] == "missing":
            lines.append(f"key '{key}' is missing")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            whole = not fault["loc"]  # values that do not fit together, of which the message says enough
            place = f"'{key}': " if fault["loc"] else ""
            lines.append(f"{place}{message}" + ("" if whole else f" (got {fault['input']!r})"))
    return f"{where}: " + "; ".join(lines)


def describe_flags(error: ValidationError) -> str:
    """All faults of values that were given as flags."""
    faults = ("--" + ".".join(str(part) for part in f["loc"]).replace("_", "-") for f in error.errors())
    messages = (f["msg"].removeprefix("Value error, ") + f" (got {f['input']!r})" for f in error.errors())
    return "; ".join(f"{flag}: {text}" if flag != "--" else text for flag, text in zip(faults, messages, strict=True))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; a missing or malformed file is a `UsageError`."""
    if not path.is_file():
        raise UsageError(f"No file {path}.", rule="A TOML file is needed here.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None


def expand(text: str) -> str:
    """Expand `${NAME}` from the environment; an unset name is an error that says what to set."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise UsageError(
                f"{text!r} needs the environment variable {name}, which is not set.",
                fix=f"Set it to the folder that holds the data, e.g. `export {name}=/path/to/data`.",
            )
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", value, text)
