"""The content of a TensorFlow Lite file: tensors, operators and their options, read without TensorFlow.

Field numbers are those of TensorFlow's `schema.fbs` (version 3); the layout of tables and vectors is FlatBuffers'
(https://flatbuffers.dev/internals).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.core.errors import InputError

IDENTIFIER = b"TFL3"
_TYPES: dict[int, type[np.generic]] = {0: np.float32, 1: np.float16, 2: np.int32}  # TensorType


class Table:
    """A FlatBuffers table: fields by their number in the schema."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data, self._position = data, position
        self._fields = position - struct.unpack_from("<i", data, position)[0]

    def _position_of(self, field: int) -> int | None:
        """The position of a field, None where the file leaves it at its default."""
        size = struct.unpack_from("<H", self._data, self._fields)[0]
        entry = 4 + 2 * field
        offset = struct.unpack_from("<H", self._data, self._fields + entry)[0] if entry < size else 0
        return self._position + offset if offset else None

    def _follow(self, position: int) -> int:
        return position + int(struct.unpack_from("<I", self._data, position)[0])

    def number(self, field: int, kind: str = "i") -> int:
        """An integer: `b` of one byte, `i` or `I` of four; 0 where it is not set."""
        position = self._position_of(field)
        return 0 if position is None else int(struct.unpack_from(f"<{kind}", self._data, position)[0])

    def numbers(self, field: int) -> list[int]:
        """A vector of 32-bit integers."""
        return [int(value) for value in np.frombuffer(self.raw(field, 4), "<i4")]

    def raw(self, field: int, size: int = 1) -> bytes:
        """The bytes of a vector whose elements have `size` bytes."""
        position = self._position_of(field)
        if position is None:
            return b""
        start = self._follow(position)
        count = struct.unpack_from("<I", self._data, start)[0]
        return self._data[start + 4 : start + 4 + count * size]

    def table(self, field: int) -> Table | None:
        """A table within this one."""
        position = self._position_of(field)
        return None if position is None else Table(self._data, self._follow(position))

    def tables(self, field: int) -> list[Table]:
        """A vector of tables."""
        position = self._position_of(field)
        if position is None:
            return []
        start = self._follow(position)
        count = struct.unpack_from("<I", self._data, start)[0]
        return [Table(self._data, self._follow(start + 4 + 4 * k)) for k in range(count)]


@dataclass(frozen=True)
class Tensor:
    """A tensor: its shape, and its values where they stand in the file (weights)."""

    name: str
    shape: tuple[int, ...]
    values: NDArray[np.generic] | None


@dataclass(frozen=True)
class Operator:
    """An operator: BuiltinOperator code, numbers of its tensors, its table of options."""

    code: int
    inputs: list[int]
    outputs: list[int]
    options: Table | None


@dataclass(frozen=True)
class Graph:
    """The first subgraph of a file; `inputs` and `outputs` number `tensors`."""

    tensors: list[Tensor]
    operators: list[Operator]
    inputs: list[int]
    outputs: list[int]


def read_tflite(data: bytes) -> Graph:
    """The graph of a TensorFlow Lite file.

    Raises
    ------
    InputError
        for bytes that are no such file, or that end early
    """
    if data[4:8] != IDENTIFIER:
        raise InputError(f"A file that begins with {data[:8]!r}.", rule="A TensorFlow Lite file has TFL3 at byte 4.")
    try:
        return _graph(Table(data, struct.unpack_from("<I", data)[0]))
    except (struct.error, IndexError, ValueError) as error:
        raise InputError(f"A TensorFlow Lite file that is damaged: {error}.", fix="Fetch it again.") from None


def _graph(model: Table) -> Graph:
    buffers, main = model.tables(4), model.tables(2)[0]
    codes = [max(code.number(0, "b"), code.number(3)) for code in model.tables(1)]
    operators = [
        Operator(codes[table.number(0, "I")], table.numbers(1), table.numbers(2), table.table(4))
        for table in main.tables(3)
    ]
    return Graph([_tensor(table, buffers) for table in main.tables(0)], operators, main.numbers(1), main.numbers(2))


def _tensor(table: Table, buffers: list[Table]) -> Tensor:
    shape, raw = tuple(table.numbers(0)), buffers[table.number(2, "I")].raw(0)
    kind = table.number(1, "b")
    if raw and kind not in _TYPES:
        raise InputError(
            f"A tensor of type {kind}.", rule=f"Known are {sorted(_TYPES)} of TensorFlow Lite's TensorType."
        )
    values = np.frombuffer(raw, _TYPES[kind]).reshape(shape) if raw else None
    return Tensor(table.raw(3).decode(), shape, values)
