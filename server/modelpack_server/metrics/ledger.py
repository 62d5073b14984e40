"""Pages of numbers in memory that a server's processes share: each writes its own, and whoever is asked reads all.

Nothing is sent and nobody waits for a lock: a page has one writer, and a number is written in one piece. A page stays
when its process dies. The one that is started in its place goes on writing it, so what was counted is never lost and
never falls.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile

import numpy as np

from modelpack_server.metrics import layout

__all__ = ["SUPERVISOR", "Ledger", "Pages"]

# The page of whoever starts the processes, and of the only one where there is no other.
SUPERVISOR, ALONE = 0, 1

# Maps begin where the system lets them.
_SIZE = -(-layout.CELLS * 8 // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY


class Ledger:
    """The pages as one process sees them: in memory behind a descriptor, or in its own with -1."""

    def __init__(self, fd: int = -1) -> None:
        self._fd = fd
        self._own = mmap.mmap(-1, 2 * _SIZE) if fd < 0 else None

    def page(self, number: int) -> memoryview[float]:
        """Return a page, to be written by one process."""
        if self._own is not None:
            return memoryview(self._own).cast("d")[number * _SIZE // 8 :][: layout.CELLS]
        whole = mmap.mmap(self._fd, _SIZE, offset=number * _SIZE)
        return memoryview(whole).cast("d")[: layout.CELLS]

    def read(self) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """Return all pages as they are now, a row each."""
        if self._own is not None:
            data = self._own[:]
        else:
            with mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ) as whole:
                data = whole[:]
        return np.frombuffer(data).reshape(-1, _SIZE // 8)[:, : layout.CELLS]


class Pages:
    """A ledger whose pages are given to processes: each slot has as many as it ever had processes at a time."""

    def __init__(self) -> None:
        if sys.platform == "linux":
            self.fd = os.memfd_create("modelpack-metrics", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        os.truncate(self.fd, _SIZE)
        self.ledger = Ledger(self.fd)
        self.own = self.ledger.page(SUPERVISOR)
        self._count = 1
        self._free: dict[int, list[int]] = {}

    def take(self, slot: int) -> int:
        """Return the number of a page that nobody writes, for a process of this slot."""
        free = self._free.setdefault(slot, [])
        if free:
            return free.pop()
        number, self._count = self._count, self._count + 1
        os.truncate(self.fd, self._count * _SIZE)
        self.ledger.page(number)[layout.SLOT] = slot
        return number

    def give_back(self, number: int) -> None:
        """Take back the page of a process that has ended; what it counted stays."""
        page = self.ledger.page(number)
        page[layout.PID] = 0
        self._free[int(page[layout.SLOT])].append(number)

    def close(self) -> None:
        """Let go of the memory."""
        os.close(self.fd)
