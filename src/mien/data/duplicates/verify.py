"""Are two candidates the same image? Decided on the pixels, after registering one on the other.

The score of a pair is the correlation of the two thumbnails' high frequencies (a Gaussian of 2 px taken
away) where they overlap, after the affine registration that maximises the enhanced correlation
coefficient (Evangelidis & Psarakis 2008). Different faces agree in their low frequencies, so that plain
correlation cannot tell them apart; the high ones do. On FER2013 the score has two modes with a minimum
between .5 and .6; of the pairs looked at, nearly all above .6 are the same photograph and few below .55
(docs/results/near_duplicates.json, docs/log.md).

Most pairs are settled before the registration: the view under which the hashes met is a registration
already.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mien.data.duplicates.phash import THUMB, View, area_matrix, views, window_matrix

Floats = NDArray[np.floating]

LIKELY = 0.65  # coarse score from which a pair is registered first
HOPELESS = 0.55  # coarse score under the hash's own view below which no registration is tried
_SMALL = 24  # side at which the coarse score is taken
_MIN_OVERLAP = 0.4
_EVERYWHERE = np.full((THUMB, THUMB), 255, np.uint8)
_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 1e-3)


def _gaussian(side: int, sigma: float) -> NDArray[np.float64]:
    distance = np.arange(side)[:, None] - np.arange(side)[None]
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    return np.asarray(weights / weights.sum(1, keepdims=True))


_BLUR = _gaussian(THUMB, 2.0).astype(np.float32)
_SHRINK = area_matrix(THUMB, _SMALL).astype(np.float32)
_COARSE = tuple((_gaussian(_SMALL, sigma)).astype(np.float32) for sigma in (0.4, 2.0))


def _correlations(a: Floats, b: Floats) -> Floats:
    """Correlation of each pair of rows (n, h, w)."""
    a, b = (x.reshape(len(x), -1) - x.reshape(len(x), -1).mean(1, keepdims=True) for x in (a, b))
    norm = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.asarray((a * b).sum(1) / np.maximum(norm, 1e-3), np.float32)


def _high(x: Floats) -> Floats:
    return np.asarray(x - _BLUR @ x @ _BLUR.T, np.float32)


def _under_view(thumbs: Floats, view: View) -> Floats:
    """Thumbnails (n, 48, 48) under a view."""
    if view.cut:
        down, right = (window_matrix(THUMB, view.cut, offset).astype(np.float32) for offset in (view.down, view.right))
        thumbs = down @ thumbs @ right.T
    return thumbs[:, :, ::-1] if view.flip else thumbs


def quick_scores(queries: NDArray[np.uint8], others: NDArray[np.uint8], view: View) -> tuple[Floats, Floats]:
    """(coarse, fine) scores (n,) of pairs of thumbnails, the queries under `view`, unregistered."""
    a, b = _under_view(queries.astype(np.float32), view), others.astype(np.float32)
    small = [_SHRINK @ x @ _SHRINK.T for x in (a, b)]
    bands = [_COARSE[0] @ x @ _COARSE[0].T - _COARSE[1] @ x @ _COARSE[1].T for x in small]
    return _correlations(bands[0], bands[1]), _correlations(_high(a), _high(b))


def _warp(view: View) -> NDArray[np.float32]:
    """Where each pixel of the other image lies in the (mirrored) query, as a 2×3 matrix."""
    right = 1 - view.right if view.flip else view.right
    keep = 1 - view.cut
    shift = [0.5 * keep + offset * view.cut * THUMB - 0.5 for offset in (right, view.down)]
    return np.array([[keep, 0, shift[0]], [0, keep, shift[1]]], dtype=np.float32)


def registered_score(query: NDArray[np.uint8], other: NDArray[np.uint8], view: View) -> float:
    """Score of one pair after registration that begins at `view`; -1 where they cannot be registered."""
    moving = np.ascontiguousarray(query[:, ::-1]) if view.flip else query
    try:
        _, warp = cv2.findTransformECC(other, moving, _warp(view), cv2.MOTION_AFFINE, _STOP, _EVERYWHERE, 3)
    except cv2.error:  # it did not converge
        return -1.0
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(
        moving.astype(np.float32), warp, (THUMB, THUMB), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    inside = cv2.warpAffine(np.ones((THUMB, THUMB), np.uint8), warp, (THUMB, THUMB), flags=flags) > 0
    if inside.mean() < _MIN_OVERLAP:
        return -1.0
    a, b = _high(moved[None].astype(np.float32))[0][inside], _high(other[None].astype(np.float32))[0][inside]
    return float(_correlations(a[None, None], b[None, None])[0])


def verify_quick(task: tuple[int, str, NDArray[np.uint8], NDArray[np.uint8]]) -> tuple[Floats, Floats]:
    """Coarse and fine scores of pairs that met under one view."""
    view, kind, queries, others = task
    return quick_scores(queries, others, views(kind)[view])


def verify_slow(task: tuple[NDArray[np.int64], str, NDArray[np.uint8], NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Registered scores of pairs, each with its view."""
    cv2.setNumThreads(1)
    numbers, kind, queries, others = task
    all_views = views(kind)
    return np.array(
        [registered_score(q, o, all_views[v]) for v, q, o in zip(numbers.tolist(), queries, others, strict=True)],
        np.float32,
    )
