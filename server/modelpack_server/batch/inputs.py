"""Which files are scored, in which order: files, directories, globs and standard input."""

from __future__ import annotations

import glob
import gzip
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from modelpack.errors import UsageError
from modelpack_server.batch import formats
from modelpack_server.batch.formats import Format, Kind

__all__ = ["STDIN", "Source", "find"]

STDIN = "-"
_SPOOL_BLOCK = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One input file, or standard input (``path`` None).

    ``stem`` is the path its output file gets inside an output directory, without the suffix.
    """

    path: Path | None
    kind: Kind
    stem: str

    @property
    def name(self) -> str:
        """The name used in messages."""
        return "<stdin>" if self.path is None else str(self.path)

    @property
    def size(self) -> int | None:
        """Bytes of the file (None: not known beforehand)."""
        if self.path is None or not self.path.is_file():
            return None
        return self.path.stat().st_size

    def open_raw(self) -> IO[bytes]:
        """Open the bytes as they are."""
        if self.path is None:
            return sys.stdin.buffer
        return self.path.open("rb")

    def unpacked(self, raw: IO[bytes]) -> IO[bytes]:
        """Return the stream of the format's own bytes from what :meth:`open_raw` gave."""
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw, mode="rb")) if self.kind.gzip else raw

    def open_seekable(self) -> IO[bytes]:
        """Open for formats that are read from the end: what cannot seek is first copied into a nameless file."""
        raw = self.open_raw()
        if raw.seekable():
            return raw
        spool: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        while block := raw.read(_SPOOL_BLOCK):
            spool.write(block)
        spool.seek(0)
        return spool


def find(inputs: Sequence[str | Path], override: Format | None = None) -> list[Source]:
    """Return the files behind ``inputs`` in the order given, each once.

    A directory is walked, sorted by path; only data files count, and no name that starts with ``.`` or ``_``. A
    pattern (``*``, ``?``, ``[…]``, ``**``) that is not itself a file is expanded, sorted.

    Raises:
        UsageError: nothing there (``input-missing``), no data file in a directory (``input-empty``), a name that
            does not tell the format (``input-format``).
    """
    if not inputs:
        raise UsageError("no input given", code="input-missing", hint="Give a file, a directory, a pattern or '-'.")
    found: dict[Path | None, Source] = {}
    for given in inputs:
        for source in _expand(str(given), override):
            found.setdefault(source.path and source.path.resolve(), source)
    return list(found.values())


def _expand(given: str, override: Format | None) -> Iterator[Source]:
    path = Path(given)
    if given == STDIN:
        yield Source(path=None, kind=Kind(format=override or "jsonl"), stem="stdin")
    elif path.is_dir():
        yield from _walk(path, override)
    elif path.exists():
        yield _file(path, override)
    else:
        matches = sorted(glob.glob(given, recursive=True)) if glob.has_magic(given) else []  # noqa: PTH207 - Path.glob takes no absolute patterns
        if not matches:
            raise UsageError(f"there is no input {given}", code="input-missing", hint="Give a file or a directory.")
        for match in map(Path, matches):
            if match.is_file():
                yield _file(match, override)
            elif "**" not in given:  # "**" has walked the directories itself
                yield from _walk(match, override)


def _file(path: Path, override: Format | None) -> Source:
    kind = formats.of(path, override)
    if kind is None:
        raise UsageError(
            f"the name of {path} does not tell its format",
            code="input-format",
            hint=f"Pass --input-format: {', '.join(formats.FORMATS)}.",
        )
    return Source(path=path, kind=kind, stem=_stem(path.name, kind))


def _walk(root: Path, override: Format | None) -> Iterator[Source]:
    found = False
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if any(part.startswith((".", "_")) for part in inside.parts) or not path.is_file():
            continue
        # With an explicit format a file without a telling suffix is taken too, but none of another format.
        kind = formats.of(path) or formats.of(path, override) if override else formats.of(path)
        if kind is None or (override and kind.format != override):
            continue
        found = True
        yield Source(path=path, kind=kind, stem=str(inside.parent / _stem(path.name, kind)))
    if not found:
        raise UsageError(
            f"the directory {root} holds no data file",
            code="input-empty",
            hint=f"Data files end in {', '.join(formats.SUFFIXES)} (or .csv.gz, .jsonl.gz).",
        )


def _stem(name: str, kind: Kind) -> str:
    if kind.gzip:
        name = name[: -len(".gz")]
    return Path(name).stem if formats.has_suffix(Path(name)) else name
