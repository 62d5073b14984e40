"""JSON Lines: one JSON object a line, as exact as a request over HTTP. Blank lines do not count as rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from modelpack.errors import InputError
from modelpack_server.batch.chunks import Broken, Chunk, Wanted
from modelpack_server.batch.inputs import Source
from modelpack_server.codecs import json_body

__all__ = ["MAX_LINE", "read"]

MAX_LINE = 64 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


def read(source: Source, wanted: Wanted, size: int) -> Iterator[Chunk]:
    """Yield the rows of a JSON Lines file; a line that is not an object is a broken row."""
    with source.open_raw() as raw, source.unpacked(raw) as stream:
        page = _Page(source)
        for number, line in enumerate(_lines(source, stream), start=1):
            if line.strip():
                page.add(line, number)
            if page.seen == size:
                yield page.chunk(raw.tell() if raw.seekable() else 0)
                page = _Page(source, page.row)
        if page.seen or page.row == 0:
            yield page.chunk(raw.tell() if raw.seekable() else 0)


def _lines(source: Source, stream: IO[bytes]) -> Iterator[bytes]:
    mark = _BOM
    while line := stream.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise InputError(f"has a line longer than {MAX_LINE} bytes", code="line-too-long", path=source.name)
        yield line.removeprefix(mark)
        mark = b""


class _Page:
    """The rows read since the last chunk."""

    def __init__(self, source: Source, row: int = 0) -> None:
        self.source = source
        self.row = row
        self.seen = 0
        self.records: list[Any] = []
        self.numbers: list[int] = []
        self.lines: list[int] = []
        self.broken: list[Broken] = []

    def add(self, line: bytes, number: int) -> None:
        """Take in one line, which is not blank."""
        self.row += 1
        self.seen += 1
        try:
            value = json_body.parse(line)
        except InputError as exc:
            self._refuse(line, number, exc.code, exc.message.replace("the body", "the line"))
            return
        if not isinstance(value, dict):
            self._refuse(line, number, "json-not-object", "the line is not a JSON object")
            return
        self.records.append(value)
        self.numbers.append(self.row)
        self.lines.append(number)

    def _refuse(self, line: bytes, number: int, code: str, message: str) -> None:
        record = line.decode("utf-8", "replace").rstrip("\r\n")
        self.broken.append(Broken(row=self.row, line=number, code=code, message=message, record=record))

    def chunk(self, position: int) -> Chunk:
        """Return the rows as a chunk."""
        return Chunk(
            source=self.source,
            wire="json",
            data=self.records,
            numbers=np.array(self.numbers, dtype=np.int64),
            lines=np.array(self.lines, dtype=np.int64),
            broken=self.broken,
            position=position,
        )
