"""Panics: what libraries written in Rust raise where they fail themselves. They are no Exceptions."""

from __future__ import annotations

__all__ = ["is_failure"]


def is_failure(raised: BaseException) -> bool:
    """Say whether the code that was called has failed: by an exception, sys.exit() or a panic.

    Anything else is the wish of somebody outside to stop, such as a signal's or a cancelled task's.
    """
    # Each library has a class of its own, made by PyO3 under this name.
    return isinstance(raised, Exception | SystemExit) or type(raised).__module__ == "pyo3_runtime"
