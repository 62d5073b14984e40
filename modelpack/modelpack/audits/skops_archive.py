"""The container of a skops file: a zip of ``schema.json`` and arrays, opened with limits and no framework.

Only what our own writer and skops write is accepted: a flat zip of stored or deflated members, a strict JSON schema,
``.npy`` arrays without objects whose length is what their header says, ``.npz`` sparse matrices of such arrays.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NoReturn

from modelpack.errors import PackageError

__all__ = ["Archive", "check_npy", "malformed", "name_of", "parse_json"]

SCHEMA = "schema.json"
MAX_MEMBERS = 200_000
MAX_SCHEMA = 64 * 2**20
MAX_HEADER = 65_536
# A member may grow a hundredfold when it is expanded; the writer stores without compression what would grow more.
MAX_GROWTH = 100
FREE_GROWTH = 64 * 2**20

# What zipfile raises on archives whose listing lies: of places before the file, of names, of how they are packed.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError, ValueError, struct.error,
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}\Z")
_SCALAR = re.compile(r"[<>|=]?([?biufcSUVmM])(\d{1,9})?(\[\d*[A-Za-z]+\])?\Z")
_SPARSE_MEMBERS = frozenset(
    {"indices", "indptr", "format", "shape", "data", "_is_array", "row", "col", "offsets", "coords"}
)


def name_of(node: Mapping[str, Any]) -> str:
    """Return the name a node carries, as ``module.name``."""
    return f"{node['__module__']}.{node['__class__']}"


def malformed(message: str, entry: str) -> NoReturn:
    """Raise the error for a file that is not what its format says; no grant makes such a file loadable."""
    raise PackageError(message, code="payload-invalid", path=entry)


def parse_json(text: bytes, entry: str) -> Any:
    """Return strict JSON data: UTF-8, no repeated keys, no NaN.

    Raises:
        PackageError: it is not (``payload-invalid``).
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            malformed(f"{SCHEMA} repeats a key", entry)
        return found

    def constant(name: str) -> NoReturn:
        malformed(f"{SCHEMA} holds a bare {name}", entry)

    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as exc:
        malformed(f"{SCHEMA} is not JSON: {type(exc).__name__}", entry)


class Archive:
    """An opened skops file; ``schema`` is its parsed ``schema.json``.

    Raises:
        PackageError: the file is not a skops file within limits (``payload-invalid``).
    """

    def __init__(self, data: bytes, entry: str) -> None:
        self.entry = entry
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except _UNREADABLE as exc:
            malformed(f"not a zip file: {exc}", entry)
        self._members = self._listing(len(data))
        # The end record has 22 bytes when there is no comment, and zipfile also finds one that other bytes follow.
        if not data.startswith(b"PK\x03\x04") or data[-22:-18] != b"PK\x05\x06":
            malformed("the zip file has bytes before or after its members", entry)
        schema = self._members.get(SCHEMA)
        if schema is None or schema.file_size > MAX_SCHEMA:
            malformed(f"{SCHEMA} is missing or larger than {MAX_SCHEMA} bytes", entry)
        parsed = parse_json(self.read(SCHEMA), entry)
        if not isinstance(parsed, dict):
            malformed(f"{SCHEMA} is not an object", entry)
        self.schema: dict[str, Any] = parsed

    def _listing(self, size: int) -> dict[str, zipfile.ZipInfo]:
        infos = self._zip.infolist()
        if len(infos) > MAX_MEMBERS:
            malformed(f"the zip file has more than {MAX_MEMBERS} members", self.entry)
        members = {info.filename: info for info in infos}
        if len(members) != len(infos):
            malformed("the zip file holds two members of one name", self.entry)
        for info in infos:
            if not _NAME.match(info.filename):
                malformed("the zip file has a member whose name is not a plain file name", self.entry)
            if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                malformed("the zip file has a member that is encrypted or not deflated", self.entry)
        if sum(info.file_size for info in infos) > FREE_GROWTH + MAX_GROWTH * size:
            malformed("the zip file expands to more than a hundred times its size", self.entry)
        return members

    @property
    def names(self) -> frozenset[str]:
        """The names of all members but the schema."""
        return frozenset(self._members) - {SCHEMA}

    def size(self, name: str) -> int:
        """Return the expanded size of a member."""
        return self._member(name).file_size

    def read(self, name: str, limit: int = -1) -> bytes:
        """Return a member's bytes, at most the first ``limit``; all of them are checked against their CRC."""
        info = self._member(name)
        try:
            with self._zip.open(info) as file:
                return file.read(limit)
        except _UNREADABLE as exc:
            malformed(f"member {name} cannot be read: {type(exc).__name__}", self.entry)

    def _member(self, name: str) -> zipfile.ZipInfo:
        info = self._members.get(name)
        if info is None:
            malformed("the schema names a member that is not there", self.entry)
        return info

    def array_shape(self, name: str) -> tuple[int, ...]:
        """Check that a member is a plain array of the length its header says, and return its shape."""
        return check_npy(self.read(name, MAX_HEADER + 12), self.size(name), self.entry)

    def sparse_format(self, name: str) -> tuple[str, bool]:
        """Check that a member is a sparse matrix of plain arrays; return its format and whether it is an array."""
        data = self.read(name)
        try:
            inner = zipfile.ZipFile(io.BytesIO(data))
            infos = inner.infolist()
            names = [info.filename for info in infos]
            total = sum(info.file_size for info in infos)
            if len(set(names)) != len(names) or total > FREE_GROWTH + MAX_GROWTH * len(data):
                malformed("a sparse matrix repeats a member or is too large", self.entry)
            if not {name.removesuffix(".npy") for name in names} <= _SPARSE_MEMBERS:
                malformed("a sparse matrix has a member that does not belong to one", self.entry)
            if any(i.flag_bits & 0x1 or i.compress_type not in (0, 8) for i in infos):
                malformed("a sparse matrix has a member that is encrypted or not deflated", self.entry)
            contents = {name.removesuffix(".npy"): inner.read(name) for name in names}
        except _UNREADABLE as exc:
            malformed(f"a sparse matrix cannot be read: {type(exc).__name__}", self.entry)
        for content in contents.values():
            check_npy(content, len(content), self.entry)
        return self._sparse_kind(contents)

    def _sparse_kind(self, contents: dict[str, bytes]) -> tuple[str, bool]:
        raw = contents.get("format", b"")[-12:]
        # The format is a text of three letters, as bytes ('csr') or as UTF-32.
        kind = raw.replace(b"\x00", b"")[-3:].decode("ascii", "replace")
        if kind not in ("csr", "csc", "coo", "bsr", "dia"):
            malformed("a sparse matrix is of an unknown format", self.entry)
        return kind, contents.get("_is_array", b"\x00")[-1:] == b"\x01"


def check_npy(head: bytes, size: int, entry: str) -> tuple[int, ...]:
    """Check the header of a ``.npy`` member of ``size`` bytes that starts with ``head``; return the array's shape.

    The header must describe an array without objects whose length is exactly what follows the header.

    Raises:
        PackageError: it does not (``payload-invalid``).
    """
    if head[:6] != b"\x93NUMPY" or head[6:8] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        malformed("an array is not in .npy format", entry)
    width = 2 if head[6] == 1 else 4
    start = 8 + width
    length = int.from_bytes(head[8:start], "little")
    if length > MAX_HEADER or len(head) < start + length:
        malformed("an array's header is too long", entry)
    try:
        shape, item = _header(head[start : start + length])
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as exc:
        malformed(f"an array's header cannot be used: {exc}", entry)
    if math.prod(shape) * item != size - start - length:
        malformed("an array is not as long as its header says", entry)
    return shape


@lru_cache(maxsize=1024)
def _header(text: bytes) -> tuple[tuple[int, ...], int]:
    """Return the shape of an array and the bytes of one item."""
    header = ast.literal_eval(text.decode("utf-8"))
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise ValueError("it has other fields than descr, fortran_order and shape")
    shape = header["shape"]
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("the shape is not a tuple of sizes")
    return shape, _item_size(header["descr"])


def _item_size(descr: Any) -> int:
    """Return the bytes of one item of a dtype description; refuse objects and anything unknown."""
    if isinstance(descr, list):
        total = 0
        for item in descr:
            if not isinstance(item, tuple) or len(item) not in (2, 3):
                raise ValueError("a field is not a pair")
            repeat = item[2] if len(item) == 3 else ()
            if not isinstance(repeat, tuple) or not all(type(n) is int and n >= 0 for n in repeat):
                raise ValueError("a field has no size")
            total += math.prod(repeat) * _item_size(item[1])
        return total
    found = _SCALAR.match(descr) if isinstance(descr, str) else None
    if found is None:
        raise ValueError("it holds objects or an unknown type")
    size = int(found[2] or 1)
    return size * 4 if found[1] == "U" else size
