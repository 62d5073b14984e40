"""Opening Delta tables by path: what is there, or a clear word about why it cannot be used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from modelpack import optional
from modelpack.errors import InputError, UsageError

__all__ = ["LOG", "local", "open_table", "reason", "require"]

LOG = "_delta_log"
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://|^file:")


def require(module: str = "deltalake") -> Any:
    """Return a module of deltalake, or say what to install."""
    return optional.require(module, what="A Delta table", extra="delta")


def local(table: str | Path) -> Path:
    """Return the directory of a table.

    Raises:
        UsageError: the table is not on a local file system (``table-location``).
    """
    text = str(table)
    if text.startswith("file:"):
        return Path(unquote(urlsplit(text).path))
    if _SCHEME.match(text):
        raise UsageError(
            f"{text} is not on a local file system", code="table-location", hint="Give the path of a directory."
        )
    return Path(text)


def open_table(root: Path, version: int | None = None) -> Any:
    """Return the table as it is now, or was at a version.

    Raises:
        UsageError: there is no table (``table-missing``).
        InputError: there is one that cannot be read (``table-unreadable``).
    """
    errors = require("deltalake.exceptions")
    try:
        return require().DeltaTable(str(root), version=version)
    except errors.TableNotFoundError as exc:
        message = f"{root} is not a Delta table"
        raise UsageError(message, code="table-missing", hint="Give the directory that holds _delta_log.") from exc
    except errors.DeltaError as exc:
        raise InputError(f"cannot be read: {reason(exc)}", code="table-unreadable", path=str(root)) from exc


def reason(error: Exception) -> str:
    """Return what a foreign error says, on one line."""
    return " ".join(str(error).split())[:300]
