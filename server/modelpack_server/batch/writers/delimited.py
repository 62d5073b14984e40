"""CSV out: a cell is quoted only where its text needs it; missing is empty, the empty string is ``""``."""

from __future__ import annotations

import csv
import io
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["CsvWriter"]


class CsvWriter:
    """Writes tables of text."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._headed = False

    def write(self, rows: Any) -> None:
        """Write the rows of a table, before the first a header."""
        if not self._headed:
            self._headed = True
            head = io.StringIO()
            csv.writer(head, lineterminator="\n").writerow(rows.column_names)
            self._file.write(head.getvalue().encode())
        if not rows.num_rows:
            return
        # In a table of one column a missing value would be a blank line, which readers skip.
        missing = '""' if rows.num_columns == 1 else ""
        quoted = [_quoted(column.combine_chunks()) for column in rows.columns]
        lines = pc.binary_join_element_wise(*quoted, _wide(","), null_handling="replace", null_replacement=missing)
        whole = pa.LargeListArray.from_arrays(pa.array([0, len(lines)], pa.int64()), lines)
        self._file.write(pc.binary_join(whole, _wide("\n"))[0].as_buffer())
        self._file.write(b"\n")

    def close(self) -> None:
        """Nothing stands at the end of a CSV file."""

    def abandon(self) -> None:
        """Nothing is held back."""


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
