"""Tables of text as CSV: a cell is in quotes only where its text needs it; missing is empty, empty text is ``""``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["header", "lines"]


def header(names: Sequence[str]) -> bytes:
    """Return the line that names the columns."""
    head = io.StringIO()
    csv.writer(head, lineterminator="\n").writerow(names)
    return head.getvalue().encode()


def lines(rows: Any) -> pa.Buffer:
    """Return the rows of a table of text that has some, but for the last line end."""
    # In a table of one column a missing value would be a blank line, which readers skip.
    missing = '""' if rows.num_columns == 1 else ""
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
