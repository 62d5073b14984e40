"""Adding a lock to a package: another package, which says what it was made from (spec/10-environment.md#locks)."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from modelpack import atomic, saving
from modelpack.environment import is_met
from modelpack.environments import consent, pylock, uv, wanted
from modelpack.environments.wanted import Pin
from modelpack.errors import EnvironmentMismatch, IntegrityError, ManifestError
from modelpack.manifest import FORMAT, Environment, Lock, Manifest
from modelpack.package import Package
from modelpack.pathrules import MANIFEST
from modelpack.recording import derived, equip

__all__ = ["lock", "pins", "rewrite"]

PLACE = "environment/pylock.toml"
PARTIAL = "environment/requirements.txt"
_READERS: Mapping[str, Callable[[bytes, str], list[Pin]]] = MappingProxyType(
    {"pylock": pylock.read, "requirements": pylock.read_requirements}
)


def lock(
    package: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    indexes: uv.Indexes | None = None,
    universal: bool = False,
    partial: bool = False,
    builds: bool = False,
    yanked: bool = False,
    allow_code: str | None = None,
) -> Package:
    """Write the package with a lock of its environment at ``output``; in its own place if that is None.

    The versions are those that were captured, with all they need. ``universal`` locks for every platform; ``partial``
    asks nobody and writes what is installed here, without hashes; ``builds`` takes source distributions too, which
    are built to see what they need, so the package's code must be allowed; ``yanked`` takes versions that their index
    has withdrawn. A lock that is there already is replaced. If the old package needs no grant, or this user's store
    holds one, the new one gets one: what a lock adds is what the user's own index has.

    Raises:
        EnvironmentMismatch: it cannot be locked (``version-missing``, ``index-unreachable``, ``origin-local``, …).
        TrustError: ``code-not-allowed``, ``grant-mismatch``.
        UsageError: uv is not installed (``extra-missing``).
        SaveError, PackageError: as for saving and opening.
    """
    opened = Package.open(package)
    manifest = opened.manifest
    if manifest.modelpack != FORMAT:
        raise ManifestError(
            f"the package is of format {manifest.modelpack}; what this release ({FORMAT}) does not know would be lost",
            code="version-unsupported",
            path="modelpack",
            hint="Use a modelpack release that knows it.",
        )
    if builds:
        consent.require_for_locking(opened, allow_code)
    path, raw = (PARTIAL, _partial(manifest.environment)) if partial else (PLACE, b"")
    if not partial:
        raw, said = _resolved(manifest.environment, indexes or uv.Indexes(), universal=universal, builds=builds)
        _check_withdrawn(said, taken=yanked)

    def fill(directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        (directory / Path(path).name).write_bytes(raw)

    env = _with_lock(manifest.environment, path, universal)
    allowed = saving.granted(opened) or not saving.needs_grant(opened)
    return rewrite(opened, output, fill, env, change="partial-lock" if partial else "lock", grant=allowed)


def rewrite(
    opened: Package,
    output: str | os.PathLike[str] | None,
    fill: Callable[[Path], None],
    env: Environment,
    *,
    change: str,
    grant: bool,
) -> Package:
    """Write the package with other files below ``environment/``, which ``fill`` is called to make, as another one."""
    target = opened.path if output is None else Path(output)
    with atomic.directory(target, overwrite=output is None) as staging:
        opened.files().copy_to(staging)
        fill(staging / "environment")
        made = equip(opened.manifest, staging, env, derived(opened.manifest, opened.digest, change))
        Manifest.parse(made)
        (staging / MANIFEST).write_bytes(made)
        if output is None and Package.peek(target).digest != opened.digest:
            raise IntegrityError(
                f"the package was replaced meanwhile ({change})",
                code="digest-mismatch",
                path=MANIFEST,
                hint="Do it again.",
            )
    result = Package(target, made)
    if grant:
        saving.grant(result)
    return result


def _with_lock(env: Environment, path: str, universal: bool) -> Environment:
    kept = [one for one in env.locks if one.kind not in _READERS and not one.path.startswith("environment/")]
    system = env.platform
    here = () if universal else tuple(filter(None, [f"{system.os}-{system.arch}" if system.os and system.arch else ""]))
    kind: Any = "pylock" if path == PLACE else "requirements"
    return env.model_copy(update={"locks": (*kept, Lock(kind=kind, path=path, platforms=here))})


def _check_withdrawn(said: str, *, taken: bool) -> None:
    """Raise EnvironmentMismatch (``version-yanked``) if uv found only what its index has withdrawn."""
    found = uv.withdrawn(said)
    if found and not taken:
        raise EnvironmentMismatch(
            f"the index has withdrawn {', '.join(found)}",
            code="version-yanked",
            path="environment.captured",
            hint="Save the model with another version, or lock it all the same: --yanked.",
        )


def _resolved(env: Environment, indexes: uv.Indexes, *, universal: bool, builds: bool) -> tuple[bytes, str]:
    """Return what uv finds for the requirements, with everything held to the captured versions, and what uv told."""
    with tempfile.TemporaryDirectory(prefix="modelpack-lock-") as name:
        directory = Path(name).absolute()
        asked, held, made = (directory / file for file in ("wanted.in", "captured.txt", "pylock.toml"))
        asked.write_text("".join(f"{line}\n" for line in wanted.requirements(env)))
        held.write_text("".join(f"{one.line()}\n" for one in wanted.constraints(env)))
        # Where it is still what is installed here, what comes along keeps its version too, if uv finds that it can.
        made.write_bytes(pylock.write(map(_preferred, _closure(env)), python=None))
        series = wanted.series(env)
        said = uv.run(
            ["pip", "compile", str(asked), "--constraints", str(held), "--format", "pylock.toml",
             "--output-file", str(made), "--no-header", "--no-annotate", *indexes.arguments(),
             *(["--python-version", series] if series else []),
             *(["--universal"] if universal else []),
             *([] if builds else ["--only-binary", ":all:"])]
        )  # fmt: skip
        python, packages = pylock.artifacts(made.read_bytes(), PLACE)
    return pylock.write(packages, python=python), said


def _preferred(one: Pin) -> pylock.Locked:
    return pylock.Locked(pin=one, files=())


def _partial(env: Environment) -> bytes:
    return pylock.write_requirements(_closure(env))


def _closure(env: Environment) -> list[Pin]:
    """Return the installed versions of what the package needs, and of what that needs, as far as it is installed.

    What was captured and is asked for under a marker keeps it, unless something that is needed here brings it along.
    """
    pins = {one.name: one for one in wanted.pinned(env)}
    for requirement in _needed(wanted.requirements(env), ()):
        _follow(requirement, pins, set())
    return list(pins.values())


def _follow(requirement: Requirement, pins: dict[str, Pin], seen: set[str]) -> None:
    """Add what a requirement brings along; ``seen`` are those followed already, with their extras."""
    if str(requirement) in seen:
        return
    seen.add(str(requirement))
    try:
        distribution = importlib.metadata.distribution(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return
    name = canonicalize_name(requirement.name)
    if name not in pins:
        pins[name] = wanted.pin(name, distribution.version, PARTIAL)
    for one in _needed(distribution.requires or [], requirement.extras):
        brought = canonicalize_name(one.name)
        if brought in pins and not wanted.holds(pins[brought]):
            pins[brought] = replace(pins[brought], marker=None)
        _follow(one, pins, seen)


def _needed(texts: Iterable[str], extras: Iterable[str]) -> Iterable[Requirement]:
    """Yield those of the requirements whose markers hold on this machine."""
    chosen = ("", *extras)
    for text in texts:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if any(is_met(requirement.marker, extra=one) for one in chosen):
            yield requirement


def pins(package: Package, *, elsewhere: bool = False) -> tuple[list[Pin], Lock]:
    """Return what the package's lock pins, and the lock; a complete one before a partial one.

    Unless it is for ``elsewhere``, the Python that an environment would be built with must be one that the package and
    its lock are for.

    Raises:
        EnvironmentMismatch: it has none that we read (``lock-missing``), or ``lock-invalid``, ``requirement-refused``,
            ``python-unavailable``.
    """
    locks = sorted((one for one in package.environment.locks if one.kind in _READERS), key=lambda one: one.kind)
    if not locks:
        raise EnvironmentMismatch(
            "the package has no lock of its environment",
            code="lock-missing",
            path="environment.locks",
            hint="Add one, which makes another package: modelpack env lock.",
        )
    chosen = locks[0]
    raw = package.files().read(chosen.path)
    found = _READERS[chosen.kind](raw, chosen.path)
    if not elsewhere:
        _check_python(package.environment, raw, chosen)
    return found, chosen


def _check_python(env: Environment, raw: bytes, chosen: Lock) -> None:
    """Raise EnvironmentMismatch (``python-unavailable``) if what is to be built is for another Python."""
    needs = {"environment.python.requires": env.python.requires}
    if chosen.kind == "pylock":
        whole, packages = pylock.artifacts(raw, chosen.path)
        needs[f"{chosen.path}: requires-python"] = whole
        needed = ((i, one.python) for i, one in enumerate(packages) if wanted.holds(one.pin))
        needs |= {f"{chosen.path}: packages[{i}].requires-python": python for i, python in needed}
    for path, versions in needs.items():
        if versions is not None and not wanted.fits(env, versions):
            built = wanted.series(env) or platform.python_version()
            raise EnvironmentMismatch(
                f"it is for Python {versions!r}, and its environment would be one of Python {built}",
                code="python-unavailable",
                path=path,
                hint="Lock it anew on a Python that it is for: modelpack env lock.",
            )
