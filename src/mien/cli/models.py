"""`mien models`: what ships with the package, and pinned downloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclopts import App

from mien.cli.common import Json, show

if TYPE_CHECKING:
    from mien.stages.models import Listing

models_app = App(name="models", help="The models that ship with mien, their terms and hashes; pinned downloads.")


@models_app.default
def models(*, json: Json = False) -> None:
    """List the models that ship, with their figures and terms, and what may be fetched."""
    from mien.stages import models as stage

    listing = stage.listing()
    show(listing.model_dump(mode="json"), json=json, text="\n".join([*_models(listing), *_downloads(listing)]))


def _models(listing: Listing) -> list[str]:
    lines = []
    for model in listing.models:
        mark = " (default)" if model.name == listing.default else ""
        lines.append(f"{model.name} {model.version}{mark}: {model.precision}, {model.bytes / 1e6:.1f} MB")
        lines += [f"  learned from: {'; '.join(model.data)}", f"  terms: {'; '.join(model.terms)}"]
        for name, figure in model.figures.items():
            low, high = figure.ci95
            lines.append(f"  {name}: {figure.value:.3f} [{low:.3f}, {high:.3f}] on {figure.on}")
    return lines or ["No model ships with this version."]


def _downloads(listing: Listing) -> list[str]:
    lines = ["", "To be fetched (mien models get NAME):"]
    for entry in listing.downloads:
        state = "fetched" if entry.fetched else f"{entry.bytes / 1e6:.1f} MB"
        lines.append(f"  {entry.name}: {entry.purpose}; {state}; terms: {entry.terms}")
    return lines


@models_app.command
def verify(*, json: Json = False) -> None:
    """Check every shipped model against its hash, and open it."""
    from mien.stages import models as stage

    rows = stage.verify()
    text = "\n".join(f"{row['name']}: {row['bytes']:,} bytes, hash matches, opens" for row in rows)
    show({"models": rows}, json=json, text=text or "No model ships with this version.")


@models_app.command
def get(name: str, *, json: Json = False) -> None:
    """Fetch a pinned file, e.g. the detector yunet.

    Parameters
    ----------
    name
        a name from the list of downloads
    """
    from mien.stages import models as stage

    path, fresh = stage.get(name)
    show({"file": str(path), "fetched": fresh}, json=json, text=f"{path}: {'fetched' if fresh else 'was there'}")
