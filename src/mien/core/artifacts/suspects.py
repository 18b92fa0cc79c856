"""Train rows whose label is in doubt: `suspects.parquet`, `relabel.csv`, `suspects.json`, `sheet.png`."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mien.core.artifacts import base
from mien.core.errors import InputError
from mien.core.labels import INDEX, LABELS

KIND, VERSION = "suspects", 1
TABLE, RELABEL, SUMMARY, SHEET = "suspects.parquet", "relabel.csv", "suspects.json", "sheet.png"
FIX = "Find them: `mien suspects --index DIR --out OUT`."


class OutOfFold(TypedDict):
    """Figures of networks on the rows that they did not learn from."""

    accuracy: float
    macro_f1: float
    nll: float
    ece: float


class SuspectsSummary(TypedDict):
    """`suspects.json`; `suggested` counts suspects by their label and the suggested one."""

    index: str
    folds: int
    rows: int
    suspects: int
    share: float
    by_class: dict[str, int]
    suggested: dict[str, dict[str, int]]
    out_of_fold: OutOfFold


class SuspectsManifest(base.Manifest):
    """`manifest.json` of suspects; `index` is the content hash of theirs."""

    index: str


class FoundSuspects(TypedDict):
    """What was found of each row (n,): whether to doubt its label, from 0 (surely wrong) to 1, and a class number."""

    suspect: NDArray[np.bool_]
    quality: NDArray[np.float64]
    suggested: NDArray[np.int64]


_SUMMARY = base.JsonArtifact[SuspectsSummary](SUMMARY, "suspects' summary", FIX)
read_summary = _SUMMARY.read


class Suspects:
    """The suspect labels of an index, in the order of its train rows.

    `suggested` are class numbers; `suspect` marks the labels in doubt.
    """

    def __init__(self, folder: Path, manifest: SuspectsManifest, table: pa.Table) -> None:
        self.folder, self.manifest = folder, manifest
        self.image_ids: NDArray[np.str_] = np.array(table["image_id"].to_pylist(), dtype=str)
        self.labels = np.array([INDEX[name] for name in table["label"].to_pylist()], dtype=np.int64)
        self.suggested = np.array([INDEX[name] for name in table["suggested"].to_pylist()], dtype=np.int64)
        self.quality: NDArray[np.float64] = table["quality"].to_numpy()
        self.suspect: NDArray[np.bool_] = table["suspect"].to_numpy(zero_copy_only=False)

    @property
    def hash(self) -> str:
        """Hash of the table: what a training that uses it depends on."""
        return self.manifest["files"][TABLE]["sha256"]


def write_suspects(
    folder: Path,
    ids: NDArray[np.str_],
    labels: NDArray[np.int64],
    suspects: FoundSuspects,
    probabilities: NDArray[np.float64],
    summary: SuspectsSummary,
    sheet: bytes,
    fingerprint: str,
) -> None:
    """Write everything; the manifest comes last. The arrays of `suspects` are in the order of `ids`."""
    names = np.array(LABELS)
    columns = {
        "image_id": pa.array(ids.tolist()),
        "label": pa.array(names[labels].tolist()),
        "suggested": pa.array(names[suspects["suggested"]].tolist()),
        "quality": pa.array(suspects["quality"], pa.float64()),
        "suspect": pa.array(suspects["suspect"]),
    } | {f"p_{name}": pa.array(probabilities[:, i], pa.float64()) for i, name in enumerate(LABELS)}
    with base.atomic(folder / TABLE) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
    rows = np.flatnonzero(suspects["suspect"])
    lines = [f"{ids[i]},{LABELS[suspects['suggested'][i]]}\n" for i in rows[np.argsort(suspects["quality"][rows])]]
    base.write_text(folder / RELABEL, "image_id,label\n" + "".join(lines))
    _SUMMARY.write(folder, summary)
    base.write_bytes(folder / SHEET, sheet)
    base.write_manifest(
        folder,
        kind=KIND,
        version=VERSION,
        fingerprint=fingerprint,
        files=[TABLE, RELABEL, SUMMARY, SHEET],
        meta={"index": summary["index"]},
    )


def read_suspects(folder: Path, *, index: str) -> Suspects:
    """Read and verify; suspects of another index (its content hash) are refused."""
    manifest: SuspectsManifest = base.read_manifest(folder, kind=KIND, version=VERSION, fix=FIX)
    if manifest["index"] != index:
        raise InputError(
            f"{folder} was found in another index.", rule="Suspects belong to the index they were found in.", fix=FIX
        )
    base.check_file(folder, manifest, TABLE)
    return Suspects(folder, manifest, pq.read_table(folder / TABLE))
