"""Images in one folder a class, optionally under one folder a split.

`ROOT/happy/*.jpg` or `ROOT/train/happy/*.jpg`; common aliases of classes and splits are understood. A folder whose
name says that there is no label, or is among `drop`, is read, and its images are dropped under that name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mien.core.errors import InputError
from mien.core.labels import LABELS, parse_or_drop
from mien.data.sources.base import SPLIT_NAMES, FileImage, Item, NamedSource, hash_text, need_folder, what_is_in

_EXPECTED = f"one folder a class ({', '.join(LABELS)}), or train/val/test folders that hold these"
# What may lie beside images; every other file is read, and listed as rejected when it is none.
NOT_IMAGES = {
    ".txt",
    ".csv",
    ".tsv",
    ".json",
    ".md",
    ".xml",
    ".html",
    ".ini",
    ".db",
    ".log",
    ".yaml",
    ".yml",
    ".toml",
    ".py",
    ".npy",
}


class Folder(NamedSource):
    """Any images sorted into class folders."""

    name = "folder"
    license = "as its owner states"
    form = "folder=FOLDER (FOLDER/[SPLIT/]CLASS/image)"
    get = "your own images"

    @property
    def cropped(self) -> bool:
        """Not known: `--align` says."""
        return False

    def __init__(self, where: str, *, seed: int, size: int, drop: frozenset[str] = frozenset()) -> None:
        super().__init__(where, seed=seed, size=size, drop=drop)
        self.root = need_folder(where, _EXPECTED)
        self._files = list(self._scan())
        if not self._files:
            raise InputError(f"{self.root} holds no images in class folders.", rule=f"Expected {_EXPECTED}.")

    def _scan(self) -> Iterator[tuple[Path, str | None, str]]:
        folders = _subfolders(self.root)
        splits = [f for f in folders if f.name.lower() in SPLIT_NAMES]
        classes = [f for f in folders if f not in splits]
        if not folders:
            raise InputError(
                f"{self.root} holds no class folders; found {what_is_in(self.root)}.", rule=f"Expected {_EXPECTED}."
            )
        if splits and classes:
            raise InputError(
                f"{self.root} mixes split folders ({splits[0].name}) and others ({classes[0].name}).",
                rule=f"Expected {_EXPECTED}.",
            )
        for split in splits or [self.root]:
            side = SPLIT_NAMES[split.name.lower()] if splits else None
            for folder in _subfolders(split):
                parse_or_drop(folder.name, self.drop)  # raises with the nearest name
                for path in sorted(folder.rglob("*")):
                    if path.is_file() and path.suffix.lower() not in NOT_IMAGES and not path.name.startswith("."):
                        yield path, side, folder.name

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Item]:
        root = str(self.root)
        for path, split, name in self._files:
            relative = path.relative_to(self.root).as_posix()
            label, why = parse_or_drop(name, self.drop)
            yield Item(f"folder:{relative}", FileImage(root, relative), split, name, label, why)

    def hash_table(self) -> str:
        """Hash of all names."""
        return hash_text(*(path.relative_to(self.root).as_posix() for path, _, _ in self._files))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
