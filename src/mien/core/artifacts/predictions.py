"""Predictions: image_id, group_id, split, label and seven logits.

Logits are what softmax turns into probabilities: any scale (ArcFace's s) is already applied. The
file says so in its metadata, and a reader refuses values that cannot be such logits.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mien.core.artifacts import base
from mien.core.errors import ArtifactError, InputError, SplitError
from mien.core.labels import INDEX, LABELS

KIND, VERSION = "predictions", 3
_UNGROUPED = 2  # the format without group_id; its files are still read
COLUMNS = [f"logit_{name}" for name in LABELS]
_META = b"mien.predictions"
REQUIRED = {"name", "weights_hash", "index", "head"}
COSINE_LIMIT = 1.01  # |cos| <= 1; a cosine head whose logits stay below it forgot its scale


class PredictionsMeta(TypedDict):
    """Metadata of predictions, inside their file.

    `scale` is a cosine head's; priors are the class shares that the network was trained for and predicts with (null:
    not known). `test_set` and `index_folder` are those of `test_accesses.test_meta`; a pool has neither. What a file
    adds when it is written comes last.
    """

    name: str
    weights_hash: str
    index: str
    scale_in_logits: bool
    head: str
    scale: NotRequired[object]
    training_prior: NotRequired[list[float] | None]
    predicts_prior: NotRequired[list[float] | None]
    test_set: NotRequired[str | None]
    index_folder: NotRequired[str | None]
    pooled: NotRequired[bool]
    imported: NotRequired[bool]
    format: NotRequired[int]
    fingerprint: NotRequired[str]
    split: NotRequired[str]
    rows_hash: NotRequired[str]


@dataclass(frozen=True)
class Predictions:
    """Logits of one model on one split. `logits` is (n, 7) float64, `labels` (n,) class numbers.

    `groups` (n,) names the near-duplicates of one image alike; None where they are not known: each row is a group of
    its own.
    """

    split: str
    image_ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    logits: NDArray[np.float64]
    meta: PredictionsMeta
    groups: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        n = len(self.labels)
        if n == 0:
            raise InputError(f"There are no {self.split} rows.", rule="Predictions have at least one row.")
        missing = REQUIRED - set(self.meta)
        if missing:
            raise InputError(
                f"The predictions do not state {', '.join(sorted(missing))}.",
                rule="Each says which weights and index it is of.",
            )
        if self.groups is not None and len(self.groups) != n:
            raise InputError(f"{len(self.groups)} groups for {n} labels.", rule="One group a row.")
        if self.logits.shape != (n, len(LABELS)) or len(self.image_ids) != n:
            raise InputError(
                f"Logits of shape {self.logits.shape} for {n} labels.", rule="One row of 7 logits an image."
            )
        if not np.isfinite(self.logits).all():
            raise InputError(
                f"{int((~np.isfinite(self.logits)).sum())} logits are NaN or Inf.", rule="Logits are finite."
            )
        if self.meta.get("scale_in_logits") is not True:
            raise InputError(
                "The predictions do not state that the scale is in the logits.", rule="`scale_in_logits: true`."
            )
        largest = float(np.abs(self.logits).max()) if n else 0.0
        if self.meta.get("head") != "linear" and n and largest <= COSINE_LIMIT and self.meta.get("pooled") is not True:
            raise InputError(
                f"max |logit| is {largest:.3f} from a head {self.meta.get('head')!r}: these are bare cosines.",
                rule="Logits are scaled, so that softmax gives the model's probabilities.",
                fix="Multiply by the head's scale before writing them.",
            )

    @property
    def group_ids(self) -> NDArray[np.str_]:
        """The group of each row, (n,): the row's own id where groups are not known."""
        return self.image_ids if self.groups is None else self.groups

    @property
    def hash(self) -> str:
        """Hash of the split, ids, labels, logits and groups: what a calibration is tied to."""
        ids = "\n".join(self.image_ids.tolist()).encode()
        parts = {"ids": _sha(ids), "labels": _sha(self.labels.tobytes()), "logits": _sha(self.logits.tobytes())}
        if self.groups is None:
            return base.fingerprint(KIND, _UNGROUPED, {"split": self.split}, parts)
        parts["groups"] = _sha("\n".join(self.groups.tolist()).encode())
        return base.fingerprint(KIND, VERSION, {"split": self.split}, parts)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def predictions_path(run: Path, split: str) -> Path:
    """Where a run or ensemble keeps its predictions of a split."""
    return run / "predictions" / f"{split}.parquet"


def write_predictions(path: Path, predictions: Predictions, *, fingerprint: str) -> None:
    """Write crash-safely; the fingerprint and metadata are inside the file."""
    meta: PredictionsMeta = {
        **predictions.meta,
        "format": VERSION,
        "fingerprint": fingerprint,
        "split": predictions.split,
        "rows_hash": predictions.hash,
    }
    names = np.array(LABELS)
    columns = {
        "image_id": pa.array(predictions.image_ids.tolist(), pa.string()),
        "split": pa.array([predictions.split] * len(predictions.labels), pa.string()),
        "label": pa.array(names[predictions.labels].tolist(), pa.string()),
    }
    if predictions.groups is not None:
        columns["group_id"] = pa.array(predictions.groups.tolist(), pa.string())
    for i, name in enumerate(COLUMNS):
        columns[name] = pa.array(predictions.logits[:, i], pa.float64())
    table = pa.table(columns).replace_schema_metadata({_META: json.dumps(meta, allow_nan=False).encode()})
    with base.atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_predictions(path: Path, *, allow_test: bool = False) -> Predictions:
    """Read and check predictions. Test rows are refused unless `allow_test` (evaluate and report)."""
    if not path.is_file():
        split = path.stem
        raise ArtifactError(
            f"No predictions at {path}.", fix=f"Make them: `mien predict RUN --index DIR --split {split}`."
        )
    try:
        table = pq.read_table(path)
        meta: PredictionsMeta = json.loads((table.schema.metadata or {})[_META])
        splits = set(table["split"].to_pylist())
        labels = [INDEX[name] for name in table["label"].to_pylist()]
        logits = np.column_stack([table[name].to_numpy() for name in COLUMNS]).astype(np.float64)
        groups = np.array(table["group_id"].to_pylist(), dtype=str) if "group_id" in table.column_names else None
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
        raise ArtifactError(f"{path} is no predictions file of mien ({type(error).__name__}: {error}).") from None
    if "test" in splits | {meta.get("split")} and not allow_test:
        raise SplitError(
            f"{path} holds test rows.", rule="Test is opened by `mien evaluate` alone, and decides nothing."
        )
    if splits - {meta.get("split")} or (path.stem != meta.get("split")):
        raise SplitError(
            f"{path} holds rows of {sorted(splits)} and says {meta.get('split')!r}.", rule="One split a file."
        )
    ids = np.array(table["image_id"].to_pylist(), dtype=str)
    predictions = Predictions(str(meta["split"]), ids, np.array(labels, dtype=np.int64), logits, meta, groups)
    if predictions.hash != meta.get("rows_hash"):
        raise ArtifactError(
            f"The rows of {path} were altered after they were written.", fix="Predict again with `mien predict`."
        )
    expected = {
        fingerprint_of(meta["weights_hash"], meta["index"], predictions.split, version)
        for version in (_UNGROUPED, VERSION)
    }
    if not meta.get("pooled") and meta.get("fingerprint") not in expected:
        raise ArtifactError(
            f"{path} was written as something else than {predictions.split} predictions of its weights.",
            fix="Predict again.",
        )
    return predictions


def stored_fingerprint(path: Path) -> str | None:
    """The fingerprint inside a predictions file, None when there is no readable one."""
    try:
        meta = pq.read_schema(path).metadata or {}
        return str(json.loads(meta[_META])["fingerprint"])
    except (OSError, pa.ArrowException, KeyError, json.JSONDecodeError):
        return None


def fingerprint_of(weights_hash: str, index_hash: str, split: str, version: int = VERSION) -> str:
    """Fingerprint of predictions: which weights, which index, which split."""
    return base.fingerprint(KIND, version, {"split": split}, {"weights": weights_hash, "index": index_hash})


def check_same_rows(several: list[Predictions]) -> None:
    """Raise unless all predictions are of the same images with the same labels in the same order."""
    first = several[0]
    for other in several[1:]:
        same = np.array_equal(first.image_ids, other.image_ids)
        if not same or not np.array_equal(first.labels, other.labels):
            what = "predicted different images" if not same else "have different labels for the same images"
            raise InputError(
                f"{first.meta.get('name')} and {other.meta.get('name')} {what} of {first.split}.",
                rule="Members of an ensemble predict the same rows.",
                fix="Predict all of them with one --index, or import files of the same rows.",
            )
        if not np.array_equal(first.group_ids, other.group_ids):
            raise InputError(
                f"{first.meta.get('name')} and {other.meta.get('name')} have different near-duplicate groups of "
                f"{first.split}.",
                rule="The groups decide which part of calib a row is in, the same part for every member.",
                fix=(
                    "One file is of an older version or was imported without --index: predict again with `mien "
                    "predict`, or import with --index."
                ),
            )
