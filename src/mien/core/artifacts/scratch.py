"""Pieces of work that an interrupted build keeps and reuses.

A piece is one Arrow IPC file, written beside its place and renamed; its name carries the hash of its
bytes, so that an incomplete one is recognised and made again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pyarrow as pa

from mien.core.errors import ArtifactError


class Scratch:
    """Numbered pieces in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for torn in folder.glob("*.tmp"):
            torn.unlink()
        self._pieces = {path.name.split(".")[0]: path for path in sorted(folder.glob("*.arrow"))}

    def has(self, name: str) -> bool:
        """Whether a piece of this name lies here (not yet verified)."""
        return name in self._pieces

    def put(self, name: str, payload: bytes | memoryview) -> None:
        """Write a piece."""
        digest = hashlib.sha256(payload).hexdigest()[:16]
        path = self.folder / f"{name}.{digest}.arrow"
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            file.write(payload)
        temporary.replace(path)
        self._pieces[name] = path

    def verified(self, name: str) -> bool:
        """Whether the piece is there and whole; a broken one is removed."""
        path = self._pieces.get(name)
        if path is None:
            return False
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest()[:16] == path.name.split(".")[1]
        if not whole:
            path.unlink()
            del self._pieces[name]
        return whole

    def fingerprint(self, name: str) -> str:
        """What the piece was made from, as its maker wrote it."""
        return str((self.open(name).schema.metadata or {}).get(b"stamp", b"").decode())

    def open(self, name: str) -> pa.Table:
        """A piece, memory-mapped."""
        if name not in self._pieces:
            raise ArtifactError(
                f"Piece {name} of the build is missing from {self.folder}.", fix="Run the command again."
            )
        with pa.memory_map(str(self._pieces[name])) as source:
            return pa.ipc.open_file(source).read_all()
