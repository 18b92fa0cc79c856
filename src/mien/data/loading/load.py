"""One piece of work: some source rows, read, decoded, hashed and cropped, as an Arrow table.

Pure: the same rows give the same bytes in any process on any machine.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mien.core.errors import InputError, RejectedImage
from mien.core.geometry import Box, CropSpec, crop_face, cut, fit_square
from mien.core.images import as_three, image_id, is_grey
from mien.core.labels import INDEX
from mien.data.duplicates.phash import THUMB, Hasher, thumbnail
from mien.data.sources.base import Item, SourceImage, fingerprint

SPLIT_CODE = {"train": 0, "calib": 1, "val": 2, "test": 3}
NO_CODE = -1
ALIGNED = (
    "as it is",
    "by the source's box",
    "by a detected face",
    "no face found",
    "by the source's box, eyes level",
    "by a detected face, eyes level",
)
_LEVEL = {1: 4, 2: 5}
_FEW = 64


class Found(Protocol):
    """A detected face."""

    @property
    def box(self) -> Box:
        """x, y, width, height, pixels."""

    @property
    def landmarks(self) -> NDArray[np.float32] | None:
        """Points (k, 2), the eyes first."""


Finder = Callable[[NDArray[np.uint8]], Sequence[Found]]


@dataclass(frozen=True)
class Recipe:
    """How rows are loaded. `make_finder` makes a face detector where images are to be aligned."""

    crop: CropSpec
    kind: str
    min_side: int
    max_pixels: int
    drop_unaligned: bool = False
    make_finder: Callable[[], Finder] | None = None


@dataclass(frozen=True)
class Task:
    """Some rows of one source and how to load them."""

    items: list[Item]
    recipe: Recipe
    cropped: bool


@dataclass(frozen=True)
class _Loaded:
    image_id: bytes
    width: int
    height: int
    grey: bool
    aligned: int
    thumb: NDArray[np.uint8]
    crop: NDArray[np.uint8]


@lru_cache(maxsize=1)
def _hasher(kind: str) -> Hasher:
    return Hasher(kind)


@lru_cache(maxsize=1)
def _finder(make: Callable[[], Finder]) -> Finder:
    return make()


def load(task: Task) -> bytes:
    """The rows as an Arrow IPC file; a rejected image stands as its reason in its place."""
    stamp = fingerprint(i for i in task.items)
    digests: list[bytes] = []
    results: list[_Loaded | RejectedImage] = []
    for item in task.items:
        try:
            data = item.image.read()
        except RejectedImage as error:
            digests.append(bytes(32))
            results.append(error)
            continue
        digests.append(hashlib.sha256(data).digest())
        try:
            results.append(_load(item.image, data, task))
        except RejectedImage as error:
            results.append(error)
    table = _table(task, digests, results)
    out = io.BytesIO()
    with pa.ipc.new_file(out, table.schema.with_metadata({"stamp": stamp})) as writer:
        writer.write_batch(table)
    return out.getvalue()


def _load(image: SourceImage, data: bytes, task: Task) -> _Loaded:
    recipe = task.recipe
    whole = image.decode(data, min_side=recipe.min_side, max_pixels=recipe.max_pixels)
    if image.box is not None or (recipe.make_finder is not None and not task.cropped):
        whole = as_three(whole)
    picture, crop, aligned = whole, None, 0
    points = None if image.landmarks is None else np.array(image.landmarks)
    if image.box is not None:
        try:
            picture = cut(whole, _inside(image.box, whole))
            crop, aligned = crop_face(whole, image.box, recipe.crop, points), _how(1, points, recipe)
        except InputError as error:
            raise RejectedImage("no_face", f"the source's box: {error}") from None
        if min(picture.shape[:2]) < recipe.min_side:
            raise RejectedImage("too_small", f"face of {picture.shape[1]}×{picture.shape[0]} pixels")
    elif recipe.make_finder is not None and not task.cropped:
        detection = _detected(whole, _finder(recipe.make_finder), recipe)
        if detection is not None:
            crop, aligned = detection
        elif recipe.drop_unaligned:
            raise RejectedImage("no_face", "the detector found none")
        else:
            aligned = 3
    if crop is None:
        crop = fit_square(whole, recipe.crop.size)
    height, width = picture.shape[:2]
    grey = is_grey(picture)
    if grey:
        picture = picture[..., :1]
    return _Loaded(bytes.fromhex(image_id(picture)), width, height, grey, aligned, thumbnail(picture), crop)


def _detected(image: NDArray[np.uint8], finder: Finder, recipe: Recipe) -> tuple[NDArray[np.uint8], int] | None:
    """The crop of the first detected face that has one; detectors at times give boxes without an area or outside."""
    for face in finder(image):
        try:
            return crop_face(image, face.box, recipe.crop, face.landmarks), _how(2, face.landmarks, recipe)
        except InputError:
            continue
    return None


def _how(aligned: int, points: object, recipe: Recipe) -> int:
    """The code of an alignment, another one when the eyes were made level."""
    return aligned if points is None or recipe.crop.align == "none" else _LEVEL[aligned]


def _inside(box: Box, image: NDArray[np.uint8]) -> Box:
    """The part of a box that lies in the image."""
    height, width = image.shape[:2]
    x0, y0 = max(0.0, box[0]), max(0.0, box[1])
    return x0, y0, min(width, box[0] + box[2]) - x0, min(height, box[1] + box[3]) - y0


def _table(task: Task, digests: list[bytes], results: list[_Loaded | RejectedImage]) -> pa.RecordBatch:
    items, recipe = task.items, task.recipe
    good = [r if isinstance(r, _Loaded) else None for r in results]
    bad = [r if isinstance(r, RejectedImage) else None for r in results]
    thumbs = np.zeros((len(items), THUMB, THUMB), np.uint8)
    grey = all(r is None or r.grey for r in good)
    size = recipe.crop.size
    crops = np.zeros((len(items), size, size, 1 if grey else 3), np.uint8)
    for row, loaded in enumerate(good):
        if loaded is not None:
            thumbs[row] = loaded.thumb
            crops[row] = loaded.crop[..., :1] if grey else loaded.crop
    hashes = _hasher(recipe.kind)(thumbs)
    mean, deviation = _brightness(thumbs)
    columns: dict[str, pa.Array] = {
        "path": pa.array([i.path for i in items], pa.string()),
        "official": pa.array(
            [NO_CODE if i.official_split is None else SPLIT_CODE[i.official_split] for i in items], pa.int8()
        ),
        "source_label": pa.array([i.source_label for i in items], pa.string()),
        "label": pa.array([NO_CODE if i.label is None else INDEX[i.label] for i in items], pa.int8()),
        "why": pa.array([i.why for i in items], pa.string()),
        "votes": pa.array([i.votes for i in items], pa.list_(pa.float32())),
        "subject": pa.array([i.subject for i in items], pa.string()),
        "attributes": pa.array([i.attributes or None for i in items], pa.map_(pa.string(), pa.string())),
        "digest": _fixed(b"".join(digests), 32),
        "reason": pa.array([None if b is None else b.reason for b in bad], pa.string()),
        "detail": pa.array([None if b is None else b.detail for b in bad], pa.string()),
        "image_id": _fixed(b"".join(bytes(32) if g is None else g.image_id for g in good), 32),
        "width": pa.array([0 if g is None else g.width for g in good], pa.int32()),
        "height": pa.array([0 if g is None else g.height for g in good], pa.int32()),
        "grey": pa.array([g is None or g.grey for g in good], pa.bool_()),
        "aligned": pa.array([0 if g is None else g.aligned for g in good], pa.int8()),
        "mean": pa.array(mean, pa.float32()),
        "deviation": pa.array(deviation, pa.float32()),
        "hashes": _fixed(hashes.astype("<u8").tobytes(), 8 * hashes.shape[1]),
        "thumb": _fixed(thumbs, THUMB * THUMB),
        "crop": _fixed(crops, int(np.prod(crops.shape[1:]))),
    }
    return pa.RecordBatch.from_pydict(columns)


def _brightness(thumbs: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation of the grey levels of each thumbnail (n, side, side), in chunks that fit the cache."""
    mean, deviation = np.empty(len(thumbs), np.float32), np.empty(len(thumbs), np.float32)
    for start in range(0, len(thumbs), _FEW):
        part = slice(start, start + _FEW)
        grey = thumbs[part].reshape(-1, THUMB * THUMB).astype(np.float32)
        mean[part], deviation[part] = grey.mean(1), grey.std(1)
    return mean, deviation


def _fixed(data: bytes | NDArray[np.uint8], width: int) -> pa.Array:
    """A column of binary values of `width` bytes, without a copy."""
    buffer = pa.py_buffer(data)
    return pa.Array.from_buffers(pa.binary(width), buffer.size // width, [None, buffer])
