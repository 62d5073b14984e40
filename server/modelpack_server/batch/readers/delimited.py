"""CSV: every cell is read as the text it is; what it means is coercion's affair.

An empty cell is a missing value, ``""`` in quotes an empty string. Blank lines do not count as rows.
"""

from __future__ import annotations

import contextlib
import csv
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from modelpack.errors import InputError
from modelpack_server.batch.ahead import ahead
from modelpack_server.batch.chunks import Broken, Chunk, Wanted
from modelpack_server.batch.inputs import Source
from modelpack_server.codecs import csv_body

__all__ = ["BLOCK", "LineFinder", "read"]

BLOCK = 2 * 1024 * 1024
MAX_ROW = 64 * 1024 * 1024


def read(source: Source, wanted: Wanted, size: int) -> Iterator[Chunk]:
    """Yield the rows of a CSV file with a header, as tables of text."""
    with source.open_raw() as raw, source.unpacked(raw) as stream:
        header = _header(source, stream)
        names = wanted.pick(header) or header
        rows = _Rows(header)
        held: list[pa.Table] = []
        with closing(ahead(iter(_Pieces(source, stream)), 1)) as pieces:
            for table in rows.tables(pieces, names):
                held.append(table)
                while sum(map(len, held)) >= size:
                    whole = pa.concat_tables(held)
                    held = [whole.slice(size)] if len(whole) > size else []
                    yield rows.chunk(source, whole.slice(0, size), _position(raw))
        if held or rows.broken or rows.count == 0:
            rest = pa.concat_tables(held) if held else pa.table({name: pa.array([], pa.string()) for name in names})
            yield rows.chunk(source, rest, _position(raw), last=True)


class _Rows:
    """Numbers the rows of one file, good and broken alike."""

    def __init__(self, header: list[str]) -> None:
        self.header = header
        self.broken: deque[Broken] = deque()
        self.count = 0
        self._read = self._skipped = 0

    def tables(self, pieces: Iterable[bytes], names: list[str]) -> Iterator[pa.Table]:
        """Yield blocks of rows; those with a wrong number of cells go to ``broken`` instead."""
        if not self.header:
            return
        for piece in pieces:
            table = self._parse(piece, names)
            self._read += len(table) + self._skipped
            self._skipped = 0
            if len(table):
                yield table

    def _parse(self, piece: bytes, names: list[str]) -> pa.Table:
        try:
            str(piece, "utf-8")
        except UnicodeDecodeError:
            # Cut apart with each byte as a character; which rows that refuses is found when the cells are looked at.
            table = self._cut(piece.decode("latin-1").encode(), names, _told_by_byte)
            return pa.table({name: _bytes(column) for name, column in zip(names, table.columns, strict=True)})
        return self._cut(piece, names, str)

    def _cut(self, piece: bytes, names: list[str], told: Callable[[str], str]) -> pa.Table:
        def invalid(row: Any) -> str:
            message = f"has {row.actual_columns} cells where the header has {row.expected_columns}"
            self._skipped += 1
            number, record = self._read + row.number, told(row.text)
            self.broken.append(Broken(row=number, line=None, code="csv-ragged", message=message, record=record))
            return "skip"

        # Not open_csv(): its thread cannot be waited for, and ends the process if it wants Python while that ends.
        return pyarrow.csv.read_csv(
            pa.BufferReader(piece),
            # Only a single thread can tell the number of a row that is refused; conversion to text is no work.
            read_options=pyarrow.csv.ReadOptions(
                column_names=self.header, use_threads=False, block_size=len(piece) + 1, encoding="utf8"
            ),
            parse_options=pyarrow.csv.ParseOptions(
                newlines_in_values=True,
                # In a table of one column an empty line is a row whose value is missing.
                ignore_empty_lines=len(self.header) > 1,
                invalid_row_handler=invalid,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in names},
                include_columns=names,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    def chunk(self, source: Source, table: pa.Table, position: int, *, last: bool = False) -> Chunk:
        """Give the next rows their numbers, leaving out those of broken rows, which come along."""
        end = self.count + len(table)
        broken: list[Broken] = []
        while self.broken and (last or self.broken[0].row <= end + len(broken)):
            broken.append(self.broken.popleft())
        numbers = np.arange(self.count + 1, end + len(broken) + 1)
        if broken:
            numbers = np.setdiff1d(numbers, [row.row for row in broken])
        self.count = end + len(broken)
        return Chunk(source=source, wire="text", data=table, numbers=numbers, broken=broken, position=position)


def _told_by_byte(text: str) -> str:
    """Return a text of which each character is a byte as what it says, with surrogates for what is no UTF-8."""
    return text.encode("latin-1").decode("utf-8", "surrogateescape")


def _bytes(column: pa.ChunkedArray) -> pa.Array:
    """Return texts of which each character is a byte as a column of text that need not be UTF-8."""
    raw = [None if cell is None else cell.encode("latin-1") for cell in column.to_pylist()]
    return pa.array(raw, pa.binary()).view(pa.string())


class _Pieces:
    """The bytes of a file in pieces of whole rows, each looked through for stray quotes, as the HTTP codec does.

    An unclosed quote would swallow rows.
    """

    def __init__(self, source: Source, stream: IO[bytes]) -> None:
        self._source = source
        self._stream = stream
        self._held: list[bytes] = []
        self._open = False
        self._lines = 1

    def __iter__(self) -> Iterator[bytes]:
        while data := self._stream.read(BLOCK):
            if cut := self._cut(data):
                yield self._checked(b"".join((*self._held, data[:cut])))
                self._held = [data[cut:]]
                continue
            self._held.append(data)
            if sum(map(len, self._held)) > MAX_ROW:
                raise self._too_long()
        if rest := b"".join(self._held):
            yield self._checked(rest)

    def _too_long(self) -> InputError:
        if self._open:
            return self._error("the CSV has a quote that is not closed", "csv-quote")
        return self._error(f"has a row longer than {MAX_ROW} bytes", "line-too-long")

    def _checked(self, piece: bytes) -> bytes:
        try:
            csv_body.check_quotes(piece)
        except InputError as exc:
            raise self._error(exc.message, exc.code) from exc
        self._lines += piece.count(b"\n")
        return piece

    def _cut(self, data: bytes) -> int:
        """Return how much of the new data ends at the end of a row: behind an even number of quotes. 0: nothing.

        What is held has no such end, so that nothing is looked at twice.
        """
        self._open ^= bool(data.count(b'"') % 2)
        is_open, seen = self._open, len(data)
        cut = data.rfind(b"\n") + 1
        while cut:
            is_open ^= bool(data.count(b'"', cut, seen) % 2)
            if not is_open:
                break
            # All ends of lines behind the last quote before are in quotes too.
            seen, quote = cut, data.rfind(b'"', 0, cut)
            cut = data.rfind(b"\n", 0, quote) + 1 if quote >= 0 else 0
        return cut

    def _error(self, message: str, code: str) -> InputError:
        return InputError(message, code=code, path=f"{self._source.name}, in or after line {self._lines + 1}")


def _position(raw: IO[bytes]) -> int:
    return raw.tell() if raw.seekable() else 0


def _decoded(stream: IO[bytes], errors: str = "strict") -> Iterator[str]:
    """Yield lines of text, ends included."""
    encoding = "utf-8-sig"
    while line := stream.readline():
        yield line.decode(encoding, errors)
        encoding = "utf-8"


def _header(source: Source, stream: IO[bytes]) -> list[str]:
    """Read the first row, leaving the stream right behind it; an empty file has no columns."""
    try:
        names = next((row for row in csv.reader(_decoded(stream), strict=True) if row), [])
    except (csv.Error, UnicodeDecodeError) as exc:
        raise InputError(f"has no readable header: {exc}", code="file-unreadable", path=source.name) from exc
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"has two columns called {name!r}", code="csv-duplicate-column", path=source.name)
    return names


class LineFinder:
    """Tells the line at which a row of a file starts, by reading the file a second time, and only when asked."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lines = self._starts()
        self._row = 0
        self._line: int | None = None

    def find(self, row: int) -> int | None:
        """Return the line of a row; rows must be asked for in ascending order. None when it cannot be told."""
        with contextlib.suppress(csv.Error, UnicodeDecodeError, OSError, EOFError):
            while self._row < row:
                self._line = next(self._lines, None)
                self._row += 1
            return self._line
        return None

    def _starts(self) -> Iterator[int]:
        if self._source.path is None or not self._source.path.is_file():
            return
        with self._source.open_raw() as raw, self._source.unpacked(raw) as stream:
            reader = csv.reader(_decoded(stream, "surrogateescape"))
            start, width = 1, 0
            for row in reader:
                # As when reading: an empty line is a row in a table of one column, and nothing in others.
                if width and (row or width == 1):
                    yield start
                width = width or len(row)
                start = reader.line_num + 1
