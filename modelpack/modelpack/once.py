"""What is worked out once for an object that never changes, and found again by the object's identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Once"]

K = TypeVar("K")
V = TypeVar("V")

# How many are remembered: more than a process has models.
LIMIT = 64


class Once(Generic[K, V]):
    """A function of one object that is called once for each; to hash a large object would cost more than to ask."""

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make
        self._made: dict[int, tuple[K, V]] = {}

    def __call__(self, key: K) -> V:
        """Return what was made of this very object."""
        found = self._made.get(id(key))
        if found is None:
            if len(self._made) >= LIMIT:
                self._made.clear()
            # The object is held, so that no other gets its identity.
            found = self._made[id(key)] = (key, self._make(key))
        return found[1]
