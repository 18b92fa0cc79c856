"""A study or matrix whose settings changed after its test was opened is refused before anything is made again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from mien.core.artifacts import base
from mien.core.artifacts import test_accesses as accesses
from mien.core.artifacts.index import read_index
from mien.core.artifacts.study import REQUEST, read_request

DECISIVE = {
    "study": ("seed", "teachers", "calibrate", "ensemble", "student"),
    "matrix": ("seeds", "train", "calibrate"),
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
    before = read_request(root).get(kind, {})
    changed = [name for name in (*DECISIVE[kind], *OF_INDEXES[kind]) if before.get(name) != request[name]]
    existing = [folder for folder in indexes if (folder / base.MANIFEST).is_file()]
    if changed and not set(changed) & set(OF_INDEXES[kind]):
        opened = accesses.read_accesses([accesses.origin_of_index(read_index(folder)) for folder in existing])
        accesses.check_unopened(opened, f"{kind} got other settings ({', '.join(changed)})", again=again)
