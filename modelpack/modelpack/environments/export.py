"""A package's environment in the words of other tools: requirements, conda, a Dockerfile."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from modelpack import foreign, saving
from modelpack.environments import locking, pylock, vendoring, wanted
from modelpack.environments.wanted import Pin
from modelpack.errors import EnvironmentMismatch, UsageError
from modelpack.package import Package

__all__ = ["FORMATS", "export", "platforms"]

# The reference of an image: a host with its port, a path in small letters, a tag, a digest.
_HOST = r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(:[0-9]+)?"
_PART = r"[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*"
_DIGEST = r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
_BASE = re.compile(rf"({_HOST}/)?{_PART}(/{_PART})*(:\w[\w.-]{{0,127}})?(@({_DIGEST}))?", re.ASCII)
BASE = "python:{series}-slim"


def export(package: Package, form: str, *, base: str | None = None) -> str:
    """Return the environment as text of one of FORMATS.

    ``base`` is the image a Dockerfile starts from, best with its digest; by default a slim one of the model's Python.

    Raises:
        EnvironmentMismatch: ``lock-missing`` where a lock is needed, ``lock-invalid``, ``requirement-refused``.
        UsageError: the base is no name of an image (``base-invalid``).
    """
    return FORMATS[form](package, base)


def _pylock(package: Package, _: str | None) -> str:
    lock = locking.pins(package, elsewhere=True)[1]
    if lock.kind != "pylock":
        raise EnvironmentMismatch(
            "the package's lock is partial",
            code="lock-missing",
            path="environment.locks",
            hint="Complete it: modelpack env lock.",
        )
    return package.files().read(lock.path).decode()


def _pins(package: Package) -> Sequence[Pin]:
    """Return the pins of the lock, or of what was captured if there is none."""
    if package.environment.locks:
        return locking.pins(package, elsewhere=True)[0]
    return wanted.pinned(package.environment)


def _requirements(package: Package, _: str | None) -> str:
    if package.environment.locks:
        return "".join(f"{one.line()}\n" for one in _pins(package))
    return "".join(f"{line}\n" for line in wanted.requirements(package.environment))


def _conda(package: Package, _: str | None) -> str:
    # A JSON string is a YAML string; without quotes some names are truth values, numbers, or dates.
    lines = [f"name: {json.dumps(package.manifest.name)}", "channels:", '  - "conda-forge"', "dependencies:"]
    lines += [f"  - {json.dumps(f'python={_series(package)}')}", '  - "pip"', '  - "pip":']
    texts = [f"{one.name}=={one.version}" + (f" ; {one.marker}" if one.marker else "") for one in _pins(package)]
    if not package.environment.locks:
        texts += [text for text in wanted.requirements(package.environment) if text not in texts]
    return "\n".join([*lines, *(f"    - {json.dumps(text)}" for text in texts)]) + "\n"


def _dockerfile(package: Package, base: str | None) -> str:
    image = base or BASE.format(series=_series(package))
    if not _BASE.fullmatch(image):
        raise UsageError(
            f"{image!r} is not the name of an image", code="base-invalid", path="--base", hint="For example "
            "python:3.11-slim@sha256:…",
        )  # fmt: skip
    locked = bool(package.environment.locks)
    pins = _pins(package) if locked else []
    hashed = locked and all(one.hashes for one in pins)
    inside = vendoring.inside(package)
    sources = sorted(one.name for one in pins if one.builds)
    options = " --no-deps" if locked else " --constraint /tmp/captured.txt"
    options += "".join(f" --no-binary {name}" for name in sources)
    options += " --require-hashes" if pins and hashed else ""
    options += " --no-index --find-links /tmp/wheels" if inside else ""
    captured = [] if locked else wanted.constraints(package.environment)
    return _DOCKERFILE.format(
        image=image,
        head=(_HEAD if hashed else _PARTIAL) if locked else _LOOSE,
        guard=_guard(platforms(package)) if hashed else "",
        wheels=_WHEELS if inside else "",
        options=options,
        pins=_requirements(package, None),
        captured=_CAPTURED.format(pins="".join(f"{one.line()}\n" for one in captured)) if captured else "",
        constraints="sed -E 's/ *--hash=[^ ]*//g' /tmp/requirements.txt" if locked else "cat /tmp/captured.txt",
        runtime=f"modelpack{_extras(package)}=={importlib.metadata.version('modelpack')}",
        grant=f', "--allow-code", "{package.digest}"' if package.runs_code() and saving.granted(package) else "",
    )


def _extras(package: Package) -> str:
    """Return the extras of the runtime that read documents of other formats; what flavors need, the pins have."""
    readers = {name for name, _ in foreign.READERS.values()}
    found = sorted(readers.intersection(entry.name for entry in package.manifest.flavors))
    return f"[{','.join(found)}]" if found else ""


def platforms(package: Package) -> list[str]:
    """Return the processors, as Linux names them, for which the package's lock has a file of each distribution."""
    lock = locking.pins(package, elsewhere=True)[1]
    if lock.kind != "pylock":
        return list(_ARCHITECTURES)
    packages = pylock.artifacts(package.files().read(lock.path), lock.path)[1]
    return [one for one in _ARCHITECTURES if all(_served(entry, one, _series(package)) for entry in packages)]


def _served(entry: pylock.Locked, machine: str, series: str) -> bool:
    """Say whether a distribution can be installed on Linux on this processor, or is not needed there."""
    there = {
        "platform_machine": machine, "platform_system": "Linux", "sys_platform": "linux", "os_name": "posix",
        "python_version": series, "python_full_version": f"{series}.0", "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }  # fmt: skip
    if not wanted.holds(entry.pin, **there):
        return True
    names = [file.name.removesuffix(".whl").rpartition("-")[2] for file in entry.files if file.wheel]
    tags = [tag for name in names for tag in name.split(".")]
    # Slim images have glibc, for which musllinux is not made. Without wheels there is a source, built where allowed.
    return not tags or any(
        tag == "any" or (tag.startswith(("manylinux", "linux")) and tag.endswith(machine)) for tag in tags
    )


def _series(package: Package) -> str:
    series = wanted.series(package.environment)
    if series is None:
        raise EnvironmentMismatch(
            "the package does not say on which Python it was saved", code="python-unavailable",
            path="environment.python.captured",
        )  # fmt: skip
    return series


def _guard(machines: Sequence[str]) -> str:
    """Return the step that says on which processors the lock can be installed, and stops on any other."""
    if not machines:
        raise EnvironmentMismatch(
            "the lock has no wheels for Linux",
            code="wheel-missing",
            path="environment.locks",
            hint="Lock it for every platform, or where it will run: modelpack env lock --universal.",
        )
    return _GUARD.format(names=", ".join(_ARCHITECTURES[one] for one in machines), cases="|".join(machines))


# The names that uname has for the processors of images, and those of Docker.
_ARCHITECTURES: Mapping[str, str] = MappingProxyType({"x86_64": "linux/amd64", "aarch64": "linux/arm64"})
_HEAD = "# Exactly what the package's lock fixes."
_PARTIAL = "# The versions that the package's partial lock fixes. It has no hashes: `modelpack env lock` adds them."
_LOOSE = (
    "# The package has no lock: pip chooses what its requirements bring along. `modelpack env lock` fixes all of it."
)
_GUARD = """\
# The lock has wheels for {names}.
RUN case "$(uname -m)" in {cases}) ;; *) echo "the lock has no wheels for $(uname -m)" >&2; exit 1 ;; esac
"""
_WHEELS = """\
# The model's own wheels are in the package, and no index is asked for them.
COPY package/environment/wheels /tmp/wheels
"""
_CAPTURED = """\
COPY <<'_CAPTURED' /tmp/captured.txt
{pins}_CAPTURED
"""
# Built in the directory that holds the package as `package/`. Two stages and a pip of its own, so that nothing of the
# installer gets into the image; a user without rights; nothing is written while it runs, so that
# `docker run --read-only` works. No name of a distribution begins as the words do that end the texts.
_DOCKERFILE = """\
# syntax=docker/dockerfile:1
{head}
ARG BASE={image}
FROM ${{BASE}} AS build
# Where pip looks too, as for builds of torch: docker build --build-arg PIP_EXTRA_INDEX_URL=https://...
ARG PIP_EXTRA_INDEX_URL
{guard}RUN python -m venv /opt/pip && python -m venv --without-pip /opt/model
COPY <<'_REQUIREMENTS' /tmp/requirements.txt
{pins}_REQUIREMENTS
{captured}{wheels}\
RUN /opt/pip/bin/pip --python /opt/model/bin/python install --no-cache-dir --only-binary :all:{options} \\
    -r /tmp/requirements.txt
# The runtime comes behind: what the model pins stays as it is.
RUN {constraints} > /tmp/constraints.txt && \\
    /opt/pip/bin/pip --python /opt/model/bin/python install --no-cache-dir --only-binary :all: \\
    -c /tmp/constraints.txt '{runtime}'

FROM ${{BASE}}
COPY --from=build /opt/model /opt/model
COPY --chmod=a+rX package /model
RUN useradd --no-create-home --no-log-init --uid 10001 model
USER 10001
ENV PATH=/opt/model/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \\
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5000/health', timeout=2)"]
ENTRYPOINT ["modelpack", "serve", "/model", "--host", "0.0.0.0", "--port", "5000"{grant}]
"""

FORMATS: Mapping[str, Callable[[Package, str | None], str]] = MappingProxyType(
    {"pylock": _pylock, "requirements": _requirements, "conda": _conda, "dockerfile": _dockerfile}
)
