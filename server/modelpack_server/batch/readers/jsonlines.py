"""JSON Lines: one JSON object a line, as exact as a request over HTTP. Blank lines do not count as rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from modelpack.errors import InputError
from modelpack_server.batch.chunks import Broken, Chunk, Wanted
from modelpack_server.batch.inputs import Source
from modelpack_server.codecs import json_body
from modelpack_server.codecs.lines_body import BOM, together

__all__ = ["MAX_LINE", "Page", "read"]

MAX_LINE = 64 * 1024 * 1024


def read(source: Source, wanted: Wanted, size: int) -> Iterator[Chunk]:
    """Yield the rows of a JSON Lines file; a line that is not an object is a broken row."""
    with source.open_raw() as raw, source.unpacked(raw) as stream:
        page = Page(source, whole=wanted.whole)
        for number, line in enumerate(_lines(source, stream), start=1):
            if line.strip():
                page.add(line, number)
            if len(page.lines) == size:
                yield page.chunk(raw.tell() if raw.seekable() else 0)
                page = Page(source, page.row, whole=wanted.whole)
        if page.lines or page.row == 0:
            yield page.chunk(raw.tell() if raw.seekable() else 0)


def _lines(source: Source, stream: IO[bytes]) -> Iterator[bytes]:
    mark = BOM
    while line := stream.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise InputError(f"has a line longer than {MAX_LINE} bytes", code="line-too-long", path=source.name)
        yield line.removeprefix(mark)
        mark = b""


class Page:
    """The lines read since the last chunk, and what they hold."""

    def __init__(self, source: Source, row: int = 0, *, whole: bool) -> None:
        self.source = source
        self.whole = whole
        self.row = row
        self.first = row
        self.lines: list[bytes] = []
        self.places: list[int] = []

    def add(self, line: bytes, number: int) -> None:
        """Take in one line, which is not blank."""
        self.row += 1
        self.lines.append(line)
        self.places.append(number)

    def chunk(self, position: int) -> Chunk:
        """Return the rows as a chunk."""
        numbers = np.arange(self.first + 1, self.row + 1)
        places = np.array(self.places, dtype=np.int64)
        broken: list[Broken] = []
        records = together(self.lines, whole=self.whole)
        if records is None:
            records, good = [], []
            for index, line in enumerate(self.lines):
                value = self._alone(line, index, broken)
                if value is not None:
                    records.append(value)
                    good.append(index)
            numbers, places = numbers[good], places[good]
        return Chunk(
            source=self.source,
            wire="json",
            data=records,
            numbers=numbers,
            lines=places,
            broken=broken,
            position=position,
        )

    def _alone(self, line: bytes, index: int, broken: list[Broken]) -> dict[str, Any] | None:
        """Return the record in one line, or note why there is none."""
        try:
            value = json_body.parse(line, whole=self.whole)
        except InputError as exc:
            code, message = exc.code, exc.message.replace("the body", "the line")
        else:
            if isinstance(value, dict):
                return value
            code, message = "json-not-object", "the line is not a JSON object"
        record = line.decode("utf-8", "replace").rstrip("\r\n")
        row, place = self.first + index + 1, self.places[index]
        broken.append(Broken(row=row, line=place, code=code, message=message, record=record))
        return None
