"""Opening Delta tables by path or URL: what is there, or a clear word about why it cannot be used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from modelpack import optional
from modelpack.errors import InputError, SaveError, UsageError
from modelpack_server.delta.storage import Root

__all__ = ["LOG", "location", "open_table", "options", "reading", "reason", "require", "unwritable"]

LOG = "_delta_log"

# delta-rs decodes what looks encoded in the path of a table once too often, takes a backslash for a slash, and cuts a
# URL at "#" and "?": it would open another place than the one that is named. What else is here it cannot open at all.
_CODED = r"%[0-9A-Fa-f]{2}|[\x00-\x1f\x7f\ud800-\udfff]"
_UNSAFE_PATH, _UNSAFE_URL = re.compile(rf"{_CODED}|\\"), re.compile(rf"{_CODED}|[#?]")

# What a service may say, and what of it is repeated: its own words may name keys and accounts.
_SAID = (
    (r"NoSuchBucket", "there is no such bucket"),
    (r"loading credentials", "the environment does not say who you are"),
    (r"Forbidden|Unauthorized|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken", "access is denied"),
    (r"error sending request|operation timed out", "the service cannot be reached"),
    (r"Internal Server Error|Service Unavailable|Bad Gateway|Gateway Timeout|SlowDown", "the service is not well"),
    (r"501 Not Implemented", "the service cannot write on condition, which Delta tables need"),
)


def require(module: str = "deltalake") -> Any:
    """Return a module of deltalake, or say what to install."""
    return optional.require(module, what="A Delta table", extra="delta")


def open_table(root: Root, version: int | None = None) -> Any:
    """Return the table as it is now, or was at a version.

    Raises:
        UsageError: there is no table (``table-missing``), or its name means another (``table-location``).
        InputError: there is one that cannot be read (``table-unreadable``).
    """
    errors = require("deltalake.exceptions")
    try:
        return require().DeltaTable(location(root), version=version, storage_options=options(root))
    except errors.TableNotFoundError as exc:
        message = f"{root} is not a Delta table"
        raise UsageError(message, code="table-missing", hint="Give the place that holds _delta_log.") from exc
    except (errors.DeltaError, OSError) as exc:
        raise _unreadable(root, exc) from exc


def location(root: Root) -> str:
    """Return where a table is, in words that mean the same place to delta-rs.

    Raises:
        UsageError: there are none (``table-location``).
    """
    if isinstance(root, Path):
        place, unsafe = os.path.realpath(root), _UNSAFE_PATH
    else:
        place, unsafe = root, _UNSAFE_URL
    if (found := unsafe.search(place)) is not None:
        raise UsageError(
            f"{str(root)!r} cannot be the place of a Delta table, because of {found[0]!r} in {place!r}",
            code="table-location",
            hint="Give the table, or the directory above it that is called so, another name.",
        )
    return place


def options(root: Root) -> Mapping[str, str] | None:
    """Return what delta-rs is told beyond the environment."""
    if not isinstance(root, str):
        return None
    # Elsewhere a service without TLS is taken as it is named; here it has to be allowed.
    plain = any(os.environ.get(name, "").startswith("http://") for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    return {"allow_http": "true"} if plain else None


@contextmanager
def reading(root: Root, what: str = "cannot be read") -> Iterator[None]:
    """Tell what another library cannot read of a table as InputError (``table-unreadable``)."""
    try:
        yield
    except (require("deltalake.exceptions").DeltaError, pa.ArrowException, OSError) as exc:
        raise _unreadable(root, exc, what) from exc


def _unreadable(root: Root, error: Exception, what: str = "cannot be read") -> InputError:
    return InputError(f"{what}: {reason(error, root)}", code="table-unreadable", path=str(root))


def unwritable(root: Root, error: Exception) -> SaveError:
    """Return the error for a table that another library could not write."""
    return SaveError(f"{root} cannot be written: {reason(error, root)}", code="output-unwritable")


def reason(error: Exception, root: Root) -> str:
    """Return what a foreign error says, on one line; of a table behind a URL, what it comes to."""
    text = " ".join(str(error).split())
    if not isinstance(root, str):
        return text[:300]
    return next((words for pattern, words in _SAID if re.search(pattern, text)), type(error).__name__)
