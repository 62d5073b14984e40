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
        lines = pc.binary_join_element_wise(*quoted, ",", null_handling="replace", null_replacement=missing)
        whole = pa.LargeListArray.from_arrays(pa.array([0, len(lines)], pa.int64()), _large(lines))
        self._file.write(pc.binary_join(whole, "\n")[0].as_buffer())
        self._file.write(b"\n")

    def close(self) -> None:
        """Nothing stands at the end of a CSV file."""


def _large(lines: Any) -> Any:
    array = lines.combine_chunks() if isinstance(lines, pa.ChunkedArray) else lines
    return array.cast(pa.large_string())


def _quoted(column: Any) -> Any:
    """Put quotes around the cells that need them."""
    column = column.cast(pa.large_string())
    needed = pc.match_substring_regex(column, r'[",\r\n]|^$')
    if not pc.any(needed).as_py():
        return column
    inner = pc.replace_substring(column, '"', '""')
    return pc.if_else(needed, pc.binary_join_element_wise('"', inner, '"', ""), column)
