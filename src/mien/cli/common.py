"""What the commands share: types of arguments, and how a result is printed."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated

import pydantic
from cyclopts import Parameter
from cyclopts.validators import Number

from mien.core.progress import FIRST

Flat = Parameter(name="*")
Json = Annotated[bool, Parameter(name="--json", negative="", help="print one JSON object on stdout and nothing else")]
Out = Annotated[Path, Parameter(name=["--out", "-o"])]
Replace = Annotated[
    bool,
    Parameter(negative="", help="remove trainings of other settings or images that stand in the way, without asking"),
]
Jobs = Annotated[
    int,
    Parameter(
        name=["--jobs", "-j"],
        validator=Number(gte=1),
        help=(
            "trainings at a time, each in a process of its own: for a large GPU, or many cores; "
            "what they say is in OUT/logs"
        ),
    ),
]
Model = Annotated[Path | None, Parameter(name=["--model", "-m"])]


def show(value: object, *, json: bool, text: str) -> None:
    """Print a result: one JSON object with `--json`, else a text for people; the first process alone speaks."""
    if not FIRST:
        return
    if json:
        sys.stdout.write(jsonlib.dumps(value, indent=2, allow_nan=False) + "\n")
    elif text:
        sys.stdout.write(text + "\n")


def given(config: pydantic.BaseModel | None) -> dict[str, object]:
    """The flags that were really given."""
    return {} if config is None else config.model_dump(include=config.model_fields_set)
