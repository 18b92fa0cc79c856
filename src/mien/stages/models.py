"""What ships with the package and what may be fetched: listed, verified, fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from mien.core.artifacts import models as store


class Checked(TypedDict):
    """A shipped model that is as it should be."""

    name: str
    file: str
    bytes: int


def listing() -> dict[str, Any]:
    """The catalogue as plain values; each download says whether it was fetched already."""
    catalogue = store.read_catalogue()
    document: dict[str, Any] = catalogue.model_dump(mode="json")
    for entry in document["downloads"]:
        entry["fetched"] = (store.downloads_folder() / entry["file"]).is_file()
    return document


def verify() -> list[Checked]:
    """Check every shipped model against its sha256, open it and classify an empty crop.

    Returns a row a model: name, file, bytes. Raises `ArtifactError` for the first that is damaged.
    """
    import numpy as np  # noqa: PLC0415  (listing needs neither)

    from mien.runtime.recognizer import open_session  # noqa: PLC0415

    rows: list[Checked] = []
    for entry in store.read_catalogue().models:
        path = store.shipped_file(entry.name)
        session, card = open_session(path, threads=1)
        session.run(None, {"crops": np.zeros((1, card.crop.size, card.crop.size, 3), np.uint8)})
        rows.append({"name": entry.name, "file": str(path), "bytes": path.stat().st_size})
    return rows


def get(name: str) -> tuple[Path, bool]:
    """Fetch a pinned file; returns its path and whether it was fetched now."""
    return store.fetch(name)
