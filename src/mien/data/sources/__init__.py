"""Where pictures come from: one file a source, one registry."""

from __future__ import annotations

from mien.core.config.study import expand
from mien.core.errors import UsageError, nearest
from mien.data.sources.affectnet import AffectNet
from mien.data.sources.base import Item, Source
from mien.data.sources.expw import ExpW
from mien.data.sources.fer2013 import Fer2013
from mien.data.sources.ferplus import FerPlus
from mien.data.sources.folder import Folder
from mien.data.sources.huggingface import HuggingFace
from mien.data.sources.rafdb import RafDb
from mien.data.sources.synthetic import Synthetic
from mien.data.sources.table import Table

SOURCES: dict[str, type[Source]] = {
    cls.name: cls for cls in (Fer2013, FerPlus, RafDb, AffectNet, ExpW, Folder, Table, HuggingFace, Synthetic)
}

__all__ = ["SOURCES", "Item", "Source", "open_source"]


def open_source(text: str, *, seed: int, size: int) -> Source:
    """Open `NAME=WHERE`; `${VARIABLE}` in WHERE is taken from the environment."""
    name, equals, where = text.partition("=")
    if not equals or not where.strip():
        raise UsageError(f"Source {text!r} names no place.", rule="A source is NAME=WHERE, e.g. folder=pictures/.")
    if name not in SOURCES:
        raise UsageError(f"No source {name!r}.{nearest(name, SOURCES)}", rule=f"Sources: {', '.join(SOURCES)}.")
    return SOURCES[name](expand(where), seed=seed, size=size)
