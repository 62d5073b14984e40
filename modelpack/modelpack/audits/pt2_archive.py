"""The container of an exported torch program: a zip of stored members whose bytes are where the listing says.

Nothing is ever expanded and nothing is copied: a member is a part of the file. Both the audit and the loader use this
reader, so what was looked at is what is used.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Mapping
from typing import NoReturn

from modelpack.errors import PackageError

__all__ = ["Archive"]

MAX_MEMBERS = 200_000
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_PATH = re.compile(r"[A-Za-z0-9_.-]{1,200}(/[A-Za-z0-9_.-]{1,200}){0,5}\Z")


class Archive:
    """An opened archive; names are those below its one top directory.

    Raises:
        PackageError: the file is no such archive (``payload-invalid``).
    """

    def __init__(self, data: bytes | memoryview, entry: str) -> None:
        self.entry = entry
        self._data = memoryview(data)
        try:
            with zipfile.ZipFile(_Reader(self._data)) as opened:
                infos, comment = opened.infolist(), opened.comment
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, struct.error) as exc:
            self.refuse(f"it is no zip file: {type(exc).__name__}")
        if bytes(self._data[:4]) != b"PK\x03\x04" or bytes(self._data[-22:-18]) != b"PK\x05\x06" or comment:
            self.refuse("it has bytes before or after its members")
        if len(infos) > MAX_MEMBERS:
            self.refuse(f"it has more than {MAX_MEMBERS} members")
        tops = {info.filename.partition("/")[0] for info in infos}
        if len(tops) != 1:
            self.refuse("its members are not in one directory")
        self._members: Mapping[str, tuple[int, int]] = dict(self._places(infos))
        if len(self._members) != len(infos):
            self.refuse("it has two members of one name")

    def refuse(self, message: str) -> NoReturn:
        """Raise the error for a file that is not what its format says."""
        raise PackageError(message, code="payload-invalid", path=self.entry)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all members, in the order of their bytes."""
        return tuple(self._members)

    def read(self, name: str) -> memoryview:
        """Return a member's bytes, not copied."""
        if name not in self._members:
            self.refuse(f"it has no member {name[:40]!r}")
        start, stop = self._members[name]
        return self._data[start:stop]

    def _places(self, infos: list[zipfile.ZipInfo]) -> list[tuple[str, tuple[int, int]]]:
        """Return where the members are, checked against the header in front of each."""
        found, end = [], 0
        for info in sorted(infos, key=lambda one: one.header_offset):
            if not _PATH.match(info.filename) or ".." in info.filename.split("/"):
                self.refuse("a member's name is not a plain path")
            # Bit 3: sizes follow the data; they are in the listing as well. Bit 11: the name is UTF-8.
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & ~0x808:
                self.refuse("a member is compressed or encrypted")
            head = bytes(self._data[info.header_offset : info.header_offset + _LOCAL.size])
            if info.header_offset < end or len(head) != _LOCAL.size:
                self.refuse("a member is not where the listing says")
            sign, _, flags, method, _, _, _, _, _, name, extra = _LOCAL.unpack(head)
            start = info.header_offset + _LOCAL.size + name + extra
            inside = bytes(self._data[info.header_offset + _LOCAL.size :][:name])
            end = start + info.file_size
            fits = info.file_size == info.compress_size and end <= len(self._data)
            same = inside == info.filename.encode() and method == 0 and not flags & ~0x808
            if sign != b"PK\x03\x04" or not same or not fits:
                self.refuse("a member's own header differs from the listing")
            found.append((info.filename.partition("/")[2], (start, end)))
        return found


class _Reader(io.RawIOBase):
    """A file over memory, without copying all of it."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        at = offset + (0, self._at, len(self._data))[whence]
        if at < 0:
            raise OSError("negative place")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        stop = len(self._data) if size is None or size < 0 else self._at + size
        part = bytes(self._data[self._at : stop])
        self._at += len(part)
        return part
