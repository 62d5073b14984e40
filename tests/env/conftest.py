"""A tiny distribution of our own in a directory of wheels, and a package whose code needs it: no index, no network."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import modelpack
from modelpack.environments import locking, pylock, uv, wanted

TWICE = "def twice(x):\n    return x * 2\n"
SCORER = "import tiny_twice\n\n\ndef score(data):\n    return tiny_twice.twice(data)\n"


def wheel(
    folder: Path,
    name: str = "tiny_twice",
    version: str = "1.2",
    source: str = TWICE,
    needs: str = "",
    tag: str = "py3-none-any",
    data: Mapping[str, str] = MappingProxyType({}),
    **more: str,
) -> Path:
    """Write a wheel with one module, and return its path; ``more`` are texts of further files by their endings.

    ``data`` are texts of files that belong elsewhere, by their paths below ``.data``.
    """
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
    files = {
        f"{name}.py": source,
        **{f"{name}.{ending}": text for ending, text in more.items()},
        **{f"{name}-{version}.data/{path}": text for path, text in data.items()},
        f"{info}/METADATA": metadata + (f"Requires-Dist: {needs}\n" if needs else ""),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    lines = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(text)}\n")
    files[f"{info}/RECORD"] = "".join(lines) + f"{info}/RECORD,,\n"
    place = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(place, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return place


@pytest.fixture
def make_wheel() -> Callable[..., Path]:
    return wheel


def sdist(folder: Path, ran: Path) -> Path:
    """Write a source distribution of ``tiny_twice`` whose backend leaves a file when it runs, and return its path."""
    backend = f"open({str(ran)!r}, 'w').close()\n"
    top = "tiny_twice-1.2"
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: tiny-twice\nVersion: 1.2\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": backend,
    }
    place = folder / f"{top}.tar.gz"
    with tarfile.open(place, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return place


@pytest.fixture
def make_sdist() -> Callable[..., Path]:
    return sdist


@pytest.fixture(autouse=True)
def environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep environments, and what uv keeps, in a directory of the test's own."""
    place = tmp_path / "environments"
    monkeypatch.setenv("MODELPACK_ENVIRONMENTS", str(place))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return place


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    wheel(tmp_path / "wheels")
    return tmp_path / "wheels"


@pytest.fixture
def package(tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> modelpack.Package:
    """A package whose code imports what is installed while it is saved, and not afterwards."""
    installed = tmp_path / "installed"
    for path in wheels.iterdir():
        zipfile.ZipFile(path).extractall(installed)
    (tmp_path / "scorer.py").write_text(SCORER)
    with monkeypatch.context() as there:
        there.syspath_prepend(installed)
        there.syspath_prepend(tmp_path)
        import scorer

        made = modelpack.save(
            scorer.score, tmp_path / "model", example=np.array([[1.0], [2.0]]), code=tmp_path / "scorer.py"
        )
    for name in ("scorer", "tiny_twice"):
        sys.modules.pop(name, None)
    return made


@pytest.fixture
def plain(tmp_path: Path) -> modelpack.Package:
    """Return a package that runs no code of its own and asks for nothing but what is known."""
    x = np.array([[0.0], [1.0], [2.0], [3.0]])
    return modelpack.save(LogisticRegression().fit(x, [0, 0, 1, 1]), tmp_path / "plain", example=x)


@pytest.fixture
def lock_as(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., modelpack.Package]:
    """Lock a package as if uv had found these versions of distributions; each with the file in the directory."""

    def lock(package: modelpack.Package, *pins: wanted.Pin) -> modelpack.Package:
        path = next(wheels.iterdir())
        file = pylock.Artifact(name=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        raw = pylock.write([pylock.Locked(pin=one, files=(file,)) for one in pins], python=None)
        with monkeypatch.context() as there:
            there.setattr(locking, "_resolved", lambda *_, **__: (raw, ""))
            return locking.lock(package.path)

    return lock


@pytest.fixture
def command(warm: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run modelpack in a process of its own."""

    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        call = [warm, *map(str, arguments)]
        return subprocess.run(call, capture_output=True, text=True, env={**os.environ, **variables}, timeout=120)

    return run


@pytest.fixture
def indexes(wheels: Path) -> uv.Indexes:
    """Return where wheels are looked for: in the directory of ours, and nowhere else."""
    return uv.Indexes(find_links=(str(wheels),), no_index=True)


@pytest.fixture
def locked(package: modelpack.Package, indexes: uv.Indexes) -> modelpack.Package:
    """Return the package with a lock."""
    return locking.lock(package.path, indexes=indexes)
