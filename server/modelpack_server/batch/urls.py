"""Which files are behind a URL: one, those of a folder or of a pattern; and whether they are a Delta table's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from modelpack.errors import UsageError
from modelpack_server.delta.tables import LOG
from modelpack_server.remote import RemoteFile, file_system, reading, seen

__all__ = ["expand", "in_table", "is_table"]


def expand(url: str) -> list[tuple[RemoteFile, str]]:
    """Return the files behind a URL, a folder or a pattern, sorted, each with its path from there.

    Raises:
        UsageError: there is nothing (``input-missing``), or a Delta table among them (``table-location``).
    """
    files, path = file_system(url)
    scheme = url.partition("://")[0]
    with reading(url):
        pattern = any(mark in path for mark in "*?[")
        if not pattern and files.isfile(path):
            return [(seen(url, files.info(path)), PurePosixPath(path).name)]
        details = files.glob(path, detail=True) if pattern else files.find(path, detail=True)
    if any(f"/{LOG}/" in name for name in details):
        message = f"{url} holds a Delta table, and tables behind URLs are read one by one"
        raise UsageError(message, code="table-location", hint="Give the URL of the table.")
    found = []
    for name, info in sorted(details.items()):
        inside = PurePosixPath(name).name if pattern else name.removeprefix(path).lstrip("/")
        if info["type"] == "file" and not any(part.startswith((".", "_")) for part in PurePosixPath(inside).parts):
            found.append((seen(f"{scheme}://{name.lstrip('/')}", info), inside))
    if not details:
        raise UsageError(f"there is no input {url}", code="input-missing", hint="Give a file, a folder or a pattern.")
    return found


def is_table(url: str) -> bool:
    """Say whether a URL is that of a Delta table."""
    files, path = file_system(url)
    with reading(url):
        return not files.isfile(path) and _has_log(files, path)


def in_table(urls: Iterable[str]) -> str | None:
    """Return the URL of the first of these files that lies in a Delta table; None if none does."""
    known: dict[str, bool] = {}
    for url in urls:
        files, path = file_system(url, fresh=False)
        for parent in map(str, PurePosixPath(path).parents):
            if parent not in known:
                known[parent] = parent not in (".", "/") and _has_log(files, parent)
            if known[parent]:
                return url
    return None


def _has_log(files: Any, path: str) -> bool:
    """Say whether there is the log of a table; who may only read files that they know sees none."""
    try:
        return bool(files.isdir(f"{path.rstrip('/')}/{LOG}"))
    except PermissionError:
        return False
