"""What studies, sweeps and matrices share: the way into their folder, and the loop over trainings that may diverge.

A study or matrix whose settings changed after its test was opened is refused before anything is made again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from mien.core.artifacts import base
from mien.core.artifacts import test_accesses as accesses
from mien.core.artifacts.index import read_index
from mien.core.artifacts.lock import only_writer
from mien.core.artifacts.study import REQUEST, close_study, earlier_request, open_study, read_request
from mien.core.config.matrix import TRAIN_KEY
from mien.core.errors import CalibrationError, MienError, TrainingDiverged
from mien.core.progress import say, warn
from mien.study.plan import Permission, Step

DECISIVE = {
    "study": ("seed", "teachers", "calibrate", "ensemble", "student"),
    "matrix": ("seeds", "train", "trainings of sources", "calibrate"),
}
OF_INDEXES = {"study": ("index",), "matrix": ("index", "sources")}


def check_settings(
    root: Path, kind: Literal["study", "matrix"], request: Mapping[str, object], indexes: list[Path], *, again: bool
) -> None:
    """Raise `SplitError` where settings of what comes before test changed after test was opened, unless `again`.

    Changed settings of the indexes are left to calibrating and selecting, which know whether test is still the same.
    """
    if not (root / REQUEST).is_file():
        return
    before, now = _parts(read_request(root).get(kind, {})), _parts(request)
    changed = [name for name in (*DECISIVE[kind], *OF_INDEXES[kind]) if before.get(name) != now.get(name)]
    existing = [folder for folder in indexes if (folder / base.MANIFEST).is_file()]
    if changed and not set(changed) & set(OF_INDEXES[kind]):
        to_test = accesses.read_accesses([accesses.origin_of_index(read_index(folder)) for folder in existing])
        accesses.check_unopened(to_test, f"{kind} got other settings ({', '.join(changed)})", again=again)


def _parts(request: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a request, those of its sources' trainings by themselves."""
    if "sources" not in request:
        return dict(request)
    of_indexes = [
        {**source, "settings": {key: value for key, value in source["settings"].items() if key != TRAIN_KEY}}
        for source in request["sources"]
    ]
    trainings = {source["name"]: source["settings"].get(TRAIN_KEY, {}) for source in request["sources"]}
    return {**request, "sources": of_indexes, "trainings of sources": trainings}


@contextmanager
def opened(
    root: Path,
    kind: Literal["study", "sweep", "matrix"],
    request: dict[str, object],
    text: str | None,
    steps: Sequence[Step],
    *,
    replace: bool,
) -> Iterator[Permission]:
    """Enter the folder of a study, sweep or matrix, or make it, as its only writer until the block ends.

    A folder that was made goes again where the block fails before it made anything.

    `request` are its settings, `text` its file. Nothing is touched before the trainings that `steps` would remove are
    agreed to. Raises `UsageError` where another process writes there, for a folder of something else, and for a removal
    that nobody agreed to.
    """
    with only_writer(root):
        fresh, permission, name = not root.exists(), Permission(replace), str(request["name"])
        earlier_request(root, name, kind)
        permission.obtain(steps)
        if open_study(root, name, request, text, kind=kind):
            warn(f"{root} was made with other settings; what they touch is made again.")
        try:
            yield permission
        except MienError:
            if fresh:
                close_study(root)
            raise


def run_trainings(
    trainings: Mapping[tuple[str, int], Step],
    permission: Permission,
    then: Callable[[str, int], object],
) -> dict[tuple[str, int], str]:
    """Run the trainings in their order, each followed by `then(name, seed)`; {name, seed: why} of those that failed.

    A training that diverged, or whose calibration is not found, is told and passed over.
    """
    started, failed = time.perf_counter(), dict[tuple[str, int], str]()
    for number, ((name, seed), step) in enumerate(trainings.items(), 1):
        say(f"[{number}/{len(trainings)}] {name}, seed {seed}  ({time.perf_counter() - started:.0f} s so far)")
        try:
            permission.run(step)
            then(name, seed)
        except (TrainingDiverged, CalibrationError) as error:
            failed[name, seed] = str(error)
            warn(f"{name}, seed {seed}: {error}")
    return failed
