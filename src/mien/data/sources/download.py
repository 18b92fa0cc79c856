"""What may be downloaded of the sources, pinned, and what to do about the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mien.core.artifacts.download import download
from mien.core.errors import UsageError, nearest
from mien.data.sources import SOURCES


@dataclass(frozen=True)
class Remote:
    """A file that its terms allow to fetch."""

    name: str
    url: str
    sha256: str
    terms: str


# The hash of FER+'s table is the one that independent readers of the repository state.
REMOTES: dict[str, tuple[Remote, ...]] = {
    "ferplus": (
        Remote(
            "fer2013new.csv",
            "https://raw.githubusercontent.com/microsoft/FERPlus/master/fer2013new.csv",
            "9206e20d62f56475939f516847d61753e4860caeac9718b560129541b776fc2c",
            "MIT",
        ),
    ),
}


def get(name: str, out: Path) -> list[str]:
    """Download a source's files into `out`; what was done, a line a file."""
    if name not in SOURCES:
        raise UsageError(f"No source {name!r}.{nearest(name, SOURCES)}", rule=f"Sources: {', '.join(SOURCES)}.")
    if name not in REMOTES:
        raise UsageError(
            f"{name} cannot be downloaded by a program.",
            rule=f"Its terms: {SOURCES[name].license}.",
            fix=f"Get it: {SOURCES[name].get}.",
        )
    lines = []
    for remote in REMOTES[name]:
        fresh = download(remote.url, out / remote.name, sha256=remote.sha256)
        lines.append(f"{out / remote.name}: {'fetched' if fresh else 'was there'}, terms: {remote.terms}")
    return lines
