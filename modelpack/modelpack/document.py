"""Strict JSON documents (spec/03-manifest.md#json): one meaning per byte sequence, bounded size and depth.

Python's own parser accepts NaN, repeated keys and lone surrogates; each is refused here, with its path.
"""

from __future__ import annotations

import json
from typing import Any

from modelpack.errors import ManifestError
from modelpack.fieldpath import join

__all__ = ["MAX_BYTES", "MAX_DEPTH", "dump", "parse"]

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 64
MAX_INTEGER = 2**53 - 1


class _Repeated(dict[str, Any]):
    """An object in which ``key`` occurred more than once."""

    key = ""


class _NotANumber:
    """NaN, Infinity or -Infinity."""


def parse(raw: bytes, *, max_bytes: int = MAX_BYTES, max_integer: int = MAX_INTEGER) -> Any:
    """Return the value of a strict JSON document.

    ``max_integer`` is the largest integer taken, either sign: examples hold int64 and uint64 values, manifests do not.

    Raises:
        ManifestError: ``document-too-large``, ``document-encoding``, ``json-invalid``, ``json-duplicate-key``,
            ``json-number``, ``json-surrogate`` or ``json-depth``, with the path of the offending place.
    """
    if len(raw) > max_bytes:
        raise ManifestError(f"the document is larger than {max_bytes} bytes", code="document-too-large")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise ManifestError("the document starts with a byte order mark", code="document-encoding")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise ManifestError(f"the document is not UTF-8 at byte {exc.start}", code="document-encoding") from None
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_int=_integer, parse_constant=lambda _: _NotANumber())
    except RecursionError:
        raise ManifestError(f"the document is nested deeper than {MAX_DEPTH}", code="json-depth") from None
    except ValueError as exc:
        where = f" at line {exc.lineno} column {exc.colno}" if isinstance(exc, json.JSONDecodeError) else ""
        raise ManifestError(f"the document is not JSON{where}", code="json-invalid") from None
    _audit(value, max_integer)
    return value


def dump(value: Any) -> bytes:
    """Return the bytes of a document: UTF-8, two-space indent, keys in the order given, a newline at the end."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _integer(digits: str) -> int:
    """Return the integer; one far beyond the limit as 10^40, since Python refuses to read thousands of digits."""
    return int(digits) if len(digits) <= 40 else 10**40


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) == len(pairs):
        return out
    seen: set[str] = set()
    repeated = _Repeated(out)
    repeated.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return repeated


def _audit(root: Any, max_integer: int) -> None:
    """Walk the value without recursion and refuse what JSON's grammar lets through."""
    stack: list[tuple[Any, str, int]] = [(root, "", 1)]
    while stack:
        value, path, depth = stack.pop()
        fault = _fault(value, depth, max_integer)
        if fault:
            if isinstance(value, _Repeated):
                path = join(path, value.key)
            raise ManifestError(fault[1], code=fault[0], path=path)
        if isinstance(value, dict):
            for key, item in value.items():
                if _surrogate(key):
                    raise ManifestError("a key holds a lone surrogate", code="json-surrogate", path=path)
                stack.append((item, join(path, key), depth + 1))
        elif isinstance(value, list):
            stack.extend((item, join(path, i), depth + 1) for i, item in enumerate(value))


def _fault(value: Any, depth: int, max_integer: int) -> tuple[str, str] | None:
    match value:
        case _Repeated():
            return "json-duplicate-key", "the key occurs twice in one object"
        case dict() | list() if depth > MAX_DEPTH:
            return "json-depth", f"the document is nested deeper than {MAX_DEPTH}"
        case _NotANumber():
            return "json-number", "NaN and Infinity are not JSON"
        case int() if abs(value) > max_integer:
            return "json-number", "an integer beyond what all JSON parsers agree on, ±(2^53 - 1)"
        case float() if value in (float("inf"), float("-inf")):
            return "json-number", "a number beyond the range of float64"
        case str() if _surrogate(value):
            return "json-surrogate", "a string holds a lone surrogate"
    return None


def _surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)
