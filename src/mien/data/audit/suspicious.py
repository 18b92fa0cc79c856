"""What looks wrong in an index: said first, with examples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts.audit import Finding
from mien.core.labels import LABELS
from mien.data.loading.load import SPLIT_CODE
from mien.data.plan import Plan

_EXAMPLES = 5
CONSTANT = 2.0  # standard deviation of the grey levels below which an image shows nothing
TINY = 32  # pixels of the shorter side
FEW = 100  # train images of a class
RARE = 0.02  # share of a class
SHIFT = 0.25  # difference of mean brightness or contrast, in standard deviations of train
MIX = 0.10  # total variation distance of the class shares


def suspicious(plan: Plan, rows: NDArray[np.int64]) -> list[Finding]:
    """Findings, the gravest kind first."""
    collection = plan.collection
    image = collection.image[rows]
    labels, sides = plan.decisions.label[image], plan.sides[image]
    mean, deviation = collection.numbers("mean", np.float32)[rows], collection.numbers("deviation", np.float32)[rows]
    side = np.minimum(collection.numbers("width", np.int32)[rows], collection.numbers("height", np.int32)[rows])
    out = [
        *_rows(
            plan,
            rows[deviation < CONSTANT],
            "images that show nothing",
            f"standard deviation of the grey levels under {CONSTANT:g}",
        ),
        *_rows(plan, rows[side < TINY], "tiny images", f"shorter side under {TINY} pixels"),
        *_classes(labels, sides),
        *_conflicts(plan),
    ]
    for name, code in SPLIT_CODE.items():
        if name != "train":
            out += _drift(name, sides == code, sides == SPLIT_CODE["train"], mean, deviation, labels)
    return out


def _rows(plan: Plan, rows: NDArray[np.int64], what: str, rule: str) -> list[Finding]:
    if not len(rows):
        return []
    return [
        {"what": what, "count": len(rows), "rule": rule, "examples": plan.collection.texts("path", rows[:_EXAMPLES])}
    ]


def _classes(labels: NDArray[np.int8], sides: NDArray[np.int8]) -> list[Finding]:
    train = np.bincount(labels[sides == SPLIT_CODE["train"]], minlength=len(LABELS))
    every = np.bincount(labels, minlength=len(LABELS))
    trains = bool(train.any())  # an index of test images alone needs no train images
    few = [i for i in range(len(LABELS)) if (trains and train[i] < FEW) or every[i] < RARE * len(labels)]
    if not few:
        return []
    examples = [
        f"{LABELS[i]}: {train[i]} train images, {100 * every[i] / max(1, len(labels)):.2f} % of all" for i in few
    ]
    return [
        {
            "what": "classes with few images",
            "count": len(few),
            "rule": f"under {FEW} train images or {RARE:.0%} of all",
            "examples": examples,
        }
    ]


def _conflicts(plan: Plan) -> list[Finding]:
    """Near-duplicates that the index shows under different labels."""
    kept = np.flatnonzero(plan.kept)
    codes = np.unique(plan.group[kept] * len(LABELS) + plan.decisions.label[kept])
    groups, kinds = np.unique(codes // len(LABELS), return_counts=True)
    bad = groups[kinds > 1]
    if not len(bad):
        return []
    examples = [plan.ids[i].hex()[:16] for i in bad[:_EXAMPLES].tolist()]
    return [
        {
            "what": "near-duplicates under different labels",
            "count": len(bad),
            "rule": "groups; see duplicates.csv by group_id",
            "examples": examples,
        }
    ]


def _drift(
    name: str,
    inside: NDArray[np.bool_],
    train: NDArray[np.bool_],
    mean: NDArray[np.float32],
    deviation: NDArray[np.float32],
    labels: NDArray[np.int8],
) -> list[Finding]:
    if not inside.any() or not train.any():
        return []
    out: list[Finding] = []
    for what, values in (("brightness", mean), ("contrast", deviation)):
        shift = float((values[inside].mean() - values[train].mean()) / max(1e-6, float(values[train].std())))
        if abs(shift) > SHIFT:
            out.append(
                {
                    "what": f"{name} differs from train in {what}",
                    "count": int(inside.sum()),
                    "rule": f"mean more than {SHIFT} standard deviations away",
                    "examples": [f"{shift:+.2f}"],
                }
            )
    shares = [np.bincount(labels[mask], minlength=len(LABELS)) / mask.sum() for mask in (inside, train)]
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    if distance > MIX:
        most = int(np.abs(shares[0] - shares[1]).argmax())
        out.append(
            {
                "what": f"{name} differs from train in its mix of classes",
                "count": int(inside.sum()),
                "rule": f"total variation distance over {MIX:g}",
                "examples": [
                    f"{distance:.3f}; most for {LABELS[most]}: {shares[0][most]:.1%} against {shares[1][most]:.1%}"
                ],
            }
        )
    return out
