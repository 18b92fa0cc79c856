"""A Hugging Face data set: what `save_to_disk` wrote, a folder of Parquet files, or a name on the hub.

`hf=PATH_OR_NAME`. Its first image column and its first class column (`label`, `labels`,
`emotion`, `expression`) are taken; classes are mapped by their names. Other text and number columns become
attributes. Needs the extra `hf`; a hub name is downloaded by `datasets` into its own cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from numpy import uint8
from numpy.typing import NDArray

from mien.core.errors import InputError, RejectedImage, UsageError
from mien.core.images import decode_lean
from mien.core.labels import parse_or_drop
from mien.data.sources.base import SPLIT_NAMES, Item, NamedSource, SourceImage, hash_text

_LABELS = ("label", "labels", "emotion", "expression")
_NO_CLASS = frozenset({"contempt", "unknown"})  # dropped unasked, as in FER+
_FORM = "hf=FOLDER, hf=FILE.parquet or hf=OWNER/NAME"


class _Rows(Protocol):
    """What we use of a `datasets.Dataset`; features are of several classes of that library."""

    features: Mapping[str, Any]

    def cast_column(self, column: str, feature: object) -> Self: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[dict[str, object]]: ...

    def __getitem__(self, column: str) -> Sequence[object]: ...


@dataclass(frozen=True)
class BytesImage(SourceImage):
    """An image whose bytes are at hand."""

    data: bytes

    def read(self) -> bytes:
        """The bytes."""
        return self.data

    def decode(self, data: bytes, *, min_side: int, max_pixels: int) -> NDArray[uint8]:
        """Decode them; raises `RejectedImage`."""
        return decode_lean(data, min_side=min_side, max_pixels=max_pixels)

    def fingerprint(self) -> str:
        """A hash of the bytes: no table of the source holds them, and they have no time of change."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class _Missing(SourceImage):
    def read(self) -> bytes:
        raise RejectedImage("missing", "the row has no image")

    def decode(self, data: bytes, *, min_side: int, max_pixels: int) -> NDArray[uint8]:
        raise RejectedImage("missing", "the row has no image")


class HuggingFace(NamedSource):
    """A data set of the Hugging Face `datasets` library."""

    name = "hf"
    license = "as the data set's card states"
    form = _FORM
    get = "huggingface.co/datasets; pip install 'mien[hf]'"

    def __init__(self, where: str, *, seed: int, size: int, drop: frozenset[str] = frozenset()) -> None:
        super().__init__(where, seed=seed, size=size, drop=drop)
        parts = _open(where)
        self._parts = []
        for name, rows in parts.items():
            split = SPLIT_NAMES.get(str(name).lower())
            if split is None and len(parts) > 1:
                raise InputError(f"{where} has a split {name!r}.", rule=f"Known splits: {', '.join(SPLIT_NAMES)}.")
            self._parts.append((str(name), split if len(parts) > 1 else None, *self._columns(rows)))

    @property
    def cropped(self) -> bool:
        """Not known: `--align` says."""
        return False

    def _columns(self, rows: _Rows) -> tuple[_Rows, str, str, list[str | None]]:
        import datasets  # noqa: PLC0415

        images = [k for k, f in rows.features.items() if isinstance(f, datasets.Image)]
        classes = [k for k in _LABELS if isinstance(rows.features.get(k), datasets.ClassLabel)]
        classes += [k for k, f in rows.features.items() if isinstance(f, datasets.ClassLabel) and k not in classes]
        texts = [
            k
            for k in _LABELS
            if k in rows.features and getattr(rows.features[k], "dtype", "") in {"string", "large_string"}
        ]
        if not images or not (classes or texts):
            raise InputError(
                f"{self.where} has the columns {', '.join(rows.features)}.",
                rule=f"An image column and a class or text column ({', '.join(_LABELS)}) are needed.",
            )
        label = (classes or texts)[0]
        names: list[str | None] = list(rows.features[label].names) if classes else []
        return rows.cast_column(images[0], datasets.Image(decode=False)), images[0], label, names

    def __len__(self) -> int:
        return sum(len(part[2]) for part in self._parts)

    def __iter__(self) -> Iterator[Item]:
        for name, split, rows, image, label, names in self._parts:
            for number, row in enumerate(rows):
                value = row[label]
                text = str(names[value]) if names and isinstance(value, int) and value >= 0 else str(value or "")
                if names and not (isinstance(value, int) and value >= 0):
                    text = ""
                class_name, why = parse_or_drop(text, self.drop | _NO_CLASS)
                extra = {k: v for k, v in row.items() if k not in {image, label} and isinstance(v, str | int | float)}
                yield Item(
                    f"hf:{Path(self.where).name}/{name}#{number}",
                    _source_image(row[image]),
                    split,
                    text,
                    class_name,
                    why,
                    attributes=tuple(sorted((k, str(v)) for k, v in extra.items() if len(str(v)) <= 64)),
                )

    def hash_table(self) -> str:
        """Hash of every column but the images."""
        words = []
        for name, split, rows, image, label, names in self._parts:
            words.append(f"{name} {split} {len(rows)} {label} {names}")
            words += [f"{key} {rows[key][:]}" for key in rows.features if key != image]
        return hash_text(*words)


def _source_image(value: object) -> SourceImage:
    if isinstance(value, dict):
        if value.get("bytes"):
            return BytesImage(bytes(value["bytes"]))
        path = value.get("path")
        if path and Path(path).is_file():
            return BytesImage(Path(path).read_bytes())
    return _Missing()


def _open(where: str) -> dict[str, _Rows]:
    """{split name: rows}; one nameless split where the set has none."""
    try:
        import datasets  # noqa: PLC0415
    except ModuleNotFoundError:
        raise UsageError(
            "hf=… needs the library `datasets`, which is not installed.",
            fix="Install it, in the folder of mien: pip install '.[hf]'",
        ) from None
    path = Path(where)
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            data = datasets.load_from_disk(where)
        elif path.exists():
            files = sorted(str(p) for p in path.rglob("*.parquet")) if path.is_dir() else [where]
            if path.is_file() and path.suffix.lower() != ".parquet":
                raise InputError(f"{where} is no Parquet file.", rule=f"Its form is {_FORM}.")
            if files:
                groups: dict[str, list[str]] = {}
                for file in files:
                    groups.setdefault(Path(file).name.split("-")[0].removesuffix(".parquet"), []).append(file)
                are_splits = all(name.lower() in SPLIT_NAMES for name in groups)
                data = datasets.load_dataset("parquet", data_files=groups if are_splits else {"train": files})
            else:
                data = datasets.load_dataset("imagefolder", data_dir=where)
        elif where.startswith((".", "/", "~")) or where.count("/") > 1:
            raise InputError(f"No folder {where}.", rule=f"Its form is {_FORM}.")
        else:
            data = datasets.load_dataset(where)
    except (OSError, ValueError, RuntimeError) as error:
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"The data set {where!r} cannot be opened: {text.rstrip('.')}.", rule=f"Its form is {_FORM}."
        ) from None
    return dict(data) if isinstance(data, dict) else {"all": data}
