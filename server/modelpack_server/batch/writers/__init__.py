"""Writers: what :mod:`modelpack_server.batch.assemble` makes, into an open binary file."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import IO, Protocol, cast

from modelpack_server import columnar
from modelpack_server.batch.assemble import Rows
from modelpack_server.batch.formats import Format, Kind
from modelpack_server.batch.writers import delimited, jsonlines

__all__ = ["WRITERS", "Writer", "writer"]


class Writer(Protocol):
    """Writes the rows of one file."""

    def write(self, rows: Rows) -> None:
        """Append rows; the first ones, even none, decide the columns."""

    def close(self) -> None:
        """Write what the format has at its end; the file stays open."""

    def abandon(self) -> None:
        """Let go of the file without writing to it."""


WRITERS: Mapping[Format, Callable[[IO[bytes]], Writer]] = MappingProxyType(
    {
        "csv": delimited.CsvWriter,
        "jsonl": jsonlines.JsonLinesWriter,
        "parquet": columnar.ParquetWriter,
        "arrow": columnar.FileWriter,
        "arrows": columnar.StreamWriter,
    }
)


@contextmanager
def writer(kind: Kind, file: IO[bytes]) -> Iterator[Writer]:
    """Yield a writer of this kind on an open file; its end is written only if the block ends well."""
    packed = None
    if kind.gzip:
        # No name and no time in it: the same rows give the same bytes.
        packed = gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0, compresslevel=6)
    made = WRITERS[kind.format](cast("IO[bytes]", packed) if packed else file)
    try:
        yield made
        made.close()
    except BaseException:
        made.abandon()
        raise
    if packed:
        packed.close()
