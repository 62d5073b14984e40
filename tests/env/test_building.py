"""What an environment is built of: nothing that is installed runs, and no setting changes what is there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import modelpack
from modelpack.environments import building, cache, locking, quick, uv
from modelpack.errors import EnvironmentMismatch

SERIES = f"python{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """Return the path of a file that is there if code of a wheel has run."""
    return tmp_path / "ran"


def told(place: Path, text: str) -> Path:
    """Write the settings of a user for uv."""
    (place / "uv").mkdir(parents=True)
    (place / "uv" / "uv.toml").write_text(text)
    return place


@pytest.mark.parametrize("how", ["plainly", "by a variable", "by uv.toml"])
def test_building_runs_nothing_of_what_is_installed(
    package: modelpack.Package,
    indexes: uv.Indexes,
    wheels: Path,
    make_wheel: Callable[..., Path],
    tmp_path: Path,
    ran: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    make_wheel(wheels, pth=f"import os; open({str(ran)!r}, 'w').close()\n")
    locked = locking.lock(package.path, indexes=indexes)
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(tmp_path / "stranger"))
    if how == "by a variable":
        monkeypatch.setenv("UV_COMPILE_BYTECODE", "1")
    if how == "by uv.toml":
        monkeypatch.setenv("XDG_CONFIG_HOME", str(told(tmp_path / "config", "[pip]\ncompile-bytecode = true\n")))

    built = cache.create(locked, indexes=indexes)

    assert not ran.exists()
    assert len(list(built.path.glob("lib/python*/site-packages/__pycache__/tiny_twice.*.pyc"))) == 1
    subprocess.run([built.python, "-c", ""], check=True)
    assert ran.exists()


@pytest.mark.parametrize(
    "path",
    [
        "data/pyvenv.cfg",
        "data/bin/python",
        f"data/bin/{SERIES}",
        "scripts/python3",
        f"data/{quick.MARKER}",
        f"data/lib/{SERIES}/site-packages/modelpack_runtime.pth",
        "purelib/modelpack_runtime.pth",
    ],
)
def test_a_wheel_that_writes_over_what_is_the_environments_own_is_refused_and_nothing_of_it_runs(
    package: modelpack.Package,
    indexes: uv.Indexes,
    wheels: Path,
    make_wheel: Callable[..., Path],
    environments: Path,
    tmp_path: Path,
    ran: Path,
    path: str,
) -> None:
    evil = tmp_path / "evil" / "bin"
    evil.mkdir(parents=True)
    text = f"home = {evil}\n" if path.endswith(".cfg") else f"#!/bin/sh\ntouch {ran}\n"
    made = make_wheel(wheels, data={path: text})
    locked = locking.lock(package.path, indexes=indexes)

    with pytest.raises(EnvironmentMismatch, match=f"writes over .*{Path(path).name}") as info:
        cache.create(locked, indexes=indexes)

    assert info.value.code == "wheel-refused"
    assert not ran.exists() and made.is_file()
    assert [one for one in environments.iterdir() if one.is_dir()] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("UV_VENV_SEED", "1"), ("UV_TARGET", "{there}"), ("UV_PREFIX", "{there}"), ("UV_DRY_RUN", "1"),
     ("UV_SYSTEM_PYTHON", "1"), ("UV_NO_VERIFY_HASHES", "1"), ("PYTHONPATH", "{there}")],
)  # fmt: skip
def test_variables_of_the_callers_do_not_change_what_is_installed_where(
    locked: modelpack.Package, indexes: uv.Indexes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str,
    value: str,
) -> None:  # fmt: skip
    monkeypatch.setenv(name, value.format(there=tmp_path / "there"))
    built = cache.create(locked, indexes=indexes)
    found = {path.name for path in built.path.glob("lib/python*/site-packages/*.dist-info")}
    assert found == {"tiny_twice-1.2.dist-info"}
    assert not (tmp_path / "there").exists()


def test_what_uv_was_told_to_install_elsewhere_is_missed(
    locked: modelpack.Package, indexes: uv.Indexes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"[pip]\ntarget = {str(tmp_path / 'there')!r}\n"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(told(tmp_path / "config", text)))
    with pytest.raises(EnvironmentMismatch, match=r"not installed tiny-twice") as info:
        cache.create(locked, indexes=indexes)
    assert info.value.code == "uv-failed"


def test_of_the_callers_variables_uv_gets_those_that_say_where_indexes_are(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = ("UV_INDEX", "UV_INDEX_OURS_PASSWORD", "https_proxy", "SSL_CERT_FILE", "UV_HTTP_TIMEOUT", "LC_ALL")
    dropped = ("UV_COMPILE_BYTECODE", "UV_VENV_SEED", "UV_PYTHON", "VIRTUAL_ENV", "PYTHONHOME", "CONDA_PREFIX")
    for name in (*passed, *dropped):
        monkeypatch.setenv(name, "x")
    seen: dict[str, str] = {}

    def run(*_: object, env: dict[str, str], **__: object) -> subprocess.CompletedProcess[str]:
        seen.update(env)
        return subprocess.CompletedProcess([], 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    uv.run(["--version"])
    assert {*passed, *dropped} & seen.keys() == set(passed)
    assert seen["UV_PYTHON_DOWNLOADS"] == "never"


@pytest.fixture
def shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put first on the PATH what pyenv puts there for a Python that is not chosen."""
    place = tmp_path / "shims" / SERIES
    place.parent.mkdir()
    place.write_text("#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n")
    place.chmod(0o755)
    monkeypatch.setenv("PATH", str(place.parent))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "none"))
    # As if it were another Python that runs here.
    monkeypatch.setattr(building, "_HERE", "3.0")
    return place


def test_a_shim_that_stands_for_no_python_is_said(locked: modelpack.Package, indexes: uv.Indexes, shim: Path) -> None:
    with pytest.raises(EnvironmentMismatch, match="does not start") as info:
        cache.create(locked, indexes=indexes)
    assert info.value.code == "python-unavailable" and "pyenv" in (info.value.hint or "")


def test_behind_a_shim_that_stands_for_no_python_one_that_works_is_found(
    locked: modelpack.Package, indexes: uv.Indexes, shim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usable").mkdir()
    (tmp_path / "usable" / SERIES).symlink_to(getattr(sys, "_base_executable", sys.executable))
    monkeypatch.setenv("PATH", f"{shim.parent}:{tmp_path / 'usable'}")
    assert cache.create(locked, indexes=indexes).fresh
