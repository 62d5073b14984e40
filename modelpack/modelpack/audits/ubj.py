"""Universal Binary JSON as XGBoost writes it, read strictly: every length is 64 bits wide and within the file.

Only the markers that XGBoost's writer uses are read. Typed arrays become numpy arrays without a copy of each item.
"""

from __future__ import annotations

import struct
from typing import Any, NoReturn

import numpy as np

from modelpack.audits.skops_archive import malformed

__all__ = ["parse"]

MAX_DEPTH = 32

_SCALARS = {
    b"i": struct.Struct(">b"),
    b"U": struct.Struct(">B"),
    b"I": struct.Struct(">h"),
    b"l": struct.Struct(">i"),
    b"L": struct.Struct(">q"),
    b"d": struct.Struct(">f"),
    b"D": struct.Struct(">d"),
}
_ARRAYS = {b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
_LONG = ord("L")
_CONSTANTS = {b"T": True, b"F": False, b"Z": None}


def parse(data: bytes, entry: str) -> Any:
    """Return the value of a UBJ document: dicts, lists, numpy arrays, texts, numbers.

    Raises:
        PackageError: it is not one, or not all of the file (``payload-invalid``).
    """
    reader = _Reader(data, entry)
    value = reader.value(0)
    if reader.at != len(data):
        reader.refuse("bytes follow the document")
    return value


class _Reader:
    def __init__(self, data: bytes, entry: str) -> None:
        self.data, self.entry, self.at = data, entry, 0

    def refuse(self, message: str) -> NoReturn:
        malformed(f"not UBJ as XGBoost writes it, at byte {self.at}: {message}", self.entry)

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            self.refuse("it ends too early")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def length(self) -> int:
        head = self.data[self.at : self.at + 9]
        if len(head) < 9:
            self.refuse("it ends too early")
        if head[0] != _LONG:
            self.refuse("a length is not 64 bits wide")
        self.at += 9
        found = int.from_bytes(head[1:], "big", signed=True)
        if not 0 <= found <= len(self.data) - self.at:
            self.refuse("a length is beyond the end")
        return found

    def text(self) -> str:
        raw = self.take(self.length())
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.refuse("a text is not UTF-8")

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            self.refuse(f"it is nested deeper than {MAX_DEPTH}")
        marker = self.take(1)
        if marker == b"{":
            return self._object(depth + 1)
        if marker == b"[":
            return self._array(depth + 1)
        if marker == b"S":
            return self.text()
        if marker in _SCALARS:
            layout = _SCALARS[marker]
            return layout.unpack(self.take(layout.size))[0]
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        return self.refuse("an unknown marker")

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self.data[self.at : self.at + 1] != b"}":
            key = self.text()
            if key in found:
                self.refuse("a key is repeated")
            found[key] = self.value(depth)
        self.at += 1
        return found

    def _array(self, depth: int) -> Any:
        marker = self.take(1)
        kind = b""
        if marker == b"$":
            kind, marker = self.take(1), self.take(1)
        if marker != b"#":
            self.refuse("an array does not say how long it is")
        count = self.length()
        if not kind:
            return [self.value(depth) for _ in range(count)]
        if kind not in _ARRAYS:
            self.refuse("an array of an unknown type")
        dtype = np.dtype(_ARRAYS[kind])
        return np.frombuffer(self.take(count * dtype.itemsize), dtype)
