"""What a package asks an installer for, read so that nothing in it can be an option, an address or a path."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from modelpack.environment import is_met, names_file
from modelpack.errors import EnvironmentMismatch
from modelpack.manifest import Environment

__all__ = ["Pin", "constraints", "fits", "holds", "pin", "pinned", "requirements", "series"]

# A text in a marker; whether it is to be in the extras or the groups that were chosen, which only a lock can ask.
_WORD = re.compile(r'("[^"]*")(?: (in|not in) (?:extras|dependency_groups)\b)?')


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """One distribution in one version. ``hashes`` are sha256 of the files that it may be installed from."""

    name: str
    version: str
    marker: str | None = None
    hashes: tuple[str, ...] = ()
    builds: bool = False

    def line(self) -> str:
        """Return it as one line of a requirements file."""
        marker = f" ; {self.marker}" if self.marker else ""
        return " ".join([f"{self.name}=={self.version}{marker}", *(f"--hash=sha256:{one}" for one in self.hashes)])


def holds(one: Pin, **other: str) -> bool:
    """Say whether a pin is needed on this machine, where ``other`` variables of markers are not as here."""
    return is_met(one.marker, **other)


def pin(name: str, version: str, path: str, *, marker: str | None = None, hashes: Iterable[str] = ()) -> Pin:
    """Return a pin of what a package says. Of extras and groups that a lock's marker asks for, none is chosen.

    Raises:
        EnvironmentMismatch: it is no plain name, version and marker (``requirement-refused``).
    """
    try:
        plain = Requirement(f"{name}==0")
        known = Version(version)
        condition = _anew(Marker, _WORD.sub(_unchosen, _anew(Marker, marker))) if marker is not None else None
    except (ValueError, RecursionError):
        # Also InvalidRequirement, InvalidVersion and InvalidMarker.
        raise _refused(path) from None
    if plain.name != name or plain.extras or str(plain.specifier) != "==0" or names_file(name):
        raise _refused(path)
    return Pin(name=canonicalize_name(name), version=str(known), marker=condition, hashes=tuple(sorted(set(hashes))))


def _unchosen(match: re.Match[str]) -> str:
    """Return what is true or false of every Python for a condition on the extras of a lock."""
    if match[2] is None:
        return match[0]
    return 'python_version < "0"' if match[2] == "in" else 'python_version >= "0"'


def requirements(environment: Environment) -> list[str]:
    """Return the dependencies of a package, written anew from what they mean.

    Raises:
        EnvironmentMismatch: one is no PEP 508 requirement, or names an address or a file (``requirement-refused``).
    """
    found = []
    for i, text in enumerate(environment.dependencies):
        path = f"environment.dependencies[{i}]"
        try:
            written = _anew(Requirement, text)
        except (ValueError, RecursionError):
            raise _refused(path, text) from None
        read = Requirement(written)
        if read.url is not None or names_file(read.name):
            raise _refused(path, text)
        found.append(written)
    return found


def series(environment: Environment) -> str | None:
    """Return the minor version of the Python that the model was saved on, ``3.12``; None if the package names none.

    uv takes a path in its place too, and runs what is there.

    Raises:
        EnvironmentMismatch: it is no version (``requirement-refused``).
    """
    captured = environment.python.captured
    if not captured:
        return None
    found = ".".join(captured.split(".")[:2])
    if not re.fullmatch(r"[0-9]+\.[0-9]+", found):
        raise EnvironmentMismatch(
            "the Python that the model was saved on is no version",
            code="requirement-refused",
            path="environment.python.captured",
        )
    return found


def fits(environment: Environment, versions: str) -> bool:
    """Say whether the Python that an environment is built with is among these versions; not if they are none.

    Where that is another one than runs here, only its minor version is known.
    """
    try:
        allowed = SpecifierSet(versions)
    except InvalidSpecifier:
        return False
    minor, here = series(environment), platform.python_version()
    if minor is None or here.startswith(f"{minor}."):
        return allowed.contains(here, prereleases=True)
    return any(allowed.contains(f"{minor}.{micro}") for micro in range(100))


def _anew(read: type[Marker] | type[Requirement], text: str) -> str:
    """Return a marker or a requirement, written anew from what it means.

    A quoted value in a marker can hold escapes, which are decoded when it is read and not put back when it is
    written: what it holds would end the line, or the quotes.

    Raises:
        ValueError: it cannot be read, or what would be written is not the same again.
    """
    if "\\" in text or not text.replace("\t", " ").isprintable():
        raise ValueError("it holds escapes or what cannot be printed")
    written = str(read(text))
    if not written.isprintable() or str(read(written)) != written:
        raise ValueError("it means something else when it is written anew")
    return written


def constraints(environment: Environment) -> list[Pin]:
    """Return what was captured as pins. What came from no index cannot be had again by its version, and is refused.

    Raises:
        EnvironmentMismatch: ``requirement-refused``, or ``origin-local``.
    """
    for name, origin in environment.origins.items():
        raise EnvironmentMismatch(
            f"{name} was not installed from an index but from {origin}, so its version names nothing to install",
            code="origin-local",
            path=f"environment.origins[{name!r}]",
            hint="Build a wheel of it, install that, and save the model again; or put its modules into code=.",
        )
    return [pin(name, version, f"environment.captured[{name!r}]") for name, version in environment.captured.items()]


def pinned(environment: Environment) -> list[Pin]:
    """Return what was captured as pins, each with the markers under which the package asks for it.

    Raises:
        EnvironmentMismatch: as for :func:`constraints` and :func:`requirements`.
    """
    asked: dict[str, list[Marker | None]] = {}
    for requirement in map(Requirement, requirements(environment)):
        asked.setdefault(canonicalize_name(requirement.name), []).append(requirement.marker)
    return [replace(one, marker=_either(asked.get(one.name, [None]))) for one in constraints(environment)]


def _either(markers: Sequence[Marker | None]) -> str | None:
    """Return the marker that holds where any of these does; None if that is everywhere."""
    if None in markers:
        return None
    return _anew(Marker, " or ".join(f"({one})" for one in dict.fromkeys(map(str, markers))))


def _refused(path: str, text: str | None = None) -> EnvironmentMismatch:
    what = "not a plain requirement" if text is None else f"{text!r} is not a plain requirement"
    return EnvironmentMismatch(
        f"{what}: only names, versions, extras and markers are given to an installer",
        code="requirement-refused",
        path=path,
        hint="Options, addresses and paths are never taken from a package.",
    )
