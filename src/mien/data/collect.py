"""Loads every source row: decoded, hashed and cropped, in several processes when it is worth it."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.index import PixelScratch
from mien.core.errors import InputError, RejectedImage
from mien.core.geometry import fit_square
from mien.core.images import image_id, is_grey
from mien.core.progress import Meter, meter
from mien.data.phash import perceptual_hash
from mien.data.sources import Item, Source
from mien.data.sources.base import Picture

_CHUNK = 1024
_WORTH_PROCESSES = 4000


@dataclass(frozen=True)
class Loaded:
    """What is known of one decoded picture."""

    image_id: str
    phash: int
    width: int
    height: int
    grey: bool
    crop: NDArray[np.uint8]


@dataclass
class Distinct:
    """One distinct picture and every source row that showed it."""

    number: int
    phash: int
    width: int
    height: int
    grey: bool
    rows: list[tuple[int, Item]] = field(default_factory=list)


@dataclass
class Collection:
    """All sources, loaded: distinct pictures by hash, and the rejected rows."""

    pictures: dict[str, Distinct] = field(default_factory=dict)
    rejected: list[tuple[str, str, str, str]] = field(default_factory=list)
    source_rows: dict[str, int] = field(default_factory=dict)


def load_chunk(items: list[Item], size: int, min_side: int) -> list[Loaded | RejectedImage]:
    """Load pictures; a rejected one stands as its error in its place."""
    pictures: list[NDArray[np.uint8] | RejectedImage] = []
    for item in items:
        try:
            pictures.append(item.picture.load(min_side=min_side))
        except RejectedImage as error:
            pictures.append(error)
    good = [p for p in pictures if not isinstance(p, RejectedImage)]
    hashes = iter(perceptual_hash(good))
    out: list[Loaded | RejectedImage] = []
    for picture in pictures:
        if isinstance(picture, RejectedImage):
            out.append(picture)
            continue
        height, width = picture.shape[:2]
        out.append(
            Loaded(image_id(picture), int(next(hashes)), width, height, is_grey(picture), fit_square(picture, size))
        )
    return out


def collect(
    sources: list[Source], scratch: PixelScratch, *, size: int, min_side: int, max_rejected: float
) -> Collection:
    """Load all sources in order. Stops with an `InputError` when too large a share is rejected."""
    found = Collection()
    with meter("reading pictures", sum(len(source) for source in sources)) as progress:
        for priority, source in enumerate(sources):
            found.source_rows[source.name] = found.source_rows.get(source.name, 0) + len(source)
            for items, loaded in _load_all(source, size, min_side):
                _take(found, scratch, priority, items, loaded, progress)
    total = sum(found.source_rows.values())
    if len(found.rejected) > max_rejected * total:
        reasons = sorted({reason for _, _, reason, _ in found.rejected})
        path, _, reason, detail = found.rejected[0]
        raise InputError(
            f"{len(found.rejected)} of {total} pictures were rejected ({', '.join(reasons)}); the first is {path}: {reason}, {detail}.",
            rule=f"At most {max_rejected:.0%} may be.",
            fix="Repair or remove them, or raise --max-rejected.",
        )
    return found


def _take(
    found: Collection,
    scratch: PixelScratch,
    priority: int,
    items: list[Item],
    loaded: list[Loaded | RejectedImage],
    progress: Meter,
) -> None:
    crops = []
    for item, result in zip(items, loaded, strict=True):
        if isinstance(result, RejectedImage):
            detail = str(result).removeprefix(f"{result.reason}: ")
            found.rejected.append((item.path, item.path.split(":")[0], result.reason, detail))
            continue
        picture = found.pictures.get(result.image_id)
        if picture is None:
            picture = Distinct(len(found.pictures), result.phash, result.width, result.height, result.grey)
            found.pictures[result.image_id] = picture
            crops.append(result.crop)
        # The text of a CSV picture is not needed any more, and is large.
        slim = Item(
            item.path, _DONE, item.official_split, item.source_label, item.label, item.why, item.votes, item.subject
        )
        picture.rows.append((priority, slim))
    if crops:
        scratch.append(np.stack(crops))
    progress.advance(len(items))


class _Done(Picture):
    """Stands for a picture that has been loaded."""

    def load(self, *, min_side: int) -> NDArray[np.uint8]:
        """Never called again."""
        raise AssertionError("loaded before")


_DONE = _Done()


def _chunks(source: Source) -> Iterator[list[Item]]:
    rows = iter(source)
    while chunk := list(islice(rows, _CHUNK)):
        yield chunk


def _load_all(source: Source, size: int, min_side: int) -> Iterator[tuple[list[Item], list[Loaded | RejectedImage]]]:
    workers = os.cpu_count() or 1
    if len(source) < _WORTH_PROCESSES or workers < 2:
        for chunk in _chunks(source):
            yield chunk, load_chunk(chunk, size, min_side)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with, initargs=(os.getpid(),)) as pool:
        waiting = []
        for chunk in _chunks(source):
            waiting.append((chunk, pool.submit(load_chunk, chunk, size, min_side)))
            if len(waiting) > 2 * workers:
                first, future = waiting.pop(0)
                yield first, future.result()
        for chunk, future in waiting:
            yield chunk, future.result()


def _end_with(parent: int) -> None:
    """End this worker when its parent is killed, instead of waiting for work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
