"""Virtual environments built from locks, kept by what they hold, in the user's cache; each is whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelpack import environment
from modelpack.environments import building, consent, locking, places, quick, uv, vendoring, wanted
from modelpack.environments.pruning import listed, prune
from modelpack.environments.quick import folder
from modelpack.environments.wanted import Pin
from modelpack.errors import SaveError, UsageError
from modelpack.manifest import Lock
from modelpack.package import Package

__all__ = ["Built", "create", "listed", "prepared", "prune"]

_HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """An environment on disk; ``fresh`` if it was built just now."""

    path: Path
    pins: tuple[Pin, ...]
    lock: Lock
    series: str
    fresh: bool = False
    vendored: bool = False

    @property
    def known(self) -> bool:
        """Whether all that it holds is known to be needed by flavors, so that no grant is asked for."""
        return not self.vendored and not environment.strange(one.name for one in self.pins)

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"


def prepared(package: Package, *, allow_code: str | None = None) -> Built:
    """Return the environment of the package as it would be in the cache, whether it is there or not; for running in.

    Raises:
        EnvironmentMismatch: ``lock-missing``, ``lock-invalid``, ``requirement-refused``.
        TrustError: it would run code that nobody has allowed (``code-not-allowed``).
    """
    pins, lock = _pins(package)
    consent.require_for_running(package, pins, lock, allow_code, vendored=vendoring.inside(package))
    return Built(
        path=folder() / _key(package, pins),
        pins=tuple(pins),
        lock=lock,
        series=building.series(package.environment),
        vendored=vendoring.inside(package),
    )


def create(
    package: Package,
    path: Path | None = None,
    *,
    indexes: uv.Indexes | None = None,
    unhashed: bool = False,
    allow_code: str | None = None,
) -> Built:
    """Build the environment that the package's lock describes, unless the cache has it; at ``path`` if that is given.

    Only wheels whose digest the lock fixes are installed. ``unhashed`` is the user's word that a partial lock will
    do; source distributions are built only if the package's code is allowed.

    Raises:
        EnvironmentMismatch: there is no lock, or it cannot be built (``hash-mismatch``, ``python-unavailable``, …), or
            others can write where it is kept (``cache-unsafe``).
        TrustError: ``code-not-allowed``.
        UsageError: ``lock-partial``, ``extra-missing``.
        SaveError: ``target-exists``, ``target-unwritable``.
    """
    pins, lock = _pins(package)
    consent.require_for_building(package, pins, allow_code)
    if not all(one.hashes for one in pins) and not unhashed and not package.granted(allow_code):
        raise UsageError(
            "the lock is partial: it fixes versions, and no digest of what is installed",
            code="lock-partial",
            path=lock.path,
            hint="Complete it with `modelpack env lock`, or build it first: `modelpack env create --unhashed`.",
        )
    place = path.absolute() if path is not None else folder() / _key(package, pins)
    indexes = indexes or uv.Indexes()
    with places.ending_cleanly():
        fresh = (
            _built_at(place, package, pins, indexes) if path is not None else _kept_at(place, package, pins, indexes)
        )
    return Built(path=place, pins=tuple(pins), lock=lock, series=building.series(package.environment), fresh=fresh)


def _built_at(place: Path, package: Package, pins: Sequence[Pin], indexes: uv.Indexes) -> bool:
    """Build where the user says that nothing is yet."""
    if os.path.lexists(place):
        raise SaveError(f"{place} exists", code="target-exists", path="path", hint="Choose another path.")
    with uv.room(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        _build(place, package, pins, indexes, replace=False)
    return True


def _kept_at(place: Path, package: Package, pins: Sequence[Pin], indexes: uv.Indexes) -> bool:
    """Build in the cache if it is not there, and say whether that was so."""
    places.cache(make=False)
    # Whoever runs in it holds its lock, so the lock of one that is there is not waited for.
    if quick.whole(place):
        return False
    with uv.room():
        places.cache(make=True)
        with places.locked(place, fcntl.LOCK_EX):
            # Somebody else may have built it meanwhile.
            if quick.whole(place):
                return False
            _build(place, package, pins, indexes, replace=True)
    return True


def _build(place: Path, package: Package, pins: Sequence[Pin], indexes: uv.Indexes, *, replace: bool) -> None:
    with _given(package, indexes) as chosen, places.staged(place, replace=replace) as (made, lock):
        building.fill(made, package, pins, chosen, lock=lock, at=place)


def _pins(package: Package) -> tuple[list[Pin], Lock]:
    """Return what the lock pins for this machine, and the lock.

    What its markers leave out here is not even named to uv, so that nothing is installed which nobody has looked at.
    Of another Python, uv decides.
    """
    pins, lock = locking.pins(package)
    if building.series(package.environment) != _HERE:
        return pins, lock
    return [one for one in pins if wanted.holds(one)], lock


@contextlib.contextmanager
def _given(package: Package, indexes: uv.Indexes) -> Iterator[uv.Indexes]:
    """Yield where to look: the wheels in the package, verified, and nowhere else; or else what the user said."""
    if not vendoring.inside(package):
        yield indexes
        return
    with tempfile.TemporaryDirectory(prefix="modelpack-wheels-") as name:
        package.files(vendoring.INSIDE).copy_to(Path(name))
        yield uv.Indexes(find_links=(name,), no_index=True)


def _key(package: Package, pins: Sequence[Pin]) -> str:
    """Return the name of an environment: what is in it, for which Python and which system.

    What a package brought itself is never taken for what the user's index has under the same name.
    """
    lines = sorted(one.line() for one in pins)
    content = json.dumps(
        [lines, building.series(package.environment), sysconfig.get_platform(), vendoring.inside(package)]
    )
    return hashlib.sha256(content.encode()).hexdigest()[:32]
