"""Wheels put into a package, or beside it, so that its environment is built where there is no index."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from modelpack import environment, saving
from modelpack.environments import locking, pylock, uv, wanted
from modelpack.environments.uv import Indexes
from modelpack.environments.wanted import Pin
from modelpack.errors import EnvironmentMismatch, SaveError, UsageError
from modelpack.manifest import Environment
from modelpack.package import Package

__all__ = ["INSIDE", "beside", "inside", "into"]

INSIDE = f"environment/{pylock.WHEELS}/"

_OFFLINE = ("index-unreachable", "the package index cannot be reached",
            "Give the wheels with --find-links DIRECTORY, or see pip's own settings: pip config list.")  # fmt: skip
# What pip says, as uv.FAILURES. Behind what it says of the network comes that it found nothing.
_FAILURES = (
    ("No space left on device", "disk-full", "the disk is full", "Make room, here and for temporary files."),
    ("Disk quota exceeded", "disk-full", "the disk is full", "Make room, here and for temporary files."),
    ("DO NOT MATCH THE HASHES", "hash-mismatch", "a file is not the one that was locked",
     "The index, or the directory of --find-links, has other bytes."),
    *((sign, *_OFFLINE) for sign in (
        "NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ReadTimeoutError", "Connection refused",
        "Connection broken", "connection error", "ConnectionError", "SSLError", "ProxyError", "HTTP error",
        "Max retries exceeded",
    )),
    ("No matching distribution", "version-missing", "a version, or a wheel of it for this platform, is not to be had",
     "It was withdrawn, or lies elsewhere: see pip's own settings, pip config list."),
)  # fmt: skip


def inside(package: Package) -> bool:
    """Say whether the package holds wheels."""
    return any(file.path.startswith(INSIDE) for file in package.manifest.files)


def into(
    package: str | os.PathLike[str], output: str | os.PathLike[str] | None = None, *, indexes: Indexes | None = None
) -> Package:
    """Write the package with the wheels of its lock inside at ``output``; in its own place if that is None.

    It has another digest. If it needs no grant now, or this user's store holds one, the new package gets one.

    Raises:
        EnvironmentMismatch, UsageError: as for :func:`beside`.
        SaveError, PackageError: as for saving and opening.
    """
    opened = Package.open(package)
    pins = locking.pins(opened)[0]
    allowed = saving.granted(opened) or not (opened.runs_code() or environment.strange(one.name for one in pins))

    def fill(directory: Path) -> None:
        shutil.rmtree(directory / pylock.WHEELS, ignore_errors=True)
        _download(opened.environment, pins, directory / pylock.WHEELS, indexes or Indexes())

    with uv.room(opened.path if output is None else Path(output)):
        return locking.rewrite(opened, output, fill, opened.environment, change="vendor", grant=allowed)


def beside(package: str | os.PathLike[str], directory: Path, *, indexes: Indexes | None = None) -> list[str]:
    """Put the wheels of the package's lock into a directory, for ``--find-links``, and return their names.

    Raises:
        EnvironmentMismatch: there is no complete lock (``vendor-failed``), or a wheel is not to be had
            (``index-unreachable``, ``hash-mismatch``, ``version-missing``, ``disk-full``, …).
        SaveError: the directory cannot be made (``target-unwritable``).
        UsageError: pip is not installed here (``extra-missing``).
    """
    opened = Package.open(package)
    return _download(opened.environment, locking.pins(opened)[0], directory, indexes or Indexes())


def _download(env: Environment, pins: Sequence[Pin], directory: Path, indexes: Indexes) -> list[str]:
    """Let pip fetch the wheels for this platform, which uv cannot, and return their names.

    Each must have a digest of the lock. All of them get into the directory, or none.
    """
    python, needed = _for_python(env, pins)
    if any(one.builds or not one.hashes for one in needed):
        raise EnvironmentMismatch(
            "only a lock that fixes a wheel of each distribution can be vendored",
            code="vendor-failed",
            path="environment.locks",
            hint="Lock it with an index at hand, without --builds: modelpack env lock.",
        )
    if importlib.util.find_spec("pip") is None:
        raise UsageError(
            "wheels are fetched with pip, which is not installed", code="extra-missing", hint="Install pip."
        )
    # pip runs elsewhere, so that no file that lies about here is an option or a module of it.
    place = directory.absolute()
    fresh = not place.exists()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise SaveError(f"{directory} cannot be written: {exc.strerror}", code="target-unwritable") from exc
    try:
        with uv.room(directory), tempfile.TemporaryDirectory(prefix=".modelpack-wheels-", dir=place) as name:
            fetched = Path(name)
            _fetch(needed, fetched, [*python, *indexes.arguments()])
            found = _of_the_lock(needed, fetched)
            for path in found:
                path.replace(place / path.name)
    except BaseException:
        if fresh:
            shutil.rmtree(place, ignore_errors=True)
        raise
    return sorted(path.name for path in found)


def _fetch(pins: Sequence[Pin], fetched: Path, options: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="modelpack-vendor-") as name:
        listed = Path(name) / "requirements.txt"
        listed.write_text("".join(f"{one.line()}\n" for one in pins))
        call = ["download", "--quiet", "--no-input", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
        call += ["--dest", str(fetched), *options, "-r", str(listed)]
        done = subprocess.run(  # noqa: S603 - a list of arguments, none of which is an option of the package's
            [sys.executable, "-P", "-m", "pip", *call], cwd=name, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise uv.failure(done.stderr, _FAILURES, otherwise="vendor-failed", program="pip")


def _of_the_lock(pins: Sequence[Pin], fetched: Path) -> list[Path]:
    """Return the wheels that have the digests of the lock, one for each pin, whatever pip said."""
    there = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in sorted(fetched.glob("*.whl"))}
    found = {one.name: [there[digest] for digest in one.hashes if digest in there] for one in pins}
    lacking = sorted(name for name, paths in found.items() if not paths)
    if lacking:
        raise EnvironmentMismatch(
            f"pip has fetched no wheel with a digest of the lock for {', '.join(lacking)}",
            code="vendor-failed",
            path="environment.locks",
            hint="See pip's own settings: pip config list.",
        )
    return sorted({path for paths in found.values() for path in paths})


def _for_python(env: Environment, pins: Sequence[Pin]) -> tuple[list[str], Sequence[Pin]]:
    """Return what tells pip of a Python that is not the one it runs on, and the pins that are needed on this platform.

    pip looks for wheels of the Python it is told of, and evaluates markers for its own.
    """
    series = wanted.series(env)
    if series is None or series == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return [], [one for one in pins if wanted.holds(one)]
    there = {"python_version": series, "python_full_version": env.python.captured or series}
    needed = [replace(one, marker=None) for one in pins if wanted.holds(one, **there)]
    return ["--python-version", series], needed
