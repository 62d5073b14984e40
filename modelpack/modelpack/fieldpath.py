"""How a place in nested data is written in errors: ``inputs.columns[2].type``, ``tags["odd name"]``."""

from __future__ import annotations

import json
import re

__all__ = ["SHOWN", "join", "shown"]

# Names come from outside; no more of one than this is repeated in an error.
SHOWN = 100

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def shown(name: str) -> str:
    """Return the name as errors repeat it: cut where it is longer than SHOWN."""
    return name if len(name) <= SHOWN else name[: SHOWN - 1] + "…"


def join(path: str, *parts: str | int) -> str:
    """Return ``path`` extended by keys (str) and positions (int)."""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
            continue
        part = shown(part)
        if _PLAIN.fullmatch(part):
            path += f".{part}" if path else part
        else:
            # A lone surrogate is escaped, so that the path can always be printed.
            path += f"[{json.dumps(part, ensure_ascii=False).encode('utf-8', 'backslashreplace').decode()}]"
    return path
