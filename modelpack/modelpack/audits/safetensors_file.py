"""Audit of safetensors files: a bounded header, then the bytes of the tensors it names, without a gap.

What passes is of class ``data``; everything else is refused, whatever is granted: such a file has no part that could
be run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from modelpack.audits import Audit
from modelpack.errors import PackageError

__all__ = ["BITS", "Files", "Slice", "audit", "inspect", "strict_json"]

MAX_HEADER = 100_000_000
MAX_RANK = 32
# Bits of one element of each type of the format.
BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


class Files(Protocol):
    """The files of the payload."""

    def view(self, path: str) -> bytes | memoryview:
        """Return the bytes of a file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """One tensor: its element type, its shape, and where its bytes are in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def audit(files: Files, entry: str | None) -> Audit:
    """Audit the file ``entry``.

    Raises:
        PackageError: it is not a safetensors file that we take (``payload-invalid``).
    """
    inspect(files.view(entry or ""), entry or "")
    return Audit(trust="data")


def inspect(data: bytes | memoryview, entry: str) -> Mapping[str, Slice]:
    """Return the tensors of a file by name, in the order of their bytes.

    Raises:
        PackageError: the header is too long, no strict JSON, or describes other bytes than follow it
            (``payload-invalid``).
    """

    def refuse(message: str) -> NoReturn:
        raise PackageError(message, code="payload-invalid", path=entry)

    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= min(MAX_HEADER, len(data) - 8):
        refuse("its header is longer than the file or than is taken")
    raw = bytes(data[8 : 8 + length])
    if raw[:1] != b"{":
        refuse("its header is no JSON object")
    header = strict_json(raw.rstrip(b" "), "its header", entry)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        refuse("its metadata are not texts by name")
    found = {name: _slice(value, refuse) for name, value in header.items()}
    end = 0
    ordered = dict(sorted(found.items(), key=lambda item: (item[1].start, item[1].stop)))
    for one in ordered.values():
        if one.start != end:
            refuse("its tensors overlap or leave a gap")
        end = one.stop
    if end != len(data) - 8 - length:
        refuse("its tensors do not end where the file does")
    base = 8 + length
    return {
        name: Slice(dtype=one.dtype, shape=one.shape, start=base + one.start, stop=base + one.stop)
        for name, one in ordered.items()
    }


def _slice(value: Any, refuse: Any) -> Slice:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        refuse("a tensor has not exactly a dtype, a shape and offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        refuse("a tensor is of a type that is not taken")
    if not _sizes(shape) or len(shape) > MAX_RANK:
        refuse("a shape is not a list of sizes")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        refuse("offsets are not a start and an end")
    if math.prod(shape) * BITS[dtype] != (offsets[1] - offsets[0]) * 8:
        refuse("a tensor is not as long as its type and shape say")
    return Slice(dtype=dtype, shape=tuple(shape), start=offsets[0], stop=offsets[1])


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)


def strict_json(raw: bytes, what: str, entry: str) -> dict[str, Any]:
    """Return the object that ``raw`` is: UTF-8, no key twice, no NaN.

    Raises:
        PackageError: it is none (``payload-invalid``).
    """

    def refuse(message: str) -> NoReturn:
        raise PackageError(f"{what} {message}", code="payload-invalid", path=entry)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            refuse("repeats a key")
        return found

    def constant(name: str) -> NoReturn:
        refuse(f"holds a bare {name}")

    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as exc:
        refuse(f"is not JSON: {type(exc).__name__}")
    if not isinstance(value, dict):
        refuse("is no JSON object")
    return value
