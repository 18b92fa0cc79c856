"""A file of predictions made elsewhere to a folder that is calibrated, joined and judged like a run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts import base
from mien.core.artifacts import prediction_source as store
from mien.core.artifacts.index import Index, read_index
from mien.core.artifacts.plan import is_made
from mien.core.artifacts.predictions import Predictions, PredictionsMeta
from mien.core.artifacts.test_accesses import test_meta
from mien.core.config.judge import ImportConfig
from mien.core.errors import InputError
from mien.core.labels import LABELS
from mien.core.progress import warn
from mien.data.predictions_file import SPLITS, Imported, check_order, read_file


def run(file: Path, out: Path, config: ImportConfig, *, index_folder: Path | None = None) -> store.ImportDocument:
    """Check `file` and write it as an imported folder; with an index its rows must be that index's."""
    imported = read_file(file, config)
    index = None if index_folder is None else read_index(index_folder)
    parts = _with_index(imported, index, file) if index is not None else _without_index(imported, file)
    content = _content(parts) if index is None else index.content_hash
    for split, (_, labels, logits) in parts.items():
        if split != "test":
            check_order(logits, labels, file)
    if imported.left_out:
        warn(f"{file}: left out, as no class of ours: {', '.join(imported.left_out)}")
    source = base.sha256_file(file)
    fingerprint = base.fingerprint(
        store.KIND, store.VERSION, config.model_dump(mode="json"), {"file": source, "index": content}
    )
    weights = base.fingerprint("imported-weights", 1, {}, {"import": fingerprint})
    document: store.ImportDocument = {
        "file": file.name,
        "source_hash": weights,
        "file_sha256": source,
        "index": content,
        "backbone": config.backbone,
        "parameters": config.parameters,
        "numbers": imported.kind,
        "left_out": list(imported.left_out),
        "rows": {split: len(part[0]) for split, part in parts.items()},
    }
    if is_made(out, fingerprint, holds="holds this import already"):
        return document
    of_test = test_meta(out, _test_images(parts, index), index_folder)
    meta: PredictionsMeta = {
        "name": out.resolve().name,
        "weights_hash": weights,
        "index": content,
        "scale_in_logits": True,
        "head": config.head,
        "test_set": of_test["test_set"],
        "index_folder": of_test["index_folder"],
        "imported": True,
    }
    predictions = [
        Predictions(
            split,
            ids,
            labels,
            logits,
            meta,
            None if index is None else index.group_ids[index.rows(split)],
        )
        for split, (ids, labels, logits) in parts.items()
    ]
    store.write_imported(out, document, predictions, fingerprint)
    return document


Part = tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.float64]]
"""Ids, labels and logits of a split."""


def _test_images(parts: dict[str, Part], index: Index | None) -> list[str]:
    """The ids of test: the index's, whether or not the file has them; without an index the file's, if it has some."""
    ids = (
        index.image_ids[index.splits == "test"]
        if index is not None
        else parts["test"][0]
        if "test" in parts
        else np.array([], dtype=str)
    )
    return [str(i) for i in ids]


def _without_index(imported: Imported, file: Path) -> dict[str, Part]:
    if imported.labels is None:
        raise InputError(f"{file} has no labels.", fix="Name the column (--label-column), or the index (--index DIR).")
    parts = {}
    for split in SPLITS:
        rows = np.flatnonzero(imported.splits == split)
        if len(rows):
            rows = rows[np.argsort(imported.ids[rows])]  # one order, so that files of the same rows can be joined
            parts[split] = (imported.ids[rows], imported.labels[rows], imported.logits[rows])
    return parts


def _content(parts: dict[str, Part]) -> str:
    """A hash of which rows these are: files of the same rows have the same."""
    digest = hashlib.sha256()
    for split, (ids, labels, _) in parts.items():
        digest.update(f"{split}\n".encode())
        digest.update("\n".join(ids.tolist()).encode())
        digest.update(labels.tobytes())
    return digest.hexdigest()


def _with_index(imported: Imported, index: Index, file: Path) -> dict[str, Part]:
    """Rows in the index's order, which must be all of each split that the file has."""
    positions = {name: i for i, name in enumerate(imported.ids.tolist())}
    paths = index.table["path"].to_pylist()
    names = set(index.image_ids.tolist()) | set(paths)
    unknown = [name for name in positions if name not in names]
    if unknown:
        raise InputError(
            f"{file} names {len(unknown)} images that {index.folder} does not have, e.g. {str(unknown[0])!r}.",
            rule="Ids are the index's image_id or path.",
        )
    parts = {}
    for split in SPLITS:
        if not (imported.splits == split).any():
            continue
        rows = index.rows(split)
        places = [positions.get(index.image_ids[r], positions.get(paths[r], -1)) for r in rows.tolist()]
        missing = sum(place < 0 for place in places)
        if missing:
            raise InputError(
                f"{file} lacks {missing} of the {len(rows)} {split} images of {index.folder}.",
                rule="A split is predicted in whole, so that all models see the same rows.",
            )
        picked = np.array(places)
        if (imported.splits[picked] != split).any():
            first = picked[imported.splits[picked] != split][0]
            raise InputError(
                f"{file} has {str(imported.ids[first])!r} in {imported.splits[first]}, the index in {split}."
            )
        labels = index.labels[rows]
        if imported.labels is not None and (imported.labels[picked] != labels).any():
            wrong = np.flatnonzero(imported.labels[picked] != labels)
            first = picked[wrong[0]]
            raise InputError(
                (
                    f"{file} labels {len(wrong)} {split} images otherwise than {index.folder}, "
                    f"e.g. {str(imported.ids[first])!r}: {LABELS[imported.labels[first]]} "
                    f"instead of {LABELS[labels[wrong[0]]]}."
                ),
                rule="Labels are the index's.",
                fix="Check --label-numbers, or leave the labels out.",
            )
        parts[split] = (index.image_ids[rows], labels, imported.logits[picked])
    extra = len(imported.ids) - sum(len(part[0]) for part in parts.values())
    if extra:
        raise InputError(
            f"{file} has {extra} rows whose split is not that of {index.folder}.", rule="Each image has one split."
        )
    return parts
