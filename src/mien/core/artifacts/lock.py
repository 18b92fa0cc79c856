"""One writer a folder: two trainings, or two studies, in one folder would remove each other's states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mien.core.errors import UsageError


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep other processes from writing in `folder`, which need not be there yet, until the block ends.

    The lock is a file beside it and goes with this process, however that ends. Where no file may be written beside
    `folder`, there is no lock. Raises `UsageError` where another process has it.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415  (comes with the extra `train`)

    path = folder.resolve()
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"Another process is writing in {folder}.",
            rule="A folder has one writer at a time.",
            fix="Wait until it is done, or stop it: the same command then goes on where it was.",
        ) from None
    except PermissionError:  # e.g. a mounted folder of a container: its parent belongs to somebody else
        yield
        return
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows keeps an open file
            Path(lock.lock_file).unlink(missing_ok=True)  # while it is held, so that no other process's is removed
        lock.release()
