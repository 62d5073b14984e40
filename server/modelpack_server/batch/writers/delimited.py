"""CSV out, piece by piece."""

from __future__ import annotations

from typing import IO, Any

from modelpack_server.codecs import csv_text

__all__ = ["CsvWriter"]


class CsvWriter:
    """Writes tables of text (:func:`modelpack_server.codecs.csv_text.texts`)."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._headed = False

    def write(self, rows: Any) -> None:
        """Write the rows of a table, before the first a header."""
        if not self._headed:
            self._headed = True
            self._file.write(csv_text.header(rows.column_names))
        if rows.num_rows:
            self._file.write(csv_text.lines(rows))
            self._file.write(b"\n")

    def close(self) -> None:
        """Nothing stands at the end of a CSV file."""

    def abandon(self) -> None:
        """Nothing is held back."""
