"""JSON Lines out: one object a line."""

from __future__ import annotations

from typing import IO, Any

from modelpack_server.codecs import cells

__all__ = ["JsonLinesWriter"]


class JsonLinesWriter:
    """Writes records."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, rows: Any) -> None:
        """Write each record as a line."""
        lines = [cells.dump(record) for record in rows]
        if lines:
            self._file.write(b"\n".join(lines) + b"\n")

    def close(self) -> None:
        """Nothing stands at the end of a JSON Lines file."""

    def abandon(self) -> None:
        """Nothing is held back."""
