"""How a process of our own ends: what is written is out, what asked to be called is called, and then it is gone.

Python's own end takes every module apart, which costs half a second where a framework is loaded, and a thread of a
native library that asks for Python meanwhile ends the process by a signal (CPython before 3.14).
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import NoReturn

__all__ = ["run"]

# What Python says when it cannot write the last of its output, and nothing else went wrong.
_UNWRITTEN = 120


def run(work: Callable[[], int | None]) -> NoReturn:
    """Do ``work``, all that this process is for, and end with the code it returns or raises SystemExit with.

    Threads that are not daemons are waited for and ``atexit`` functions are called, as ever.
    """
    code, owner = 1, os.getpid()

    def leave() -> None:
        if os.getpid() != owner:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
            if ctypes := sys.modules.get("ctypes"):
                # What native code has printed: os._exit() leaves it in the C library's buffer.
                ctypes.CDLL(None).fflush(None)
        except (OSError, ValueError):
            os._exit(code or _UNWRITTEN)
        os._exit(code)

    atexit.register(leave)  # before all others, hence called after them
    try:
        code = work() or 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        raise
    sys.exit(code)
