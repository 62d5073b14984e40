"""Content-Encoding: bodies that came compressed, read piece by piece so that none grows beyond its limit."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pyarrow as pa

from modelpack.errors import InputError
from modelpack_server.problems import HttpProblem

__all__ = ["ENCODINGS", "decompress", "known"]

# What the server reads, as Accept-Encoding lists it.
ENCODINGS = ("gzip", "zstd", "identity")
_PIECE, _INPUT = 1024 * 1024, 64 * 1024
_GZIP = zlib.MAX_WBITS + 16


def known(header: str) -> str:
    """Return the one encoding that a Content-Encoding names, empty for a body that is not compressed.

    Raises:
        HttpProblem: 415 for an encoding that is not read, or several.
    """
    encoding = header.strip().lower()
    if encoding in ("", "identity"):
        return ""
    if encoding in _READERS:
        return encoding
    offered = ", ".join(ENCODINGS)
    raise HttpProblem(
        415,
        "this Content-Encoding is not read",
        code="content-encoding-unknown",
        hint=f"Send the body as one of {offered}, compressed once.",
        headers={"Accept-Encoding": offered},
    )


def _uncounted(size: int) -> None:
    pass


def decompress(body: bytes, encoding: str, limit: int, hold: Callable[[int], None] = _uncounted) -> bytes:
    """Return the body that was compressed as ``encoding`` says: gzip, zstd, identity, or nothing.

    ``hold`` is told of the bytes of each piece; what it raises ends it.

    Raises:
        HttpProblem: 413 when it would be larger than ``limit``, 415 for another encoding.
        InputError: not compressed in that way, cut off, or followed by something else.
    """
    name = known(encoding)
    return _READERS[name](body, limit, hold) if name else body


def _gzip(body: bytes, limit: int, hold: Callable[[int], None]) -> bytes:
    """Read one member after another, as RFC 1952 allows them.

    The input goes in by pieces: zlib hands back what it has not used as a copy.
    """
    pieces: list[bytes] = []
    size, place = 0, 0
    whole = memoryview(body)
    member, rest = zlib.decompressobj(_GZIP), b""
    while not member.eof or place < len(body) or rest:
        if member.eof:
            member = zlib.decompressobj(_GZIP)
        if not rest:
            rest = bytes(whole[place : place + _INPUT])
            place += len(rest)
        try:
            piece = member.decompress(rest, min(_PIECE, limit - size + 1))
        except zlib.error as exc:
            raise _invalid("gzip") from exc
        if not rest and not piece:
            raise _invalid("gzip")
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        hold(len(piece))
        pieces.append(piece)
        rest = member.unused_data if member.eof else member.unconsumed_tail
    return b"".join(pieces)


def _zstd(body: bytes, limit: int, hold: Callable[[int], None]) -> bytes:
    if not body:
        raise _invalid("zstd")
    pieces: list[bytes] = []
    size = 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), "zstd") as stream:
            while piece := stream.read(min(_PIECE, limit - size + 1)):
                size += len(piece)
                if size > limit:
                    raise _too_large(limit)
                hold(len(piece))
                pieces.append(piece)
    except (pa.ArrowException, OSError) as exc:
        raise _invalid("zstd") from exc
    return b"".join(pieces)


def _invalid(encoding: str) -> InputError:
    return InputError(
        f"the body is not {encoding} that can be read to its end",
        code="content-encoding-invalid",
        hint="Send it whole, and nothing after it.",
    )


def _too_large(limit: int) -> HttpProblem:
    return HttpProblem(
        413,
        f"the body is larger than {limit} bytes once decompressed",
        code="body-too-large",
        hint="Send fewer rows at a time, or start the server with a larger --max-body.",
    )


_READERS = {"gzip": _gzip, "x-gzip": _gzip, "zstd": _zstd}
