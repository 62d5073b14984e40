"""Text that is kept beside the answers and is no UTF-8: no format can write it, so its row is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from modelpack.errors import Fault
from modelpack_server.batch.chunks import Chunk
from modelpack_server.codecs import cells

__all__ = ["faults"]

_MESSAGE = "text that is not UTF-8"


def faults(chunk: Chunk, keep: Sequence[str] | None) -> list[Fault]:
    """Return the cells of columns to keep (None: all) whose text is no UTF-8, row by row."""
    if isinstance(chunk.data, list):
        return []  # JSON that is not UTF-8 is no JSON
    names = [name for name in chunk.data.column_names if keep is None or name in keep]
    found = [fault for name in names for fault in _column(chunk.data.column(name), name)]
    return sorted(found, key=lambda fault: fault.row or 0)


def _column(column: pa.ChunkedArray, name: str) -> Iterator[Fault]:
    if not _has_text(column.type) or _is_valid(column):
        return
    for row, value in enumerate(cells.plain(column)):
        if not _is_text(value):
            yield Fault("text-invalid", name, _MESSAGE, row=row, column=name)


def _has_text(kind: Any) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _has_text(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _has_text(kind.value_type)
    if pa.types.is_nested(kind):
        return any(_has_text(kind.field(place).type) for place in range(kind.num_fields))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_valid(column: pa.ChunkedArray) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _is_text(value: Any) -> bool:
    """Say whether all texts in a value are such as UTF-8 can hold."""
    match value:
        case str():
            return value.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in value)
        case list():
            return all(map(_is_text, value))
        case dict():
            return all(_is_text(key) and _is_text(part) for key, part in value.items())
    return True
