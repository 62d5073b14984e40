"""What is done to build an environment: made, filled with the wheels of the lock, checked and compiled.

Nothing of what is installed is run: not by uv, and not because a wheel has put its own file in the place of one of the
environment's, which would then be run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

from modelpack.environments import uv, wanted
from modelpack.environments.quick import MARKER, RUNTIME
from modelpack.environments.wanted import Pin
from modelpack.errors import EnvironmentMismatch
from modelpack.manifest import Environment
from modelpack.package import Package

__all__ = ["fill", "series"]

_HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
_PTH = f"import os, sys; p = os.environ.get({RUNTIME!r}); p and sys.path.append(p)\n"
_PTH_NAME = "modelpack_runtime.pth"


def series(needed: Environment) -> str:
    """Return the minor version of the Python that an environment is built with: that of the package, or ours."""
    return wanted.series(needed) or _HERE


def fill(place: Path, package: Package, pins: Sequence[Pin], indexes: uv.Indexes, *, lock: int, at: Path) -> None:
    """Make an empty directory the environment of the package. It is to be moved to ``at`` afterwards.

    ``lock`` is a descriptor that uv inherits: what it locks stays so as long as uv lives, whatever becomes of us.

    Raises:
        EnvironmentMismatch: it cannot be built, or a wheel writes where it must not (``wheel-refused``).
    """
    listed = place / "modelpack-requirements.txt"
    listed.write_text("".join(f"{one.line()}\n" for one in pins))
    python = _interpreter(package.environment)
    uv.run(["venv", "--no-project", "--allow-existing", "--relocatable", "--python", python, str(place)], keep=lock)
    _name(place / "bin" / "activate", at)
    site = next((place / "lib").glob("python*/site-packages"))
    # The Python behind the environment's own, which no wheel can replace.
    base = (place / "bin" / "python").resolve()
    made = _shapes(place, site)
    hashed = all(one.hashes for one in pins)
    sources = [part for one in pins if one.builds for part in ("--no-binary", one.name)]
    wheels = [] if sources else ["--only-binary", ":all:"]
    # To compile, uv starts the environment's Python as it starts always, and that runs the lines of `.pth` files, which
    # are code of the wheels. The user's settings may tell it to; this option has the last word.
    uv.run(
        ["pip", "install", "--python", str(place / "bin" / "python"), "--no-deps", "--strict", "--no-compile-bytecode",
         *wheels, *(["--require-hashes"] if hashed else []), *indexes.arguments(), "--requirements", str(listed)],
        keep=lock,
    )  # fmt: skip
    _check_untouched(place, site, made)
    if series(package.environment) == _HERE:
        _check_installed(site, pins)
    _compile(base, site)
    (site / _PTH_NAME).write_text(_PTH)
    manifest = package.manifest
    facts = {
        "package": f"{manifest.name} {manifest.version}",
        "digest": package.digest,
        "python": package.environment.python.captured,
        "pins": [f"{one.name}=={one.version}" for one in pins],
        "hashed": hashed,
    }
    (place / MARKER).write_text(json.dumps(facts, indent=1))


def _interpreter(needed: Environment) -> str:
    """Return the Python to build with: this one if it is of the series that the model was saved on."""
    base: str = getattr(sys, "_base_executable", sys.executable)
    wanted_one = series(needed)
    return base if wanted_one == _HERE else uv.interpreter(wanted_one) or wanted_one


def _name(activate: Path, at: Path) -> None:
    """Write into the script where the environment will be: what is relocatable works in bash and zsh, and not in sh."""
    line = f"VIRTUAL_ENV={shlex.quote(str(at))}"
    activate.write_text(re.sub(r"^VIRTUAL_ENV=.*SCRIPT_PATH.*$", lambda _: line, activate.read_text(), flags=re.M))


def _shapes(place: Path, site: Path) -> Mapping[Path, str]:
    """Return what an environment holds beside its distributions: each path, and what is there."""
    found = {}
    for folder, names, files in os.walk(place):
        names[:] = [name for name in names if Path(folder, name) != site]
        for path in (Path(folder, name) for name in (*names, *files)):
            found[path] = _shape(path)
    return found


def _shape(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if path.is_dir():
        return "directory"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "nothing"


def _check_untouched(place: Path, site: Path, made: Mapping[Path, str]) -> None:
    """Refuse wheels that replaced a file of the environment's own: its Python, what that reads first, what we write.

    A wheel may have files for anywhere below the environment (``data`` and ``scripts``).
    """
    ours = dict.fromkeys((place / MARKER, site / _PTH_NAME), "nothing")
    for path, shape in (*made.items(), *ours.items()):
        if _shape(path) != shape:
            raise EnvironmentMismatch(
                f"a wheel writes over {path.relative_to(place)}, which is the environment's own",
                code="wheel-refused",
                path="environment.locks",
                hint="No honest wheel does; do not trust the package. Nothing of it was run.",
            )


def _check_installed(site: Path, pins: Iterable[Pin]) -> None:
    """See to it that uv has installed what is pinned, and here: a setting of the user's may name another place."""
    there = {canonicalize_name(path.name.partition("-")[0]) for path in site.glob("*.dist-info")}
    lacking = sorted({one.name for one in pins} - there)
    if lacking:
        raise EnvironmentMismatch(
            f"uv has not installed {', '.join(lacking)}",
            code="uv-failed",
            path="environment",
            hint="See whether your uv.toml says to install elsewhere, or not at all.",
        )


def _compile(base: Path, site: Path) -> None:
    """Compile what was installed, which reads it and runs nothing. A source that cannot be compiled stays as it is."""
    call = [str(base), "-I", "-S", "-m", "compileall", "-q", "-j", "0", str(site)]
    subprocess.run(call, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603 - our arguments
