"""Crash-safe files, manifests and fingerprints that all artefacts share.

A file is written beside its place, flushed, then renamed over it, and the folder is flushed: after
a kill at any moment the reader finds the old file or the new one, never a torn one. A folder is
complete when its `manifest.json` exists, which is written last. A single-file artefact carries its
fingerprint inside and is complete when it exists.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from pydantic import BaseModel, ValidationError

import mien
from mien.core.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MANIFEST = "manifest.json"
STARTED = "started.json"
_LEFT_OVER = re.compile(r"\..+\.\d+\.tmp")
Document = TypeVar("Document", bound=Mapping[str, object])
Model = TypeVar("Model", bound=BaseModel)


class FileEntry(TypedDict):
    """What a manifest says of a file."""

    sha256: str
    bytes: int


class Manifest(TypedDict):
    """`manifest.json` of a folder; kinds of artefacts add keys of their own."""

    kind: str
    format: int
    fingerprint: str
    mien: str
    git: str | None
    files: dict[str, FileEntry]


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it replaces `path`, durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def check_space(folder: Path, needed: int) -> None:
    """Raise the `OSError` of a full disk before `needed` bytes are missing, so that open files can still be closed."""
    while not folder.is_dir():
        folder = folder.parent
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows has no folder handles to flush
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text crash-safely."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes crash-safely."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: object) -> None:
    """Write JSON crash-safely; NaN and Inf are refused by raising ValueError."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, *, kind: str, fix: str = "") -> Any:
    """Read JSON; a missing or broken file is an `ArtifactError` that names the `kind` and the `fix`."""
    if not path.is_file():
        raise ArtifactError(f"No {kind} at {path}.", fix=fix)
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
        return content
    except (json.JSONDecodeError, UnicodeDecodeError, ValueError) as error:
        raise ArtifactError(f"{path} is no valid {kind}: {error}.", fix=fix) from None


@dataclass(frozen=True)
class JsonArtifact(Generic[Document]):
    """An artefact that is one JSON file: its name, what errors call it, how to make it, and the version that is read.

    The version stands in the document under `version_key`; None: the file has none.
    """

    file: str
    kind: str
    fix: str = ""
    version: int | None = None
    version_key: str = "format"

    def read(self, folder: Path) -> Document:
        """The document in `folder`; a missing or broken one, or one of another version, is an `ArtifactError`."""
        path = folder / self.file
        document: Document = read_json(path, kind=self.kind, fix=self.fix)
        if self.version is not None and document.get(self.version_key) != self.version:
            raise ArtifactError(
                f"{path} has {self.version_key} {document.get(self.version_key)}.",
                rule=f"This version reads {self.version_key} {self.version}.",
                fix=self.fix,
            )
        return document

    def find(self, folder: Path) -> Document | None:
        """The document in `folder`, None where there is no file."""
        return self.read(folder) if (folder / self.file).is_file() else None

    def write(self, folder: Path, document: Document) -> None:
        """Write crash-safely."""
        write_json(folder / self.file, document)


def read_model(path: Path, model: type[Model], *, kind: str, fix: str = "") -> Model:
    """Read a JSON file as a pydantic model; anything else is an `ArtifactError`."""
    document = read_json(path, kind=kind, fix=fix)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise ArtifactError(f"{path} is no {kind} ({error.error_count()} faults).", fix=fix) from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not allowed")


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(value: object) -> str:
    """A JSON text that is the same for equal values, whatever the order of keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)


def fingerprint(kind: str, version: int, config: Mapping[str, object], inputs: Mapping[str, object]) -> str:
    """Hash of all that decides a stage's result: its kind and format, config and inputs' hashes."""
    text = canonical({"kind": kind, "format": version, "config": config, "inputs": inputs})
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def git_revision() -> str | None:
    """The revision of the checkout that mien runs from, with `+` if changed; None outside one."""
    package = Path(mien.__file__).parent
    try:
        process = subprocess.run(
            ["git", "-C", str(package), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() or None if process.returncode == 0 else None


def write_manifest(
    folder: Path,
    *,
    kind: str,
    version: int,
    fingerprint: str,
    files: Iterable[str],
    meta: Mapping[str, object] | None = None,
    known_hashes: Mapping[str, str] | None = None,
) -> None:
    """Write `manifest.json`, last of all: it hashes `files` (relative names) and completes the folder.

    `known_hashes` are hashes that were taken while a file was written, by its name.
    """
    hashes = known_hashes or {}
    listed: dict[str, FileEntry] = {
        name: {"sha256": hashes.get(name) or sha256_file(folder / name), "bytes": (folder / name).stat().st_size}
        for name in sorted(files)
    }
    write_json(
        folder / MANIFEST,
        {
            "kind": kind,
            "format": version,
            "fingerprint": fingerprint,
            "mien": mien.__version__,
            "git": git_revision(),
            "files": listed,
            **(meta or {}),
        },
    )
    (folder / STARTED).unlink(missing_ok=True)


def read_manifest(folder: Path, *, kind: str, version: int, fix: str = "") -> Any:
    """Read a folder's manifest and check kind, format and the listed files' sizes; anything else is an `ArtifactError`.

    It is a `Manifest`, or the kind's own type of one.
    """
    if not folder.is_dir():
        raise ArtifactError(f"No folder {folder}.", rule=f"A complete {kind} is needed here.", fix=fix)
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(f"{folder} is no complete {kind}: it has no {MANIFEST}.", fix=fix)
    manifest: Manifest = read_json(folder / MANIFEST, kind=f"{kind} manifest")
    if manifest.get("kind") != kind:
        raise ArtifactError(f"{folder} holds the artefact {manifest.get('kind')!r}, not a {kind}.", fix=fix)
    if manifest.get("format") != version:
        raise ArtifactError(
            f"{folder} has format {manifest.get('format')} of a {kind}.",
            rule=f"This version reads format {version}.",
            fix="Make it again with this version.",
        )
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            raise ArtifactError(f"{path} is missing or has another size than the manifest says.", fix=fix)
    return manifest


def check_file(folder: Path, manifest: Manifest, name: str) -> str:
    """Verify a file against its manifest's hash and return the hash."""
    digest, expected = sha256_file(folder / name), manifest["files"][name]["sha256"]
    if digest != expected:
        raise ArtifactError(f"{folder / name} was altered after it was written.", fix="Make it again.")
    return digest


def is_complete(folder: Path, expected: str) -> bool:
    """Whether `folder` holds a finished artefact with this fingerprint."""
    path = folder / MANIFEST
    return path.is_file() and read_json(path, kind="manifest").get("fingerprint") == expected


def is_begun(folder: Path, expected: str) -> bool:
    """Whether `folder` holds an unfinished artefact with this fingerprint."""
    path = folder / STARTED
    return path.is_file() and read_json(path, kind="start marker").get("fingerprint") == expected


def occupied(folder: Path) -> bool:
    """Whether a folder holds anything but what a killed write of ours left behind."""
    return any(not _LEFT_OVER.fullmatch(path.name) for path in folder.iterdir())


def claimable(folder: Path, *, kind: str, fingerprint: str) -> bool:
    """Whether `folder` holds this artefact unfinished; False when it is free.

    A folder with anything else in it is refused, so that nothing of the user's is lost.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file.", rule="The output must be a folder.")
    if not folder.is_dir() or not occupied(folder):
        return False
    if is_begun(folder, fingerprint):
        return True
    raise UsageError(
        f"{folder} is not empty and holds something else than this {kind}.",
        rule="An output folder belongs to one set of settings and inputs.",
        fix="Name another --out, or remove that folder.",
    )


def claim(folder: Path, *, kind: str, fingerprint: str) -> bool:
    """Take `folder` for an artefact; True when an unfinished one with the same fingerprint goes on.

    What a killed write of ours left behind in it is removed.
    """
    goes_on = claimable(folder, kind=kind, fingerprint=fingerprint)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.rglob(".*.tmp"):
        if _LEFT_OVER.fullmatch(path.name):
            path.unlink(missing_ok=True)
    if not goes_on:
        write_json(folder / STARTED, {"kind": kind, "fingerprint": fingerprint})
    return goes_on


def remove_folder(folder: Path) -> None:
    """Remove a folder of ours; its manifest goes first, so that a kill leaves it incomplete."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def make_way(folder: Path, expected: str) -> None:
    """Remove a folder of ours unless it holds this artefact, finished or begun."""
    if folder.is_dir() and not is_begun(folder, expected) and not is_complete(folder, expected):
        remove_folder(folder)
