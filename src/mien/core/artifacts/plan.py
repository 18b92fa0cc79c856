"""What a stage would do, asked of the stage itself and without doing it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Literal

from mien.core.artifacts import base
from mien.core.progress import quiet, say

State = Literal["there", "goes on", "to be made", "made again"]
_asking: ContextVar[bool] = ContextVar("asking", default=False)


class _WouldMake(Exception):
    """Raised to leave a stage that was only asked what it would do."""

    def __init__(self, state: State) -> None:
        self.state = state


def about_to_make(product: Path, fingerprint: str | None = None) -> None:
    """Called by a stage that did not find its artefact complete, before it computes, writes or removes anything.

    It returns at once, unless the stage was only asked. `fingerprint` is that of a folder in which an unfinished
    artefact may go on.
    """
    if _asking.get():
        raise _WouldMake("goes on" if fingerprint and base.is_begun(product, fingerprint) else unmade(product))


def is_made(folder: Path, fingerprint: str, *, holds: str) -> bool:
    """Whether a stage's folder is finished, which is then said ("FOLDER HOLDS."); else it is about to be made.

    Every stage that fills a folder begins with this; then it may remove a folder of other settings (`base.make_way`),
    and claims it before it writes (`base.claim`).
    """
    if base.is_complete(folder, fingerprint):
        say(f"{folder} {holds}.")
        return True
    about_to_make(folder, fingerprint)
    return False


def unmade(product: Path) -> State:
    """What happens to an artefact, a file or a folder, that is not as it is to be."""
    present = base.occupied(product) if product.is_dir() else product.is_file()
    return "made again" if present else "to be made"


def ask(stage: Callable[[], object]) -> State:
    """What `stage` would do; what it needs must be there."""
    token = _asking.set(True)
    try:
        with quiet():
            stage()
    except _WouldMake as found:
        return found.state
    finally:
        _asking.reset(token)
    return "there"
