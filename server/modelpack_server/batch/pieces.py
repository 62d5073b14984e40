"""Large Parquet files as pieces of whole row groups: a run goes on behind them, and an engine shares them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modelpack.errors import InputError
from modelpack_server.batch.inputs import Piece, Source

__all__ = ["PIECE_BYTES", "cut"]

# What a piece has at least; a file has pieces if it is as large as two of them. Those who write a table take files of
# this size or more for good ones.
PIECE_BYTES = 128 * 1024 * 1024


def cut(sources: Iterable[Source]) -> list[Source]:
    """Return the inputs with each large Parquet file, or data file of a Delta table, as its pieces.

    Where it is cut tells the file alone: the same one has the same pieces the next time.
    """
    return [piece for source in sources for piece in (_pieces(source) if _is_large(source) else [source])]


def _is_large(source: Source) -> bool:
    return source.kind.format in ("parquet", "delta") and (source.size or 0) >= 2 * PIECE_BYTES


def _pieces(source: Source) -> Sequence[Source]:
    try:
        with source.open_raw() as raw, pq.ParquetFile(raw, pre_buffer=False) as file:
            pieces = list(_along(file.metadata))
    except (pa.ArrowException, OSError, InputError):
        return [source]  # whoever reads it will say what is wrong
    return [replace(source, piece=piece, stem=f"{source.stem}-{piece.number:05d}") for piece in pieces]


def _along(metadata: Any) -> Iterator[Piece]:
    """Yield the pieces of a file one after another; the last may be smaller than a piece should be."""
    first = row = number = held = rows = 0
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group)
        held += sum(found.column(index).total_compressed_size for index in range(found.num_columns))
        rows += found.num_rows
        if held >= PIECE_BYTES or group == metadata.num_row_groups - 1:
            yield Piece(number=number, first=first, last=group, size=held, before=row, rows=rows)
            first, row, number, held, rows = group + 1, row + rows, number + 1, 0, 0
