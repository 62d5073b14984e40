"""Libraries the core uses when they are there, without importing them before they are needed.

``import modelpack`` must import no pandas and no pyarrow. Two questions come up instead: *is this object one of
theirs?* (then the library is loaded already: :func:`loaded`), and *give me the library to build one*
(:func:`require`, which says what to install when it is missing).
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from modelpack.errors import UsageError

__all__ = ["loaded", "require"]


def loaded(name: str) -> Any | None:
    """Return the module if somebody has imported it already, else None."""
    return sys.modules.get(name)


def require(name: str, *, what: str, extra: str | None = None) -> Any:
    """Import and return the module, or raise UsageError that says what to install.

    ``what`` starts the sentence, as in "Reading a DataFrame".
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != name.partition(".")[0]:
            raise
        target = f"modelpack[{extra}]" if extra else name
        raise UsageError(
            f"{what} needs {name}, which is not installed",
            code="extra-missing",
            hint=f"Install it: pip install '{target}'",
        ) from exc
