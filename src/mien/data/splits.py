"""Which side a picture stands on: official sides first, then carving by groups and classes.

Official test and val stay; a picture on several sides goes to the strictest (test over val over
calib over train). Sources without official sides get val and test carved; calib is carved out of
train. What is carved are whole units (a subject's or a near-duplicate group's pictures together),
for each source and class its share, in an order that depends on the seed and the unit's name alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from mien.core.errors import SplitError

STRICTNESS = {"train": 0, "calib": 1, "val": 2, "test": 3}


def strictest(sides: Sequence[str]) -> str:
    """The strictest of several sides."""
    return max(sides, key=STRICTNESS.__getitem__)


def order_key(seed: int, purpose: str, name: str) -> str:
    """A pseudo-random sort key that depends on nothing but its arguments."""
    return hashlib.sha256(f"{seed}:{purpose}:{name}".encode()).hexdigest()


def carve(
    units: Sequence[str], labels: Sequence[str], sources: Sequence[str], fraction: float, *, seed: int, purpose: str
) -> list[bool]:
    """Choose whole units that hold about `fraction` of every (source, class); True for chosen rows.

    A unit counts for its commonest class. Every class with at least two units gives at least one.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for i, unit in enumerate(units):
        rows[unit].append(i)
    strata: dict[tuple[str, str], list[str]] = defaultdict(list)
    for unit, members in rows.items():
        label = Counter(labels[i] for i in members).most_common(1)[0][0]
        strata[sources[members[0]], label].append(unit)
    chosen = [False] * len(units)
    for members_of in strata.values():
        members_of.sort(key=lambda unit: order_key(seed, purpose, unit))
        target = fraction * sum(len(rows[unit]) for unit in members_of)
        taken = 0
        for unit in members_of[: max(0, len(members_of) - 1)]:
            # Stop where one more unit would miss the target by more than stopping does.
            if taken and taken + len(rows[unit]) - target > target - taken:
                break
            for i in rows[unit]:
                chosen[i] = True
            taken += len(rows[unit])
    return chosen


def assign(
    official: Sequence[str | None], units: Sequence[str], labels: Sequence[str], sources: Sequence[str],
    *, val: float, test: float, calib: float, seed: int, stated: Mapping[str, set[str]],
) -> list[str]:  # fmt: skip
    """A side for every picture.

    `official` is the strictest official side of a picture, None where its sources state none; `stated`
    are the official sides that each source states anywhere.
    Raises `SplitError` when train or calib would lack a class that exists.
    """
    sides: list[str | None] = list(official)
    _follow_units(sides, units)

    def move(rows: list[int], fraction: float, side: str) -> None:
        picked = carve(
            [units[i] for i in rows],
            [labels[i] for i in rows],
            [sources[i] for i in rows],
            fraction,
            seed=seed,
            purpose=side,
        )
        for i, chosen in zip(rows, picked, strict=True):
            if chosen:
                sides[i] = side
        _follow_units(sides, units)  # a unit's rows in other sources follow

    # A source without official sides gives test and val from all its rows, one that lacks only one
    # of the two gives that one from its train rows.
    for side, fraction in (("test", test), ("val", val / (1 - test))):
        has = {source for source, its_own in stated.items() if side in its_own}
        move([i for i, now in enumerate(sides) if now in (None, "train") and sources[i] not in has], fraction, side)
    move([i for i, now in enumerate(sides) if now in (None, "train")], calib, "calib")
    final = [side or "train" for side in sides]
    _check(final, labels)
    return final


def _follow_units(sides: list[str | None], units: Sequence[str]) -> None:
    """Rows without a side go where the strictest row of their unit stands."""
    fixed: dict[str, str] = {}
    for unit, side in zip(units, sides, strict=True):
        if side is not None:
            fixed[unit] = strictest([fixed.get(unit, side), side])
    for i, unit in enumerate(units):
        if unit in fixed and (sides[i] is None or STRICTNESS[fixed[unit]] > STRICTNESS[sides[i] or "train"]):
            sides[i] = fixed[unit]


def _check(sides: Sequence[str], labels: Sequence[str]) -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    for side, label in zip(sides, labels, strict=True):
        seen[side].add(label)
    everything = set(labels)
    for side in ("train", "calib"):
        missing = everything - seen[side]
        if missing:
            raise SplitError(
                f"No picture of {', '.join(sorted(missing))} is left for {side}.",
                rule="train and calib need every class that the index has, in groups of their own.",
                fix="Add pictures of these classes, or lower the val, test and calib fractions.",
            )


def water_level(counts: Sequence[int], budget: int) -> int:
    """The largest cap c with sum(min(count, c)) <= budget."""
    low, high = 0, max(counts, default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(count, middle) for count in counts) <= budget:
            low = middle
        else:
            high = middle - 1
    return low
