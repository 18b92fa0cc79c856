"""Labels in doubt, from predictions of networks that never saw the row: confident learning.

Northcutt, Jiang and Chuang 2021, arXiv 1911.00068, as cleanlab implements it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.suspects import FoundSuspects
from mien.core.labels import N_CLASSES
from mien.evaluate.calibration_error import Floats, Ints


def find_suspects(probabilities: Floats, labels: Ints) -> FoundSuspects:
    """Which labels to doubt: `suspect` (n,), `quality` (n,) from 0 (surely wrong) to 1, `suggested` class numbers.

    `probabilities` (n, 7) are out-of-fold. The quality is the probability of the given label; suspects are the
    rows with the lowest one, as many as the confident joint estimates to be wrong: of cleanlab's cuts the one with
    the highest precision at equal recall where we planted noise (docs/log.md).
    """
    from cleanlab.filter import find_label_issues  # noqa: PLC0415  (an extra)
    from cleanlab.rank import get_label_quality_scores  # noqa: PLC0415

    suspect = find_label_issues(labels, probabilities, filter_by="low_self_confidence", n_jobs=1)
    quality = get_label_quality_scores(labels, probabilities, method="self_confidence")
    return {
        "suspect": np.asarray(suspect, dtype=bool),
        "quality": np.asarray(quality, dtype=np.float64),
        "suggested": probabilities.argmax(1),
    }


def spread_groups(groups: NDArray[np.str_], labels: Ints, folds: int, seed: int) -> Ints:
    """Fold numbers (n,): a group (near-duplicates of one photograph) stays together, classes are spread evenly."""
    names, owner = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), N_CLASSES), dtype=np.int64)
    np.add.at(counts, (owner, labels), 1)
    main, rng = counts.argmax(1), np.random.default_rng(seed)
    fold, offset = np.empty(len(names), dtype=np.int64), 0
    for c in range(N_CLASSES):
        members = rng.permutation(np.flatnonzero(main == c))
        fold[members] = (np.arange(len(members)) + offset) % folds
        offset += len(members)
    return np.asarray(fold[owner], dtype=np.int64)
