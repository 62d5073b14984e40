"""Thrift's compact protocol, as far as Parquet's footer and page headers need it: plain values by field number."""

from __future__ import annotations

from typing import Any

__all__ = ["Compact"]

_MAX_FIELDS = 64
_MAX_DEPTH = 16


class Compact:
    """Reads structs between two places of a body, and raises ValueError for what is not one."""

    def __init__(self, body: memoryview, at: int, end: int) -> None:
        self.body, self.at, self.end = body, at, end

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Return the next struct: numbers, bytes, lists and structs by the number of their field."""
        if depth > _MAX_DEPTH:
            raise ValueError("structs that are nested too deeply")
        found: dict[int, Any] = {}
        field = 0
        for _ in range(_MAX_FIELDS):
            head = self._byte()
            if not head:
                return found
            field = field + (head >> 4) if head >> 4 else self._zigzag()
            if field in found:
                raise ValueError("a field that is there twice")
            kind = head & 15
            # A bool is in the head of its field.
            found[field] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        raise ValueError("a struct with too many fields")

    def _value(self, kind: int, depth: int) -> Any:
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._zigzag()
            case 7:
                return self._bytes(8)
            case 8:
                return self._bytes(self._varint())
            case 9 | 10:
                return self._list(depth + 1)
            case 12:
                return self.struct(depth + 1)
        raise ValueError("a field of a kind that is not read")

    def _list(self, depth: int) -> list[Any]:
        if depth > _MAX_DEPTH:
            raise ValueError("lists that are nested too deeply")
        head = self._byte()
        count = self._varint() if head >> 4 == 15 else head >> 4
        # Each item takes a byte at least.
        if count > self.end - self.at:
            raise ValueError("a list that is cut off")
        return [self._value(head & 15, depth) for _ in range(count)]

    def _byte(self) -> int:
        if self.at >= self.end:
            raise ValueError("a struct that is cut off")
        self.at += 1
        return self.body[self.at - 1]

    def _bytes(self, count: int) -> bytes:
        if count > self.end - self.at:
            raise ValueError("a struct that is cut off")
        self.at += count
        return bytes(self.body[self.at - count : self.at])

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number that is too long")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
