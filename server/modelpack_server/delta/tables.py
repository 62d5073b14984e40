"""Opening Delta tables by path: what is there, or a clear word about why it cannot be used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from modelpack import optional
from modelpack.errors import InputError, UsageError

__all__ = ["LOG", "Root", "local", "open_table", "reading", "reason", "require"]

# The directory of a table, or the URL of one that is only read.
Root = Path | str

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


def open_table(root: Root, version: int | None = None) -> Any:
    """Return the table as it is now, or was at a version.

    Raises:
        UsageError: there is no table (``table-missing``).
        InputError: there is one that cannot be read (``table-unreadable``).
    """
    if isinstance(root, str):
        return _open_url(root, version)
    errors = require("deltalake.exceptions")
    try:
        return require().DeltaTable(str(root), version=version)
    except errors.TableNotFoundError as exc:
        message = f"{root} is not a Delta table"
        raise UsageError(message, code="table-missing", hint="Give the directory that holds _delta_log.") from exc
    except errors.DeltaError as exc:
        raise _unreadable(root, exc) from exc


def _open_url(url: str, version: int | None) -> Any:
    errors = require("deltalake.exceptions")
    # Elsewhere a service without TLS is taken as it is named; here it has to be allowed.
    plain = any(os.environ.get(name, "").startswith("http://") for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    try:
        return require().DeltaTable(url, version=version, storage_options={"allow_http": "true"} if plain else None)
    except errors.TableNotFoundError as exc:
        raise UsageError(f"{url} is not a Delta table", code="table-missing") from exc
    except (errors.DeltaError, OSError) as exc:
        raise _unreadable(url, exc) from exc


@contextmanager
def reading(root: Root, what: str = "cannot be read") -> Iterator[None]:
    """Tell what another library cannot read of a table as InputError (``table-unreadable``)."""
    try:
        yield
    except (require("deltalake.exceptions").DeltaError, pa.ArrowException, OSError) as exc:
        raise _unreadable(root, exc, what) from exc


def _unreadable(root: Root, error: Exception, what: str = "cannot be read") -> InputError:
    # What a service said is not repeated: it may name keys and accounts.
    told = type(error).__name__ if isinstance(root, str) else reason(error)
    return InputError(f"{what}: {told}", code="table-unreadable", path=str(root))


def reason(error: Exception) -> str:
    """Return what a foreign error says, on one line."""
    return " ".join(str(error).split())[:300]
