"""Progress on stderr: a bar with an estimate on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of several processes of one training the first alone prints (torchrun and accelerate set RANK).
FIRST = os.environ.get("RANK", "0") == "0"
console = Console(stderr=True, highlight=False, quiet=not FIRST)
_PLAIN_EVERY_S = 20.0


class _Pace(ProgressColumn):
    """Units a second, of what this process did itself."""

    def render(self, task: Task) -> Text:
        pace = task.finished_speed or task.speed
        return Text(f"{pace:,.0f}/s" if pace else "", style="progress.data.speed")


class Meter:
    """Counts towards a total and shows the pace and the time left."""

    def __init__(self, progress: Progress | None, task: TaskID | None, title: str, total: int) -> None:
        self._progress, self._task, self._title, self._total = progress, task, title, total
        self._done, self._start, self._printed = 0, time.monotonic(), time.monotonic()
        self._first = 0

    def skip(self, n: int) -> None:
        """Count `n` as done before this process began (they do not enter the estimate)."""
        self._first += n
        self.advance(n)

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more; `note` is shown behind the figures."""
        self._done += n
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=n, note=note)
        elif time.monotonic() - self._printed >= _PLAIN_EVERY_S:
            self._printed = time.monotonic()
            pace = (self._done - self._first) / max(1e-9, self._printed - self._start)
            seconds = (self._total - self._done) / pace if pace > 0 else 0.0
            say(f"{self._title}: {self._done}/{self._total}, {pace:,.0f}/s, {seconds:.0f} s left {note}".rstrip())


@contextmanager
def meter(title: str, total: int) -> Iterator[Meter]:
    """A progress meter for `total` units."""
    if not console.is_terminal:
        yield Meter(None, None, title, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Pace(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Meter(progress, progress.add_task(title, total=total, note=""), title, total)


@contextmanager
def quiet() -> Iterator[None]:
    """Print nothing within it."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


def confirm(question: str) -> bool:
    """Whether a person at the terminal answers yes; False where nobody can be asked."""
    if not (console.is_terminal and sys.stdin.isatty()):
        return False
    try:
        return console.input(f"{question} [y/N] ", markup=False).strip().lower() in {"y", "yes"}
    except EOFError:
        return False


def say(text: str) -> None:
    """One line on stderr."""
    console.print(text, markup=False, soft_wrap=True)
    sys.stderr.flush()


def warn(text: str) -> None:
    """One warning line on stderr."""
    console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)
