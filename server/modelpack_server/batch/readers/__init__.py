"""Readers: a file in, chunks of rows out, in order and in bounded memory.

A reader is a function ``(source, wanted, size) -> Iterator[Chunk]``. It gives at least one chunk, of zero rows if
the file has none, so that a missing column is found in an empty file too.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import pyarrow as pa

from modelpack.errors import InputError
from modelpack_server.batch.chunks import Chunk, Wanted
from modelpack_server.batch.formats import Format
from modelpack_server.batch.inputs import Source
from modelpack_server.batch.readers import columnar, delimited, jsonlines, tables

__all__ = ["READERS", "read"]

Reader = Callable[[Source, Wanted, int], Iterator[Chunk]]

READERS: Mapping[Format, Reader] = MappingProxyType(
    {
        "csv": delimited.read,
        "jsonl": jsonlines.read,
        "parquet": columnar.read_parquet,
        "arrow": columnar.read_file,
        "arrows": columnar.read_stream,
        "delta": tables.read,
    }
)


def read(source: Source, wanted: Wanted, size: int) -> Iterator[Chunk]:
    """Yield the rows of a file in chunks of at most ``size``, those that the filter takes.

    Raises:
        InputError: the file is not what its format says (``file-unreadable``).
    """
    try:
        chunks = READERS[source.kind.format](source, wanted, size)
        yield from chunks if wanted.sieve is None else wanted.sieve.chunks(chunks, wanted.used)
    except (pa.ArrowException, OSError, EOFError, zlib.error) as exc:
        reason = " ".join(str(exc).split())[:200]
        message = f"cannot be read as {source.kind.format}: {reason}"
        raise InputError(message, code="file-unreadable", path=source.name) from exc
