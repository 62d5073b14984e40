"""Tables as CSV: a cell is in quotes only where its text needs it; missing is empty, empty text is ``""``.

In a table of one column a missing value would be a blank line, which many readers skip. So it is ``""`` there too,
but for columns in which that is another value.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modelpack_server.codecs import cells

__all__ = ["header", "lines", "texts"]

# Metadata of a column of text in which the empty text is a value.
_EMPTY = {b"modelpack": b"empty"}


def header(names: Sequence[str]) -> bytes:
    """Return the line that names the columns."""
    head = io.StringIO()
    csv.writer(head, lineterminator="\n").writerow(names)
    return head.getvalue().encode()


def texts(table: pa.Table) -> pa.Table:
    """Return the cells of a table as the text that CSV has of them."""
    fields = [
        pa.field(field.name, pa.string(), metadata=_EMPTY if _may_be_empty(field) else None) for field in table.schema
    ]
    return pa.table([cells.texts(column) for column in table.columns], schema=pa.schema(fields))


def _may_be_empty(field: pa.Field) -> bool:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return field.metadata != cells.JSON and any(test(kind) for test in _TEXTS)


_TEXTS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)


def lines(rows: Any) -> pa.Buffer:
    """Return the rows of a table of :func:`texts` that has some, but for the last line end."""
    missing = '""' if rows.num_columns == 1 and rows.schema.field(0).metadata != _EMPTY else ""
    quoted = [_quoted(column.combine_chunks()) for column in rows.columns]
    joined = pc.binary_join_element_wise(*quoted, _wide(","), null_handling="replace", null_replacement=missing)
    whole = pa.LargeListArray.from_arrays(pa.array([0, len(joined)], pa.int64()), joined)
    return pc.binary_join(whole, _wide("\n"))[0].as_buffer()


def _wide(text: str) -> pa.Scalar:
    return pa.scalar(text, pa.large_string())


def _quoted(column: Any) -> Any:
    """Put quotes around the cells that need them."""
    column = column.cast(pa.large_string())
    if _is_plain(column):
        return column
    needed = pc.match_substring_regex(column, r'[",\r\n]|^$')
    inner = pc.replace_substring(column, '"', '""')
    return pc.if_else(needed, pc.binary_join_element_wise(_wide('"'), inner, _wide('"'), _wide("")), column)


def _is_plain(column: Any) -> bool:
    """Say whether no cell needs quotes, by looking at the bytes of all cells at once."""
    data = column.buffers()[2]
    raw = data.to_pybytes() if data is not None else b""
    if any(sign in raw for sign in (b'"', b",", b"\n", b"\r")):
        return False
    shortest = pc.min(pc.binary_length(column)).as_py()
    return shortest is None or shortest > 0
