"""The runtime inside another environment: modelpack and what it needs, behind all that the model's own lock installed.

A directory of links to exactly these distributions is appended to the end of ``sys.path``. So the model's pins are
never shadowed, and nothing else that is installed here can be imported there.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import secrets
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from modelpack import flavor
from modelpack.environments import places, quick, uv
from modelpack.environments.cache import Built
from modelpack.environments.wanted import Pin
from modelpack.errors import EnvironmentMismatch

__all__ = ["check", "enter", "prepare"]

_OURS = ("modelpack", flavor.BUILTIN, "modelpack_server")
# What commands may need whatever the model is: tables, stores, fast JSON, and MLflow's documents.
_LENT = ("delta", "s3", "simd", "mlflow")


def check(built: Built) -> None:
    """Refuse what could be built and not be run in: the runtime's compiled parts are of the Python that runs here.

    Raises:
        EnvironmentMismatch: the environment is of another minor version of Python (``runtime-conflict``).
    """
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if built.series == here:
        return
    found = uv.interpreter(built.series)
    raise EnvironmentMismatch(
        f"the model was saved on Python {built.series}, and modelpack runs on {here} here",
        code="runtime-conflict",
        path="environment.python.captured",
        hint=f"Run it with modelpack installed for that Python: {found} -m pip install modelpack."
        if found
        else f"Install Python {built.series} and modelpack in it; `modelpack env create` needs no modelpack there.",
    )


def enter(built: Built, digest: str, arguments: Sequence[str]) -> None:
    """Become the same command, run by the environment's Python; returns only if the environment is not there.

    ``digest`` is that of the package: the next time, this is known by it.

    Raises:
        EnvironmentMismatch: the runtime cannot run on what it holds (``runtime-conflict``), or what it needs beside it
            cannot be made (``disk-full``, ``cache-unwritable``).
    """
    places.cache(make=False)
    if not quick.hold(built.path):
        return
    layer = _layer(built)
    if not quick.hold_layer(layer):
        # Somebody has pruned it in this moment.
        layer = _layer(built)
        quick.hold_layer(layer)
    if built.known:
        quick.note(digest, built.path, layer)
    quick.become(built.path, layer, digest, arguments)


def prepare(built: Built) -> None:
    """Make what running in the environment needs beside it, so that it can be run in where nothing can be written.

    Raises:
        EnvironmentMismatch: the runtime cannot run on what it holds (``runtime-conflict``), or ``disk-full``,
            ``cache-unwritable``.
    """
    check(built)
    _layer(built)


def _layer(built: Built) -> Path:
    """Return the directory of links for what runs here now; made if it is not there."""
    _check(_runtime(), built.pins)
    place = places.cache(make=False) / f".layer-{quick.fingerprint()}"
    if place.is_dir() and not quick.unsafe(place):
        return place
    staging = place.with_name(f"{place.name}.{secrets.token_hex(4)}")
    with uv.room():
        places.cache(make=True)
        staging.mkdir(mode=0o755)
        for source in _sources(_runtime(_LENT)):
            # Several distributions may have parts of one package; the first that came is whole, as it is here.
            if not (staging / source.name).is_symlink():
                (staging / source.name).symlink_to(source)
    try:
        if quick.unsafe(place):
            # Made by an earlier release under a umask that gives others everything.
            place.rename(staging / "gone")
        staging.rename(place)
    except OSError:
        # Another process was faster.
        shutil.rmtree(staging)
    return place


def _runtime(extras: Collection[str] = ()) -> dict[str, list[Requirement]]:
    """Return the distributions that modelpack needs, with what each of them requires.

    What is not installed is left out.
    """
    found: dict[str, list[Requirement]] = {}
    waiting, seen = [("modelpack", frozenset(extras))], set()
    while waiting:
        name, chosen = one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            texts = importlib.metadata.requires(name) or ()
            needed = [part for text in texts if _asked(part := Requirement(text), chosen)]
            found.setdefault(name, []).extend(needed)
            waiting += [(canonicalize_name(part.name), frozenset(part.extras)) for part in needed]
    return found


def _asked(requirement: Requirement, extras: Collection[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _check(needed: Mapping[str, list[Requirement]], pins: Sequence[Pin]) -> None:
    here = {one.name: one.version for one in pins}
    for name, requirements in needed.items():
        for one in requirements if name not in here else ():
            version = here.get(canonicalize_name(one.name))
            if version is not None and not one.specifier.contains(version, prereleases=True):
                raise EnvironmentMismatch(
                    f"the package pins {one.name} {version}, and the runtime's {name} needs {one.name}{one.specifier}",
                    code="runtime-conflict",
                    path="environment.locks",
                    hint="Serve it with another release of modelpack, or save the model with a newer version.",
                )


def _sources(needed: Iterable[str]) -> Iterator[Path]:
    """Yield the files and directories to link: each distribution's own top-level ones, and its metadata."""
    for name in needed:
        distribution = importlib.metadata.distribution(name)
        parts = {file.parts[0] for file in distribution.files or () if file.parts and file.suffix != ".pth"}
        for part in sorted(parts - {"..", "__pycache__", "bin"}):
            place = Path(str(distribution.locate_file(part)))
            if place.exists() and not (name == "modelpack" and part in _OURS):
                yield place
    for module in _OURS:
        spec = importlib.util.find_spec(module)
        yield from (Path(place) for place in (spec and spec.submodule_search_locations) or ())
