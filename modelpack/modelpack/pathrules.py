"""Which file paths a package may hold (spec/02-package.md#paths): the same on every system, and never outside."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

__all__ = ["MANIFEST", "UNLISTED", "clashes", "fault"]

MANIFEST = "modelpack.json"
# The manifest, and detached signatures of it: the only files that `files` does not list.
UNLISTED = frozenset({MANIFEST, "modelpack.sig.json", "model.sig"})

MAX_PATH = 1024
MAX_SEGMENT = 255
_FORBIDDEN = frozenset('\\:*?"<>|')
# C1 controls, line and paragraph separators, the byte order mark, bidirectional controls: a list of files that holds
# one of them does not look on a screen like what it is.
_INVISIBLE = re.compile("[\x80-\x9f\u2028\u2029\ufeff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul"} | {f"{name}{digit}" for name in ("com", "lpt") for digit in "123456789¹²³"}
)


def fault(path: str) -> tuple[str, str] | None:
    """Return (code, message) of the first rule the path breaks, or None if it is a good one."""
    if not path:
        return "path-empty", "the path is empty"
    if any(ord(c) < 32 or ord(c) == 127 or c in _FORBIDDEN or "\ud800" <= c <= "\udfff" for c in path):
        return "path-character", 'the path holds a control character, a surrogate, or one of \\ : * ? " < > |'
    if _INVISIBLE.search(path):
        return "path-character", "the path holds a character that changes how the text around it looks"
    if len(path.encode()) > MAX_PATH:
        return "path-too-long", f"the path is longer than {MAX_PATH} bytes"
    if path.startswith("/"):
        return "path-absolute", "the path is absolute"
    if unicodedata.normalize("NFC", path) != path:
        return "path-normalization", "the path is not in Unicode normalization form C"
    for segment in path.split("/"):
        found = _segment_fault(segment)
        if found:
            return found
    if path.partition("/")[0].casefold() in UNLISTED:
        return "path-reserved", "the name is reserved for the manifest and its signatures"
    return None


def _segment_fault(segment: str) -> tuple[str, str] | None:
    if not segment:
        return "path-segment", "the path has an empty segment"
    if segment in (".", ".."):
        return "path-traversal", "the path has a segment '.' or '..'"
    if len(segment.encode()) > MAX_SEGMENT:
        return "path-too-long", f"a segment is longer than {MAX_SEGMENT} bytes"
    if segment[-1] in ". " or segment[0] == " ":
        return "path-segment", "a segment ends with a dot or a space, or starts with a space"
    if segment.partition(".")[0].rstrip(" ").casefold() in _RESERVED:
        return "path-reserved", "a segment is a device name on some systems"
    return None


def clashes(paths: Iterable[str]) -> list[tuple[int, str, str]]:
    """Return (position, code, message) for each path that cannot stand beside an earlier one.

    Two paths clash when they are equal, differ only in case, or one is a directory of the other.
    """
    # In this order what lies in a directory follows it at once, so no more than the paths is held: a manifest of a few
    # megabytes can name millions of directories.
    ordered = sorted((path.casefold().replace("/", "\0"), position, path) for position, path in enumerate(paths))
    found: dict[int, tuple[str, str]] = {}
    above: list[tuple[str, int]] = []
    before = ("", -1, "")
    for folded, position, path in ordered:
        if before[1] >= 0 and folded == before[0]:
            twice = "path-duplicate", "the path is listed twice"
            case = "path-clash", "the path differs from an earlier one only in case"
            found[position] = twice if path == before[2] else case
            continue
        while above and not folded.startswith(f"{above[-1][0]}\0"):
            above.pop()
        for _, other in above:
            found.setdefault(max(position, other), ("path-clash", "one path is a directory of another"))
        if _differ_in_case(before[2], path):
            folder = "a directory differs from an earlier one only in case"
            found.setdefault(max(position, before[1]), ("path-clash", folder))
        above.append((folded, position))
        before = (folded, position, path)
    return [(position, code, message) for position, (code, message) in sorted(found.items())]


def _differ_in_case(one: str, other: str) -> bool:
    """Say whether the first directory that is spelled in two ways is one and the same but for case."""
    for left, right in zip(one.split("/")[:-1], other.split("/")[:-1], strict=False):
        if left != right:
            return left.casefold() == right.casefold()
    return False
