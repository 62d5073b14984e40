"""How coercion says what does not fit: paths, single misfits, and the list that collects them."""

from __future__ import annotations

import json
from typing import Any

from modelpack.errors import Fault, InputError, ModelpackError
from modelpack.fieldpath import shown

__all__ = ["CAP", "Collector", "Misfit", "field", "join"]

# More faults than this help nobody, and the error would be larger than the request.
CAP = 100


class Misfit(Exception):
    """One value that does not fit its type; an inner signal that never leaves coercion.

    ``path`` is relative to the value (``[2].x``).
    """

    def __init__(self, code: str, message: str, path: str = "") -> None:
        super().__init__(code, message, path)
        self.code = code
        self.message = message
        self.path = path

    def below(self, part: str) -> Misfit:
        """Return the same misfit as seen from the value that holds this one."""
        return Misfit(self.code, self.message, part + self.path)


def field(name: str) -> str:
    """Return the path step to a named part: ``.age``, or ``["odd name"]``."""
    short = shown(name)
    if short.isidentifier():
        return f".{short}"
    # A lone surrogate could not be written in the reply; it is escaped as in JSON.
    return f"[{json.dumps(short, ensure_ascii=not short.isprintable())}]"


def join(at: str, *parts: str) -> str:
    """Return the path ``at`` followed by steps."""
    path = at + "".join(parts)
    return path[1:] if path.startswith(".") else path


class Collector:
    """Collects faults; raises when there are too many to be of use.

    With ``tolerant`` there is no cap, and faults that belong to one row do not raise at the end.
    """

    def __init__(self, *, error: type[ModelpackError] = InputError, tolerant: bool = False) -> None:
        self.faults: list[Fault] = []
        self.error = error
        self.tolerant = tolerant

    def add(self, code: str, path: str, message: str, row: int | None = None, column: str | None = None) -> None:
        """Note one fault."""
        self.faults.append(Fault(code, path, message, row, column))
        if len(self.faults) >= CAP and not self.tolerant:
            raise self.error.from_faults(self.faults)

    def fail(self, code: str, path: str, message: str, *, hint: str = "") -> Any:
        """Note a fault after which nothing more can be read, and raise."""
        self.faults.insert(0, Fault(code, path, message))
        raise self.error.from_faults(self.faults, hint=hint)

    def finish(self) -> None:
        """Raise if what was noted means that nothing can be scored."""
        fatal = [fault for fault in self.faults if fault.row is None] if self.tolerant else self.faults
        if fatal:
            raise self.error.from_faults(fatal[:CAP])
