"""Tensors of an ONNX model: as many bytes as their shape needs, in one place, inside the file they name."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np

from modelpack.audits.onnx_schema import ELEMENTS
from modelpack.audits.onnx_wire import Message, malformed

__all__ = ["check", "numbers"]

MAX_DIMENSIONS = 32
MAX_BYTES = 2**46
_DATA = ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_KEYS = frozenset({"location", "offset", "length", "checksum", "basepath"})
_NUMPY: Mapping[int, str] = {
    1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "u1", 11: "<f8", 12: "<u4", 13: "<u8",
}  # fmt: skip


def check(tensor: Message, outside: Mapping[str, str], files: Mapping[str, int], entry: str) -> str | None:
    """Refuse a tensor whose data is not what its shape and type need; return the file that holds it, if another one.

    ``outside`` is what the tensor says about that file, ``files`` the sizes of the payload's other files.
    """
    dims = tensor.array("dims")
    if tensor.has("segment") or len(dims) > MAX_DIMENSIONS or (dims < 0).any():
        malformed("a tensor has no proper shape", entry)
    known = ELEMENTS.get(tensor.int("data_type"))
    if known is None:
        malformed("a tensor has no known type of elements", entry)
    bits, typed, each = known
    count = 1
    for size in dims.tolist():
        count *= size
    if count * max(bits, 8) > MAX_BYTES * 8:
        malformed("a tensor is too large", entry)
    held = [name for name in _DATA if name in tensor.found and len(tensor.found[name])]
    if tensor.int("data_location") == 1:
        if held or not bits:
            malformed("a tensor lies in two places", entry)
        return _outside(outside, (count * bits + 7) // 8, files, entry)
    if tensor.int("data_location") or outside:
        malformed("a tensor lies in two places", entry)
    if len(held) > 1 or (held and held[0] not in ("raw_data", typed)) or (held == ["raw_data"] and not bits):
        malformed("a tensor's data is not of its type", entry)
    have = len(tensor.found[held[0]]) if held else 0
    if held == ["raw_data"]:
        need = (count * bits + 7) // 8
    else:
        need = (count * bits + 7) // 8 if 0 < bits < 8 else count * each
    if have != need:
        malformed("a tensor has more or less data than its shape needs", entry)
    return None


def _outside(outside: Mapping[str, str], need: int, files: Mapping[str, int], entry: str) -> str:
    """Return the path of the file that holds a tensor's bytes, which must be in the payload and hold them all."""
    if not outside.keys() <= _KEYS or outside.get("basepath"):
        malformed("a tensor says more of its file than is known", entry)
    location = outside.get("location", "")
    path = posixpath.join(posixpath.dirname(entry), location)
    # Only the plain name of a listed file: no absolute path, no "..", no other spelling of one.
    if not location or posixpath.normpath(location) != location or path not in files:
        malformed("a tensor lies in a file that the payload does not have", entry)
    offset, length = _number(outside.get("offset", "0"), entry), _number(outside.get("length", str(need)), entry)
    if length != need or offset + length > files[path]:
        malformed("a tensor reaches beyond its file, or has more or less data than its shape needs", entry)
    return path


def _number(text: str, entry: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        malformed("a tensor's place in its file is not a number", entry)
    return int(text)


def numbers(tensor: Message) -> Any:
    """Return the numbers of a tensor that lie in the model's own file, flat; None for other types and places."""
    kind = tensor.int("data_type")
    if kind not in _NUMPY or tensor.int("data_location"):
        return None
    raw = tensor.view("raw_data")
    if len(raw):
        return np.frombuffer(raw, _NUMPY[kind])
    held = [name for name in _DATA[1:] if name in tensor.found]
    return tensor.array(held[0]) if held and held[0] != "string_data" else np.empty(0, _NUMPY[kind])
