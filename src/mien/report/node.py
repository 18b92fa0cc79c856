"""JSON values with their file and path, the source of every number of a report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mien.report.blocks import OPERATIONS, Estimate, Number, Quote, Rounding, Source

_NAME = re.compile(r"[A-Za-z_]\w*")
Style = Literal["fixed", "signed", "count", "significant"]


@dataclass(frozen=True)
class Node:
    """A value of a JSON file, its file's name below the report's folder, and its JSON path."""

    value: Any
    file: str
    path: str = "$"

    def __getitem__(self, key: str | int) -> Node:
        """The value under a key or index; `KeyError` where there is none."""
        if isinstance(key, int):
            return Node(self.value[key], self.file, f"{self.path}[{key if key >= 0 else len(self.value) + key}]")
        step = f".{key}" if _NAME.fullmatch(key) else "['" + key.replace("\\", "\\\\").replace("'", "\\'") + "']"
        return Node(self.value[key], self.file, self.path + step)

    def get(self, key: str) -> Node | None:
        """The value under a key, None where there is none or it is null."""
        if not isinstance(self.value, dict) or self.value.get(key) is None:
            return None
        return self[key]

    def at(self, *keys: str | int) -> Node:
        """The value at the end of several keys."""
        node = self
        for key in keys:
            node = node[key]
        return node

    def __iter__(self) -> Iterator[Node]:
        """The entries of a list."""
        return (self[i] for i in range(len(self.value)))

    def items(self) -> list[tuple[str, Node]]:
        """The entries of an object."""
        return [(key, self[key]) for key in self.value]

    def __bool__(self) -> bool:
        """Whether the value is there and not empty; 0 is there."""
        return self.value is not None and self.value not in ({}, [], "")

    @property
    def source(self) -> Source:
        """Where the value stands."""
        return Source(self.file, self.path)

    @property
    def text(self) -> str:
        """The value as a name."""
        return str(self.value)

    def number(self, digits: int = 3, *, scale: float = 1.0, style: Style = "fixed") -> Number:
        """The value as a number of a report."""
        return Number(float(self.value), (self.source,), Rounding(digits, scale, style))

    def count(self) -> Number:
        """The value as a count, with thousands apart."""
        return self.number(0, style="count")

    def percent(self, digits: int = 1) -> Number:
        """A share in per cent."""
        return self.number(digits, scale=100)

    def quote(self) -> Quote:
        """The value as words of an artefact."""
        return Quote(str(self.value), self.source)

    def scored(self, key: str, digits: int = 3, *, style: Style = "fixed") -> Number | Estimate:
        """A metric of a metrics object, with its interval where it has one."""
        value, ends = self[key].number(digits, style=style), self.get("ci95")
        if ends is None or ends.get(key) is None:
            return value
        return estimate(self[key], ends[key], digits, style=style)


def estimate(value: Node, ends: Node, digits: int = 3, *, style: Style = "fixed") -> Estimate:
    """A value and the two ends of its interval."""
    low, high = (ends[i].number(digits, style=style) for i in (0, 1))
    return Estimate(value.number(digits, style=style), low, high)


def combined(operation: str, nodes: Sequence[Node], rounding: Rounding) -> Number:
    """Several values joined into one number by an operation of `blocks.OPERATIONS`."""
    value = OPERATIONS[operation]([float(node.value) if operation != "count" else 1.0 for node in nodes])
    return Number(value, tuple(node.source for node in nodes), rounding, operation)


def counted(nodes: Sequence[Node]) -> Number:
    """How many entries there are; at least one, as a count has its sources."""
    return combined("count", nodes, Rounding(0, style="count"))


def named(key: str, node: Node) -> Quote:
    """A key of an object as words of the artefact that holds it."""
    return Quote(key, node.source)


def shortened(node: Node, length: int = 16) -> Quote:
    """The start of a hash."""
    return Quote(node.text[:length], node.source)
