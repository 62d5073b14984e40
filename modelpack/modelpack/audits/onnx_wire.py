"""Protocol buffers as bytes: one message at a time, by a table of the fields it may have.

Stricter than the parsers of the frameworks, so that both see the same: an unknown field, a field of another wire type,
and a second value of a field that has one are refused, where a parser would skip, guess or merge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np

from modelpack.errors import PackageError

__all__ = ["Field", "Message", "malformed", "parse"]

Array = np.ndarray[Any, Any]
# one, many: a field with at most one value, or with several. Of numbers: int (varint), float, double.
Kind = Literal["int", "text", "bytes", "message", "float", "double"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRE: Mapping[Kind, int] = {
    "int": _VARINT,
    "text": _BYTES,
    "bytes": _BYTES,
    "message": _BYTES,
    "float": _FIXED32,
    "double": _FIXED64,
}
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message: its name, what it holds, and whether it may come more than once.

    A field of many numbers is found as one array; any other field of many as a list.
    """

    name: str
    kind: Kind
    many: bool = False

    @property
    def numbers(self) -> bool:
        """Whether it is found as an array."""
        return self.many and self.kind in ("int", "float", "double")


@dataclass(frozen=True, slots=True)
class Message:
    """The fields found in one message, by name."""

    found: Mapping[str, Any]

    def has(self, name: str) -> bool:
        """Say whether the field has a value."""
        return name in self.found

    def int(self, name: str, default: int = 0) -> int:
        """Return an integer."""
        value: int = self.found.get(name, default)
        return value

    def text(self, name: str) -> str:
        """Return a text, empty if the field has none."""
        value: str = self.found.get(name, "")
        return value

    def view(self, name: str) -> memoryview:
        """Return the bytes of a field or of an inner message."""
        value: memoryview = self.found.get(name, memoryview(b""))
        return value

    def many(self, name: str) -> list[Any]:
        """Return all values of a field that may have several."""
        value: list[Any] = self.found.get(name, [])
        return value

    def array(self, name: str) -> Array:
        """Return the numbers of a field."""
        value: Array = self.found.get(name, np.empty(0, np.int64))
        return value


def malformed(message: str, entry: str) -> NoReturn:
    """Refuse the payload."""
    raise PackageError(
        f"not an ONNX model that is taken: {message}",
        code="payload-invalid",
        path=entry,
        hint="The payload is damaged or made to do harm; no grant makes it loadable.",
    )


def parse(view: memoryview, fields: Mapping[int, Field], entry: str) -> Message:
    """Return the fields of one message; inner messages stay bytes.

    Raises:
        PackageError: it is not such a message (``payload-invalid``).
    """
    found: dict[str, Any] = {}
    position, end = 0, len(view)
    while position < end:
        start = position
        tag, position = _varint(view, position, entry)
        field, wire = fields.get(tag >> 3), tag & 7
        if field is None:
            malformed(f"a message has the unknown field {tag >> 3}", entry)
        if field.numbers:
            value, position = _numbers(view, start, position, field, wire, entry)
            found[field.name] = np.concatenate([found[field.name], value]) if field.name in found else value
            continue
        if wire != _WIRE[field.kind]:
            malformed(f"the field {field.name} is of another type", entry)
        single, position = _single(view, position, field, entry)
        if field.many:
            found.setdefault(field.name, []).append(single)
        elif field.name in found:
            malformed(f"the field {field.name} has two values", entry)
        else:
            found[field.name] = single
    return Message(found)


def _single(view: memoryview, position: int, field: Field, entry: str) -> tuple[Any, int]:
    if field.kind == "int":
        value, position = _varint(view, position, entry)
        return (value - (1 << 64) if value >= 1 << 63 else value), position
    if field.kind in ("float", "double"):
        size = 4 if field.kind == "float" else 8
        if position + size > len(view):
            malformed("a number is cut off", entry)
        return float(np.frombuffer(view[position : position + size], f"<f{size}")[0]), position + size
    length, position = _varint(view, position, entry)
    if length > len(view) - position:
        malformed("a field is longer than what holds it", entry)
    part = view[position : position + length]
    position += length
    if field.kind != "text":
        return part, position
    try:
        return bytes(part).decode("utf-8"), position
    except UnicodeDecodeError:
        malformed(f"the field {field.name} is not UTF-8", entry)


def _varint(view: memoryview, position: int, entry: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            break
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, position
    malformed("a number is cut off or too long", entry)


def _numbers(view: memoryview, start: int, position: int, field: Field, wire: int, entry: str) -> tuple[Array, int]:
    """Return the numbers at ``position``: one packed block, or a run of single ones with the tag at ``start``."""
    if wire == _BYTES:
        block, position = _single(view, position, Field(field.name, "bytes"), entry)
        return _packed(block, field, entry), position
    if wire != _WIRE[field.kind]:
        malformed(f"the field {field.name} is of another type", entry)
    if position - start != 1:
        malformed(f"the field {field.name} has a tag that is longer than it should be", entry)
    parts = list(_runs(view, start, field, entry))
    return np.concatenate([part for part, _ in parts]), parts[-1][1]


def _packed(block: memoryview, field: Field, entry: str) -> Array:
    if field.kind != "int":
        dtype = np.dtype("<f4" if field.kind == "float" else "<f8")
        if len(block) % dtype.itemsize:
            malformed("a number is cut off", entry)
        return np.frombuffer(block, dtype)
    raw = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if len(raw) and (not len(ends) or ends[-1] != len(raw) - 1):
        malformed("a number is cut off", entry)
    return _decoded(raw, np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends, ends, entry)


def _runs(view: memoryview, position: int, field: Field, entry: str) -> Iterator[tuple[Array, int]]:
    """Yield (numbers, next position) for the run of tagged numbers that starts at ``position``, a piece at a time."""
    tag = view[position]
    while position < len(view) and view[position] == tag:
        raw = np.frombuffer(view[position : position + _CHUNK], np.uint8)
        if field.kind == "int":
            value, used = _tagged_ints(raw, tag, entry)
        else:
            value, used = _tagged_floats(raw, tag, "<f4" if field.kind == "float" else "<f8")
        if not used:
            malformed("a number is cut off", entry)
        position += used
        yield value, position


def _tagged_floats(raw: Array, tag: int, dtype: str) -> tuple[Array, int]:
    width = 1 + np.dtype(dtype).itemsize
    rows = raw[: len(raw) // width * width].reshape(-1, width)
    other = np.flatnonzero(rows[:, 0] != tag)
    rows = rows[: other[0]] if len(other) else rows
    return np.ascontiguousarray(rows[:, 1:]).reshape(-1).view(dtype), rows.size


def _tagged_ints(raw: Array, tag: int, entry: str) -> tuple[Array, int]:
    """Return the numbers of a run ``tag number tag number …`` that lies whole in ``raw``."""
    ends = np.flatnonzero(raw < 0x80)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    pairs = len(ends) // 2
    good = (starts[: 2 * pairs : 2] == ends[: 2 * pairs : 2]) & (raw[starts[: 2 * pairs : 2]] == tag)
    stop = np.flatnonzero(~good)
    pairs = int(stop[0]) if len(stop) else pairs
    if not pairs:
        return np.empty(0, np.int64), 0
    values = _decoded(raw, starts[1 : 2 * pairs : 2], ends[1 : 2 * pairs : 2], entry)
    return values, int(ends[2 * pairs - 1]) + 1


def _decoded(raw: Array, starts: Array, ends: Array, entry: str) -> Array:
    """Return the varints that lie between ``starts`` and ``ends`` as int64."""
    lengths = ends - starts + 1
    if len(lengths) and int(lengths.max()) > 10:
        malformed("a number is too long", entry)
    if len(lengths) and (raw[ends[lengths == 10]] > 1).any():
        malformed("a number is too long", entry)
    value = np.zeros(len(starts), np.uint64)
    for place in range(int(lengths.max(initial=0))):
        here = lengths > place
        part = (raw[starts[here] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
        value[here] |= part
    return value.view(np.int64)
