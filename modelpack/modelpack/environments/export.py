"""A package's environment in the words of other tools: requirements, conda, a Dockerfile."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from modelpack.environments import locking, wanted
from modelpack.environments.wanted import Pin
from modelpack.errors import EnvironmentMismatch, UsageError
from modelpack.package import Package

__all__ = ["FORMATS", "export"]

_BASE = re.compile(r"[a-z0-9][a-z0-9._/:-]*(@sha256:[0-9a-f]{64})?")
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
    lock = locking.pins(package)[1]
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
        return locking.pins(package)[0]
    return wanted.constraints(package.environment)


def _requirements(package: Package, _: str | None) -> str:
    if package.environment.locks:
        return "".join(f"{one.line()}\n" for one in _pins(package))
    return "".join(f"{line}\n" for line in wanted.requirements(package.environment))


def _conda(package: Package, _: str | None) -> str:
    lines = [f"name: {package.manifest.name}", "channels:", "  - conda-forge", "dependencies:"]
    lines += [f"  - python={_series(package)}", "  - pip", "  - pip:"]
    texts = [f"{one.name}=={one.version}" + (f" ; {one.marker}" if one.marker else "") for one in _pins(package)]
    # A JSON string is a YAML string.
    return "\n".join([*lines, *(f"    - {json.dumps(text)}" for text in texts)]) + "\n"


def _dockerfile(package: Package, base: str | None) -> str:
    image = base or BASE.format(series=_series(package))
    if not _BASE.fullmatch(image):
        raise UsageError(
            f"{image!r} is not the name of an image", code="base-invalid", path="--base", hint="For example "
            "python:3.11-slim@sha256:…",
        )  # fmt: skip
    pins = _pins(package)
    hashed = all(one.hashes for one in pins)
    lines = "".join(f"{one.line()}\n" for one in pins)
    return _DOCKERFILE.format(
        image=image,
        hashes=" --require-hashes" if hashed and pins else "",
        pins=lines,
        release=importlib.metadata.version("modelpack"),
    )


def _series(package: Package) -> str:
    series = ".".join((package.environment.python.captured or "").split(".")[:2])
    if not re.fullmatch(r"[0-9]+\.[0-9]+", series):
        raise EnvironmentMismatch(
            "the package does not say on which Python it was saved", code="python-unavailable",
            path="environment.python.captured",
        )  # fmt: skip
    return series


# Built in the directory that holds the package as `package/`. Two stages, so that pip's leavings stay in the first; a
# user without rights; nothing is written while it runs, so `docker run --read-only --tmpfs /tmp` works.
_DOCKERFILE = """\
# syntax=docker/dockerfile:1
ARG BASE={image}
FROM ${{BASE}} AS build
RUN python -m venv /opt/model
COPY <<'REQUIREMENTS' /tmp/requirements.txt
{pins}REQUIREMENTS
RUN /opt/model/bin/pip install --no-cache-dir --no-deps --only-binary :all:{hashes} -r /tmp/requirements.txt
# The runtime comes behind: what the model pins stays as it is.
RUN sed -E 's/ *--hash=[^ ]*//g' /tmp/requirements.txt > /tmp/constraints.txt && \\
    /opt/model/bin/pip install --no-cache-dir -c /tmp/constraints.txt modelpack=={release} && \\
    /opt/model/bin/pip uninstall -y pip

FROM ${{BASE}}
COPY --from=build /opt/model /opt/model
COPY --chmod=a+rX package /model
RUN useradd --system --no-create-home --uid 10001 model
USER 10001
ENV PATH=/opt/model/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \\
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5000/health', timeout=2)"]
ENTRYPOINT ["modelpack", "serve", "/model", "--host", "0.0.0.0", "--port", "5000"]
"""

FORMATS: Mapping[str, Callable[[Package, str | None], str]] = MappingProxyType(
    {"pylock": _pylock, "requirements": _requirements, "conda": _conda, "dockerfile": _dockerfile}
)
