"""Sources to an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mien.core.artifacts import base
from mien.core.artifacts.index import KIND, VERSION, Index, read_audit, read_index, write_index
from mien.core.config.index import IndexConfig
from mien.core.errors import UsageError
from mien.core.progress import say
from mien.data.build import build
from mien.data.sources import open_source


def run(config: IndexConfig, out: Path, *, replace: bool = False) -> Index:
    """Build the index at `out`, or return it when it is there already, made of the same.

    It is built beside its place and renamed when complete: a kill leaves no half-made index. With
    `replace` an older index of other settings at `out` makes way (a study owns its folders).
    """
    if not config.source:
        raise UsageError(
            "No source given.", fix="Name at least one: --source synthetic=7000 or --source fer2013=…/fer2013.csv."
        )
    sources = [open_source(text, seed=config.seed, size=config.size) for text in config.source]
    mark = base.fingerprint(
        KIND, VERSION, config.model_dump(mode="json", exclude={"source"}),
        {f"{i}:{source.name}": source.content_hash() for i, source in enumerate(sources)},
    )  # fmt: skip
    if base.is_complete(out, mark):
        say(f"{out} holds this index already.")
        return read_index(out)
    if replace:
        base.make_way(out, mark)
    base.claimable(out, kind=KIND, fingerprint=mark)
    building = out.with_name(f".{out.name}.building")
    base.remove_folder(building)
    try:
        building.mkdir(parents=True)
        write_index(building, build(config, sources, building), fingerprint=mark)
        if out.is_dir():
            out.rmdir()
        building.rename(out)
    finally:
        if building.exists():
            base.remove_folder(building)
    return read_index(out)


def audit(folder: Path) -> dict[str, Any]:
    """The audit of a complete index."""
    return read_audit(folder)
