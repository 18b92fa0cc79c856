"""Accesses to test: what was judged on it, under which selection and calibration, and the figures that were seen.

A test set is known by its images, so that it is recognised in an index that was built again, in an import and in a copy
of a run. Each access is a file `test_accesses/ID.json` in several folders: the run's (each member's of an ensemble),
the one that the index lies in, and the one that the folder of ensembles lies in. None of them is part of what it lies
beside: an index or ensembles that are removed and made again leave the records. A reader takes the union of all that it
can see. One file an access: processes that write at the same time lose nothing, and a kill leaves no torn list.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict, Unpack

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mien.core.artifacts import base
from mien.core.artifacts.index import Index
from mien.core.artifacts.metrics import Metrics
from mien.core.artifacts.predictions import PredictionsMeta
from mien.core.errors import ArtifactError, SplitError
from mien.core.progress import warn

KIND, VERSION = "test access", 1
FOLDER = "test_accesses"


class OwnTest(TypedDict):
    """What predictions say of the test that belongs to them, see `test_meta`."""

    test_set: str | None
    index_folder: str | None


class EvaluatedHashes(TypedDict):
    """What was judged, under which calibration and selection."""

    weights_hash: str
    calibration_hash: str
    selection_hash: str


class Access(BaseModel):
    """One model that was judged on a test set, under one selection and calibration."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str = KIND
    format: int = VERSION
    test_set: str = Field(description="`test_set_of` the images of test")
    index: str = Field(description="content hash of the index, or of the imported rows, that test belongs to")
    name: str = Field(description="the run, the imported predictions or the ensemble that was judged")
    weights_hash: str
    calibration_hash: str = Field(description="a run's calibration, or all that an ensemble says")
    selection_hash: str
    accuracy: float
    macro_f1: float
    nll: float
    when: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(), description="the first time, UTC")

    @property
    def id(self) -> str:
        """The same for a repeat, which shows nothing new: one test set, one model, one calibration, one selection."""
        parts = ("test_set", "weights_hash", "calibration_hash", "selection_hash")
        return base.fingerprint(KIND, VERSION, {}, {name: getattr(self, name) for name in parts})


@dataclass(frozen=True)
class Origin:
    """Where accesses that concern a model are looked for, and how they are recognised.

    Those of its own test are, by images or index, whichever model was judged; and those of any other test that these
    weights were judged on (`mien evaluate --on`).
    """

    places: tuple[Path, ...]
    test_set: str | None
    index: str
    weights_hash: str

    def concerns(self, access: Access) -> bool:
        """Whether an access may have revealed what is to be decided now."""
        same_test = access.test_set == self.test_set or access.index == self.index
        return same_test or access.weights_hash == self.weights_hash


def test_set_of(image_ids: Iterable[str]) -> str:
    """Hash of a test set's images, whatever their order."""
    return base.fingerprint("test set", 1, {"images": sorted(image_ids)}, {})


def test_meta(folder: Path, image_ids: list[str], index_folder: Path | None) -> OwnTest:
    """What predictions in `folder` say of the test that belongs to them: its hash (null without test rows), and where
    their index lies from here."""
    where = None
    if index_folder is not None:
        try:
            where = Path(os.path.relpath(index_folder.resolve(), folder.resolve())).as_posix()
        except ValueError:  # another drive of Windows
            where = str(index_folder.resolve())
    return {"test_set": test_set_of(image_ids) if image_ids else None, "index_folder": where}


def origin_of(folder: Path, meta: PredictionsMeta) -> Origin:
    """Where to look for accesses that concern the run or import in `folder`; `meta` is that of its predictions."""
    place, index = folder.resolve(), meta.get("index_folder")
    places = [place, place.parent, place.parent.parent]
    if index is not None:
        places.append(Path(os.path.normpath(place / index)).parent)
    return Origin(tuple(places), meta.get("test_set"), meta["index"], meta["weights_hash"])


def origin_of_index(index: Index) -> Origin:
    """Where to look for accesses to the test of an index, before anything is known of models."""
    tested = index.image_ids[index.splits == "test"].tolist()
    return Origin((index.folder.resolve().parent,), test_set_of(tested), index.content_hash, "")


def places_of(folders: Iterable[Path], index_folder: Path | None, selection: Path) -> list[Path]:
    """Where an access is recorded: in the judged runs' `folders`, beside the index, and beside the ensembles of the
    selection's file (for a `selected.json` that was copied elsewhere, in its own folder)."""
    ensembles = selection.resolve().parent
    beside = ensembles.parent if (ensembles / base.MANIFEST).is_file() else ensembles
    return [*folders, *([] if index_folder is None else [index_folder.resolve().parent]), beside]


def read_accesses(origins: Iterable[Origin], *more: Path) -> list[Access]:
    """All accesses that concern one of `origins`, in its places or in `more`, each once, the oldest first."""
    origins = list(origins)
    places = {place.resolve() for place in [*more, *(place for origin in origins for place in origin.places)]}
    accesses = [_read(path) for place in sorted(places) for path in sorted((place / FOLDER).glob("*.json"))]
    relevant = {access.id: access for access in accesses if any(origin.concerns(access) for origin in origins)}
    return sorted(relevant.values(), key=lambda access: (access.when, access.id))


def _read(path: Path) -> Access:
    data = base.read_json(path, kind="record of an access to test")
    try:
        return Access.model_validate(data)
    except ValidationError as error:
        raise ArtifactError(
            f"{path} is no record of an access to test ({error.error_count()} faults).",
            fix="Move it elsewhere if something else wrote it.",
        ) from None


def check_unopened(accesses: list[Access], what: str, *, again: bool) -> int:
    """Raise `SplitError` where test was opened before `what` (a clause: "this selection was written"), unless `again`
    was asked for; returns how often it was."""
    if accesses and not again:
        last = accesses[-1]
        raise SplitError(
            f"Test was opened {times(len(accesses))} before {what}: last {last.when[:16]} UTC, {last.name}, macro-F1 "
            f"{last.macro_f1:.3f}.",
            rule="Test decides nothing: what is chosen or fitted after it was seen may be chosen on it.",
            fix=(
                "Keep what stood before, or give --again: what is made then states how often test was opened before it."
            ),
        )
    return len(accesses)


def record(
    name: str,
    test: Metrics,
    image_ids: Iterable[str],
    places: Iterable[Path],
    *,
    index: str,
    **hashes: Unpack[EvaluatedHashes],
) -> int:
    """Write to each of `places` that test was opened, and return how many other accesses to this test set they hold.

    `name` is what was judged, `test` are its figures. A place that may not be written to (an index on a read-only disk)
    is skipped with a warning, unless it is the first.
    """
    access = Access(
        test_set=test_set_of(image_ids),
        index=index,
        name=name,
        accuracy=test["accuracy"],
        macro_f1=test["macro_f1"],
        nll=test["nll"],
        **hashes,
    )
    first, *others = [place.resolve() for place in places]
    accesses = read_accesses([Origin((), access.test_set, access.index, "")], first, *others)
    stored = next((old for old in accesses if old.id == access.id), access)
    for place in dict.fromkeys([first, *others]):
        try:
            base.write_json(place / FOLDER / f"{stored.id[:32]}.json", stored.model_dump())
        except OSError as error:
            if place == first or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            warn(f"{place} may not be written to: it keeps no record that test was opened")
    return len([old for old in accesses if old.id != access.id])


def times(count: int) -> str:
    """A number of times in words."""
    return "once" if count == 1 else f"{count} times"


def told(count: int, what: str) -> str:
    """A sentence about the accesses on record from before `what` (a clause: "this selection was written")."""
    return (
        f"Test was opened {times(count)} before {what}."
        if count
        else f"No access to test is on record from before {what}."
    )
