"""Who has allowed it: building and locking run code of source distributions, running runs all that was installed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelpack import environment
from modelpack.environments.wanted import Pin
from modelpack.errors import TrustError
from modelpack.manifest import Lock
from modelpack.package import Package

__all__ = ["require_for_building", "require_for_locking", "require_for_running"]


def require_for_locking(package: Package, allow_code: str | None) -> None:
    """Raise TrustError (``code-not-allowed``) if nobody has allowed to build what the package names."""
    if not package.granted(allow_code):
        raise _refused(package, "locking what has no wheel builds it, which runs its code")


def require_for_building(package: Package, pins: Iterable[Pin], allow_code: str | None) -> None:
    """Raise TrustError (``code-not-allowed``) if source distributions would be built and nobody has allowed that."""
    building = sorted(one.name for one in pins if one.builds)
    if building and not package.granted(allow_code):
        raise _refused(package, f"installing it builds {', '.join(building)}, which runs their code")


def require_for_running(
    package: Package, pins: Sequence[Pin], lock: Lock, allow_code: str | None, *, vendored: bool
) -> None:
    """Raise TrustError (``code-not-allowed``) if the environment holds more than what is known, and nobody allowed it.

    A distribution can run code whenever Python starts; so one that the package chose is code of the package; and
    so is each that it brings along (``vendored``), whatever its name.
    """
    names = [one.name for one in pins]
    strange = sorted(names) if vendored else environment.strange(names)
    if strange and not package.granted(allow_code):
        raise _refused(
            package, f"its environment runs code of {', '.join(strange)}, which its lock ({lock.path}) names"
        )


def _refused(package: Package, why: str) -> TrustError:
    return TrustError(
        f"{why}. Nothing was run",
        code="code-not-allowed",
        path="environment.locks",
        hint="If you know who made it, allow exactly this package by its digest, which `modelpack inspect` shows.",
    )
