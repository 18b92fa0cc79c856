"""The rows that something may be fitted or chosen on: val or calib rows, never test rows.

Calib is dealt into parts, so that no image serves two purposes: temperatures and other scalings are
fitted on one, ensemble weights on the second, thresholds and conformal quantiles on the third.
"""

from __future__ import annotations

import hashlib
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.predictions import Predictions
from mien.core.errors import InputError, SplitError
from mien.core.labels import LABELS

FITTABLE = ("val", "calib")
Part = Literal["temperature", "weights", "thresholds"]
SHARES: dict[Part, float] = {"temperature": 0.4, "weights": 0.3, "thresholds": 0.3}
FEWEST = 50
_TOKEN = object()


class CalibrationRows:
    """Logits (n, 7), labels (n,), ids (n,) and near-duplicate groups (n,) that may be fitted on.

    Fitters take only this type, and only `of`, `part`, `take` and `with_logits` build it.
    """

    def __init__(
        self,
        logits: NDArray[np.float64],
        labels: NDArray[np.int64],
        ids: NDArray[np.str_],
        groups: NDArray[np.str_],
        split: str,
        *,
        token: object,
        name: Part | None = None,
    ) -> None:
        if token is not _TOKEN:
            raise SplitError(
                "CalibrationRows cannot be built by hand.", rule="They come from checked val or calib predictions."
            )
        for array in (logits, labels):
            array.setflags(write=False)
        self.logits, self.labels, self.ids, self.groups = logits, labels, ids, groups
        self.split, self.name = split, name
        self._parts: dict[Part, NDArray[np.int64]] | None = None
        self._closed = True

    def __setattr__(self, key: str, value: object) -> None:
        if key != "_parts" and getattr(self, "_closed", False):
            raise SplitError(
                f"CalibrationRows.{key} cannot be set.", rule="They come from checked val or calib predictions."
            )
        object.__setattr__(self, key, value)

    @classmethod
    def of(cls, predictions: Predictions) -> Self:
        """The rows of val or calib predictions; any other split is a `SplitError`."""
        if predictions.split not in FITTABLE:
            raise SplitError(
                f"These are {predictions.split} predictions.",
                rule="Only val may choose and only calib may fit; test decides nothing.",
            )
        copied = predictions.logits.copy(), predictions.labels.copy()
        return cls(*copied, predictions.image_ids, predictions.group_ids, predictions.split, token=_TOKEN)

    def take(self, rows: NDArray[np.int64], logits: NDArray[np.float64] | None = None) -> CalibrationRows:
        """A subset, optionally with other logits (pooled or scaled) for the same rows."""
        values = self.logits if logits is None else logits
        if len(values) != len(self.labels):
            raise InputError(f"{len(values)} logits for {len(self.labels)} rows.")
        return self._select(rows, values, self.name)

    def _select(self, rows: NDArray[np.int64], values: NDArray[np.float64], name: Part | None) -> CalibrationRows:
        arrays = (
            np.array(values[rows], dtype=np.float64),
            np.array(self.labels[rows]),
            self.ids[rows],
            self.groups[rows],
        )
        return CalibrationRows(*arrays, self.split, token=_TOKEN, name=name)

    def with_logits(self, logits: NDArray[np.float64]) -> CalibrationRows:
        """The same rows with other logits, e.g. an ensemble's."""
        out = self.take(np.arange(len(self.labels)), logits)
        out._parts = self._parts
        return out

    def part(self, name: Part) -> CalibrationRows:
        """The rows of one part; parts are not dealt again."""
        if self.name is not None:
            raise SplitError(f"These rows are the part {self.name!r} already.", rule="A part is not dealt again.")
        if self._parts is None:
            self._parts = deal(self.ids, self.labels, self.groups)
        out = self._select(self._parts[name], self.logits, name)
        if not len(out):
            raise InputError(
                f"The part {name} of {self.split} has no rows: {len(self)} in all.",
                rule=f"Calib is dealt into three parts, and each should have {FEWEST} rows.",
                fix="Give calib more images (--calib-fraction).",
            )
        return out

    def shortcomings(self) -> list[str]:
        """Named warnings about rows that are too few: `few_rows`, `class_missing`."""
        where = f"the part {self.name} of {self.split}" if self.name else self.split
        warnings = [f"few_rows: {where} has {len(self)} rows, under {FEWEST}"] if len(self) < FEWEST else []
        missing = [LABELS[c] for c in range(len(LABELS)) if not (self.labels == c).any()]
        return warnings + ([f"class_missing: {where} has no {', '.join(missing)}"] if missing else [])

    def __len__(self) -> int:
        return len(self.labels)


def require(rows: object, fitter: str) -> None:
    """Raise `TypeError` unless `rows` are `CalibrationRows`."""
    if not isinstance(rows, CalibrationRows) or getattr(rows, "split", None) not in FITTABLE:
        raise TypeError(f"{fitter} takes CalibrationRows, not {type(rows).__name__}: test rows may not be fitted on")


def deal(ids: NDArray[np.str_], labels: NDArray[np.int64], groups: NDArray[np.str_]) -> dict[Part, NDArray[np.int64]]:
    """Row numbers of each part: within each class by the hash of the id, in the shares of `SHARES`; groups stay whole.

    A group has the hash and the class of its row with the smallest hash. A function of ids, labels and groups (n,)
    alone: the same for every model, whatever the order of the rows.
    """
    keys = np.array([hashlib.sha256(f"part:{i}".encode()).hexdigest() for i in ids.tolist()])
    order = np.argsort(keys, kind="stable")
    _, first, group, size = np.unique(groups[order], return_index=True, return_inverse=True, return_counts=True)
    heads = order[first]  # of each group the row with the smallest hash
    ends = np.cumsum(list(SHARES.values()))
    owner = np.empty(len(heads), dtype=np.int64)
    for c in np.unique(labels[heads]):
        members = np.flatnonzero(labels[heads] == c)
        ranked = members[np.argsort(first[members])]
        place = (size[ranked].cumsum() - size[ranked] / 2) / size[ranked].sum()
        owner[ranked] = np.minimum(np.searchsorted(ends, place, side="right"), len(ends) - 1)
    of_row = np.empty(len(labels), dtype=np.int64)
    of_row[order] = owner[group]
    return {name: np.flatnonzero(of_row == i) for i, name in enumerate(SHARES)}
