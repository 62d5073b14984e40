"""The payload format ``lookup-json``, and its audit: it imports nothing but what reads JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from modelpack.audits import Audit
from modelpack.errors import PackageError
from modelpack.flavor import PayloadFiles

MAX_BYTES = 50 * 2**20


@dataclass(frozen=True)
class Content:
    """What a payload holds, checked."""

    column: str
    answers: dict[str, float]
    otherwise: float


def parse(raw: bytes, entry: str) -> Content:
    """Return what the bytes hold; the audit and the loader both come here, so they see the same."""
    try:
        if len(raw) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        found: Any = json.loads(raw)
        if not isinstance(found, dict) or found.keys() != {"column", "answers", "otherwise"}:
            raise ValueError("it is not an object with column, answers and otherwise")
        if not isinstance(found["column"], str) or not isinstance(found["answers"], dict):
            raise ValueError("column is not a string, or answers not an object")
        if not all(type(number) is float for number in [found["otherwise"], *found["answers"].values()]):
            raise ValueError("an answer is not a number with a fraction")
    except (ValueError, RecursionError) as exc:
        raise PackageError(f"no lookup table: {exc}", code="payload-invalid", path=entry) from exc
    return Content(**found)


def audit(files: PayloadFiles, entry: str | None) -> Audit:
    """Give every table that can be read the class ``data``: it holds texts and numbers, and nothing else."""
    parse(files.read(entry or ""), entry or "")
    return Audit(trust="data")
