"""Shipped models and pinned downloads: listed, verified, fetched."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from pydantic import BaseModel

from mien.core.artifacts import models as store


class ListedDownload(store.Download):
    """A file that may be fetched, and whether it was."""

    fetched: bool


class Listing(BaseModel):
    """The catalogue, as `mien models` prints it."""

    default: str | None
    models: list[store.ShippedModel]
    downloads: list[ListedDownload]


class Verified(TypedDict):
    """A shipped model that is whole."""

    name: str
    file: str
    bytes: int


def listing() -> Listing:
    """The catalogue; each download says whether it was fetched already."""
    catalogue, folder = store.read_catalogue(), store.downloads_folder()
    downloads = [
        ListedDownload(**vars(download), fetched=(folder / download.file).is_file()) for download in catalogue.downloads
    ]
    return Listing(default=catalogue.default, models=catalogue.models, downloads=downloads)


def verify() -> list[Verified]:
    """Check every shipped model against its sha256, open it and classify an empty crop.

    Raises `ArtifactError` for the first that is damaged.
    """
    import numpy as np  # noqa: PLC0415  (listing needs neither)

    from mien.runtime.recognizer import open_session  # noqa: PLC0415

    rows: list[Verified] = []
    for entry in store.read_catalogue().models:
        path = store.shipped_file(entry.name)
        session, card = open_session(path, threads=1)
        session.run(None, {"crops": np.zeros((1, card.crop.size, card.crop.size, 3), np.uint8)})
        rows.append({"name": entry.name, "file": str(path), "bytes": path.stat().st_size})
    return rows


def get(name: str) -> tuple[Path, bool]:
    """Fetch a pinned file; returns its path and whether it was fetched now."""
    return store.fetch(name)
