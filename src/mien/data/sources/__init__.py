"""Where images come from: one file a source, one registry."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mien.core.config.base import expand
from mien.core.errors import InputError, UsageError, nearest
from mien.data.sources.affectnet import AffectNet
from mien.data.sources.base import Item, NamedSource, Source
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

_ALIAS = re.compile(r"[A-Za-z0-9_-]+")

__all__ = ["SOURCES", "Item", "Source", "open_source", "open_sources"]


def open_source(text: str, *, seed: int, size: int, drop: frozenset[str] = frozenset()) -> Source:
    """Open `NAME=WHERE` or `NAME@ALIAS=WHERE`; `${VARIABLE}` in WHERE is taken from the environment.

    Labels in `drop` (lower case) are no class: rows that sources of free names give them are dropped and counted.
    """
    head, equals, where = text.partition("=")
    name, separator, alias = head.partition("@")
    if not equals or not where.strip():
        raise UsageError(f"Source {text!r} names no place.", rule="A source is NAME=WHERE, e.g. folder=images/.")
    if name not in SOURCES:
        raise UsageError(f"No source {name!r}.{nearest(name, SOURCES)}", rule=f"Sources: {', '.join(SOURCES)}.")
    if separator and (not _ALIAS.fullmatch(alias) or alias in SOURCES):
        raise UsageError(
            f"Source {text!r}: {alias!r} cannot be an alias.",
            rule="Letters, digits, _ and -, and no source's own name.",
        )
    kind = SOURCES[name]
    if issubclass(kind, NamedSource):
        source: Source = kind(expand(where), seed=seed, size=size, drop=drop)
    else:
        source = kind(expand(where), seed=seed, size=size)
    source.alias = alias or name
    if not len(source):
        raise InputError(f"{text} has no rows.", rule="A source names images; this one's table is empty.")
    return source


def open_sources(texts: Sequence[str], *, seed: int, size: int, drop: frozenset[str] = frozenset()) -> list[Source]:
    """Open several; each has a name of its own in the index."""
    names = [text.partition("=")[0].partition("@")[2] or text.partition("=")[0] for text in texts]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"Two sources are called {name!r}.",
                rule="Each needs a name of its own, by which its rows are known.",
                fix=f"Tell them apart: --source {name.partition('@')[0]}@a=… --source {name.partition('@')[0]}@b=…",
            )
    return [open_source(text, seed=seed, size=size, drop=drop) for text in texts]
