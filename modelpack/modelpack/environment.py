"""The environment a model needs: captured at saving, compared at loading (spec/10-environment.md).

Capture reads installed metadata only: no subprocess, no network, no reloading of the model.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, cast, get_args

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import InvalidVersion, Version

from modelpack import imports
from modelpack.errors import EnvironmentMismatch, EnvironmentWarning, SaveError, UsageError
from modelpack.flavor import Policy
from modelpack.installed import version as installed
from modelpack.known import KNOWN
from modelpack.manifest import Environment, Platform, Python

__all__ = [
    "POLICY",
    "Difference",
    "capture",
    "compare",
    "is_met",
    "names_file",
    "policy",
    "require",
    "same_series",
    "strange",
    "warn",
]

# What `load` does about a critical package of another version where its caller does not say.
POLICY = "MODELPACK_ENVIRONMENT_POLICY"

# Names as pip takes them: nothing that means something to a shell.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
# A name that ends so is one of PEP 508, and to pip and uv a file that lies where they run.
_ARCHIVE = re.compile(r".*\.(whl|zip|tgz|tbz2?|txz|tlz|tar(\.(gz|bz2|xz|lz|lzma|zst))?)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One way in which this environment is not the one the model was saved in.

    ``severity`` is "error" for a critical package that is missing or outside its range, else "note".
    """

    name: str
    wanted: str
    found: str | None
    severity: Literal["error", "note"]

    def __str__(self) -> str:
        return f"{self.name}: saved with {self.wanted}, here {self.found or 'not installed'}"


def capture(
    critical: Sequence[str],
    dependencies: Iterable[str] = (),
    *,
    requires: Iterable[str] = (),
    imported: Mapping[str, str] = MappingProxyType({}),
    python: str = ">=3.11",
) -> Environment:
    """Return the environment for a manifest.

    ``critical`` are the distributions whose version decides what the payload means; ``dependencies`` are the
    caller's own requirements (PEP 508), kept as given: what is said of a distribution here takes the place of all that
    is found. ``requires`` are the flavors' requirements, for what has no exact version by then. ``imported`` are the
    distributions, with their versions, that the package's code and its pickles import; ``python`` is the range of
    Python versions it loads on.

    Raises:
        SaveError: a dependency that is not a requirement, or names an address (``dependency-invalid``).
    """
    captured = {name: version for name in critical if (version := installed(name)) is not None}
    names = set(map(canonicalize_name, captured))
    captured |= {name: version for name, version in imported.items() if canonicalize_name(name) not in names}
    wanted = {canonicalize_name(name): [f"{name}=={_public(version)}"] for name, version in captured.items()}
    ranges = _by_name((text, Requirement(text)) for text in requires)
    given = _by_name((text, _requirement(text, i)) for i, text in enumerate(dependencies))
    wanted |= {name: list(asked) for name, asked in ranges.items() if name not in wanted}
    for name, asked in given.items():
        # What is asked for on other machines only leaves what is found here.
        kept = [] if any(is_met(one.marker) for one in asked.values()) else wanted.get(name, [])
        wanted[name] = [*kept, *asked]
    for asked in (*ranges.values(), *given.values()):
        called = next(iter(asked.values())).name
        known = map(canonicalize_name, captured)
        if canonicalize_name(called) not in known and (here := installed(called)) is not None:
            captured[called] = here
    libc = "-".join(part for part in platform.libc_ver() if part)
    return Environment(
        python=Python(
            requires=python,
            captured=platform.python_version(),
            implementation=sys.implementation.name,
        ),
        dependencies=tuple(text for name in sorted(wanted) for text in wanted[name]),
        critical=tuple(sorted(name for name in critical if name in captured)),
        captured={name: captured[name] for name in sorted(captured, key=str.casefold)},
        origins={name: place for name in sorted(captured, key=str.casefold) if (place := imports.origin(name))},
        platform=Platform(os=sys.platform, arch=platform.machine() or None, libc=libc or None),
    )


def _by_name(found: Iterable[tuple[str, Requirement]]) -> dict[NormalizedName, dict[str, Requirement]]:
    """Return requirements by the names of their distributions, each text once."""
    named: dict[NormalizedName, dict[str, Requirement]] = {}
    for text, requirement in found:
        named.setdefault(canonicalize_name(requirement.name), {})[text] = requirement
    return named


def is_met(marker: Marker | str | None, **other: str) -> bool:
    """Say whether what has this marker is needed on this machine, where ``other`` variables are not as here.

    It is needed if it has none, and if that compares what cannot be compared.
    """
    if marker is None:
        return True
    try:
        return Marker(str(marker)).evaluate(dict(other))
    except (KeyError, ValueError):
        return True


def strange(names: Iterable[str]) -> list[str]:
    """Return the distributions that are not among those known to be needed by flavors that come with modelpack."""
    return sorted({canonicalize_name(name) for name in names} - KNOWN)


def names_file(name: str) -> bool:
    """Say whether an installer takes the name of a distribution for that of a file: ``x-1-py3-none-any.whl``."""
    return _ARCHIVE.fullmatch(name) is not None


def compare(environment: Environment, *, foreign: Collection[str] = ()) -> list[Difference]:
    """Return how this environment differs from the one recorded, worst first.

    A critical package must be of the same release series as the captured one: major and minor version equal. It does
    not matter for what is loaded if it is one of ``foreign``, the packages of other flavors. What is asked for on other
    machines only is not compared.
    """
    found = []
    python = environment.python
    if python.requires and not _python_fits(python.requires):
        found.append(
            Difference(name="python", wanted=python.requires, found=platform.python_version(), severity="error")
        )
    critical = set(map(canonicalize_name, environment.critical)) - set(map(canonicalize_name, foreign))
    elsewhere = _elsewhere(environment.dependencies)
    for name, wanted in environment.captured.items():
        here = installed(name)
        if here == wanted or canonicalize_name(name) in elsewhere:
            continue
        serious = canonicalize_name(name) in critical and (here is None or not same_series(wanted, here))
        found.append(Difference(name=name, wanted=wanted, found=here, severity="error" if serious else "note"))
    return sorted(found, key=lambda difference: difference.severity)


def _elsewhere(dependencies: Iterable[str]) -> set[str]:
    """Return the names of distributions that are asked for with markers only, none of which holds on this machine."""
    asked: dict[str, bool] = {}
    # Most have no marker, and reading all costs more than comparing them.
    marked = any(";" in text for text in dependencies)
    for text in dependencies if marked else ():
        try:
            requirement = Requirement(text)
        except (ValueError, RecursionError):
            continue
        name = canonicalize_name(requirement.name)
        asked[name] = asked.get(name, False) or is_met(requirement.marker)
    return {name for name, here in asked.items() if not here}


def require(differences: Iterable[Difference]) -> None:
    """Raise EnvironmentMismatch (``environment-mismatch``) if any difference is an error."""
    serious = [difference for difference in differences if difference.severity == "error"]
    if serious:
        raise EnvironmentMismatch(
            "; ".join(map(str, serious)), code="environment-mismatch", path="environment", hint=_remedy(serious)
        )


def warn(differences: Iterable[Difference]) -> None:
    """Say once what :func:`require` would refuse, and how it is mended."""
    serious = [difference for difference in differences if difference.severity == "error"]
    if serious:
        text = f"{'; '.join(map(str, serious))}. The model may fail or answer differently. {_remedy(serious)}"
        warnings.warn(text, EnvironmentWarning, stacklevel=3)


def policy(given: Policy | None) -> Policy:
    """Return what is done about such a difference: what the caller says, or ``MODELPACK_ENVIRONMENT_POLICY``.

    Raises:
        UsageError: it is none of the three (``policy-invalid``).
    """
    chosen = given or os.environ.get(POLICY) or "strict"
    if chosen in get_args(Policy):
        return cast(Policy, chosen)
    raise UsageError(
        "what to do about another environment is strict, warn or ignore",
        code="policy-invalid",
        path=POLICY if given is None else "environment_policy",
    )


def _remedy(serious: Iterable[Difference]) -> str:
    """Return the command that installs what is wanted, as far as that are plain names and versions."""
    serious = list(serious)
    wanted = " ".join(filter(None, map(_argument, serious)))
    return f"Install what it was saved with: pip install {wanted}" if wanted else _without(serious)


def _without(serious: Iterable[Difference]) -> str:
    """Say what to do where there is nothing to paste."""
    if all(difference.name == "python" for difference in serious):
        return "Use the Python it needs."
    return "Do not trust the names and versions it asks for: they are no plain ones."


def _argument(difference: Difference) -> str | None:
    """Return what pip takes for a distribution; None for what a stranger wrote that is no plain name and version."""
    name, wanted = difference.name, difference.wanted
    if name == "python" or not _NAME.fullmatch(name):
        return None
    try:
        # Without a local tag such as `+cpu`: the index that pip asks by default has none.
        return f"'{name}=={Version(wanted).public}'"
    except InvalidVersion:
        return None


def _requirement(text: str, position: int) -> Requirement:
    path = f"dependencies[{position}]"
    name = _NAME.match(text.strip())
    if "://" in text or "@" in text or (name and names_file(name[0])):
        # It may hold a password, so it is not repeated; and no environment is made from it (wanted.requirements).
        raise SaveError(
            "a dependency is a name with versions; addresses and paths are not put into packages",
            code="dependency-invalid",
            path=path,
            hint="Give its name and version, and its index or its wheel when the package is locked.",
        )
    try:
        return Requirement(text)
    except InvalidRequirement as exc:
        raise SaveError("not a PEP 508 requirement", code="dependency-invalid", path=path, hint=str(exc)) from None


def _public(version: str) -> str:
    """Return the version as a requirement can name it; an unreadable one stays as it is."""
    try:
        return str(Version(version))
    except InvalidVersion:
        return version


def same_series(one: str, other: str) -> bool:
    """Say whether two versions are of one release series: major and minor version equal."""
    try:
        return Version(one).release[:2] == Version(other).release[:2]
    except InvalidVersion:
        return one == other


def _python_fits(specifier: str) -> bool:
    try:
        return SpecifierSet(specifier).contains(platform.python_version(), prereleases=True)
    except InvalidSpecifier:
        return False
