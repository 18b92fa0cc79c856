"""The models that ship inside the package, and files that may be fetched for it; both pinned by their sha256.

`mien/models/models.json` names them. A shipped file is verified each time it is opened: it is small, and a damaged
model answers without an error.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mien.core.artifacts import base
from mien.core.artifacts.download import download
from mien.core.errors import ArtifactError, UsageError, nearest

PACKAGE, CATALOGUE = "mien.models", "models.json"
_MODEL = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CardFigure(BaseModel):
    """A figure of a model's card, its interval, and the images that it is of."""

    model_config = _MODEL

    value: float
    ci95: tuple[float, float]
    on: str


class ShippedModel(BaseModel):
    """A model file in the package; `figures` are those of its card, by name."""

    model_config = _MODEL

    name: str
    version: str = Field(description="the model's own version, apart from the package's")
    file: str
    sha256: str
    bytes: int
    precision: str = Field(description="of the stored weights: fp32, fp16 or int8")
    backbone: str
    parameters: int
    input_size: int = Field(description="side of the square face crops, pixels")
    data: list[str] = Field(description="sources of the images and labels it learned from")
    terms: list[str] = Field(description="terms of these sources and of the weights that training started from")
    figures: dict[str, CardFigure]
    command: str = Field(description="the command that made it")


class Download(BaseModel):
    """A file that its terms allow to fetch, which is in no package."""

    model_config = _MODEL

    name: str
    file: str
    url: str
    sha256: str
    bytes: int
    terms: str
    purpose: str


class Catalogue(BaseModel):
    """What `models.json` holds; `default` is the model that is used when none is named."""

    model_config = _MODEL

    default: str | None
    models: list[ShippedModel]
    downloads: list[Download]


@cache
def read_catalogue() -> Catalogue:
    """The catalogue of the package.

    Raises
    ------
    ArtifactError
        when the installation's `models.json` is missing or damaged
    """
    fix = "Install mien again."
    try:
        text = (resources.files(PACKAGE) / CATALOGUE).read_text(encoding="utf-8")
        return Catalogue.model_validate_json(text)
    except (OSError, ModuleNotFoundError, ValidationError) as error:
        raise ArtifactError(f"{CATALOGUE} of this installation cannot be read: {error}.", fix=fix) from None


def shipped_file(name: str | None = None) -> Path:
    """The verified file of a shipped model, by default of the catalogue's default.

    Raises
    ------
    UsageError
        for a name that the catalogue does not have, or when no model ships
    ArtifactError
        when the file is missing or its sha256 is another one
    """
    catalogue = read_catalogue()
    name = catalogue.default if name is None else name
    if name is None:
        raise UsageError("No model was named, and none ships with this version.", fix="Name one: --model model.onnx.")
    entry = next((model for model in catalogue.models if model.name == name), None)
    if entry is None:
        names = [model.name for model in catalogue.models]
        raise UsageError(
            f"No model {name!r}.{nearest(name, names)}",
            rule=f"A model is a file (.onnx) or one that ships: {', '.join(names) or 'none in this version'}.",
        )
    path = Path(str(resources.files(PACKAGE) / entry.file))
    verify(path, entry.sha256)
    return path


def verify(path: Path, sha256: str) -> None:
    """Raise `ArtifactError` unless the file is there and has this sha256."""
    if not path.is_file():
        raise ArtifactError(f"{path} is missing from this installation.", fix="Install mien again.")
    digest = base.sha256_file(path)
    if digest != sha256:
        raise ArtifactError(
            f"{path} has sha256 {digest[:16]}…, not {sha256[:16]}…: it was damaged or altered.",
            fix="Install mien again.",
        )


def downloads_folder() -> Path:
    """Where fetched files are kept: `MIEN_CACHE` (by default `~/.cache/mien`), below `models`."""
    return Path(os.environ.get("MIEN_CACHE", Path.home() / ".cache" / "mien")) / "models"


def downloaded_file(name: str) -> Path | None:
    """A fetched file, verified; None where it was not fetched."""
    entry = _download(name)
    path = downloads_folder() / entry.file
    if not path.is_file():
        return None
    verify(path, entry.sha256)
    return path


def fetch(name: str) -> tuple[Path, bool]:
    """Fetch a file of the catalogue; returns its path and whether it was fetched now.

    Raises
    ------
    UsageError
        for an unknown name
    InputError
        when the place does not answer or gives another file
    """
    entry = _download(name)
    path = downloads_folder() / entry.file
    return path, download(entry.url, path, sha256=entry.sha256)


def _download(name: str) -> Download:
    downloads = {entry.name: entry for entry in read_catalogue().downloads}
    if name not in downloads:
        raise UsageError(f"No download {name!r}.{nearest(name, downloads)}", rule=f"Downloads: {', '.join(downloads)}.")
    return downloads[name]
