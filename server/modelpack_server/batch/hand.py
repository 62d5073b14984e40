"""A process that makes files for a batch run: started by :mod:`modelpack_server.batch.processes`, and gone with it.

It is given a socket, by the number of its descriptor. What comes there is, first, what to load (:class:`Handed`) and
from where; then pieces of work, each answered with what it gave or with the error it ended with.
"""

from __future__ import annotations

import os
import sys
import threading
from multiprocessing.connection import Connection

from modelpack import ending
from modelpack.errors import ModelpackError

__all__ = ["main"]


def main() -> None:
    """Do what is asked for until nobody is there to ask."""
    threading.Thread(target=_end_with_run, name="parent-watch", daemon=True).start()
    with Connection(int(sys.argv[1])) as run:
        handed, path = run.recv()
        model = None
        while True:
            try:
                work, item = run.recv()
            except (EOFError, ConnectionError):
                return
            try:
                model = model or handed.load_from(path)
                run.send(work(model, item))
            except (ModelpackError, OSError) as exc:
                run.send(exc)


def _end_with_run() -> None:
    # Not sys.stdin.read(): its lock, held by this thread, would be fatal when the interpreter ends.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    ending.run(main)
