"""How a place in nested data is written in errors: ``inputs.columns[2].type``, ``tags["odd name"]``."""

from __future__ import annotations

import json
import re

__all__ = ["join"]

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def join(path: str, *parts: str | int) -> str:
    """Return ``path`` extended by keys (str) and positions (int)."""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif _PLAIN.fullmatch(part):
            path += f".{part}" if path else part
        else:
            # A lone surrogate is escaped, so that the path can always be printed.
            path += f"[{json.dumps(part, ensure_ascii=False).encode('utf-8', 'backslashreplace').decode()}]"
    return path
