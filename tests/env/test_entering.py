"""Becoming the command in a package's environment: in the right one, wherever one is, and never silently here."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import modelpack
from modelpack.cli import place
from modelpack.environments import cache, layer, places, quick, uv
from modelpack.errors import EnvironmentMismatch

Command = Callable[..., subprocess.CompletedProcess[str]]


class Entered(Exception):
    """Stands for the process that this one would have become."""


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str]]:
    """Return the environments that would be entered from now on, each with the digest of the package it is for."""
    seen: list[tuple[Path, str]] = []

    def become(path: Path, layer: Path, package: str, arguments: Any) -> None:
        seen.append((path, package))
        raise Entered

    monkeypatch.setattr(quick, "become", become)
    return seen


def enter(package: modelpack.Package) -> None:
    with contextlib.suppress(Entered):
        place.enter_environment("isolated", str(package.path), None)


def test_from_another_packages_environment_its_own_is_entered(
    locked: modelpack.Package,
    indexes: uv.Indexes,
    tmp_path: Path,
    entered: list[tuple[Path, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = cache.create(locked, indexes=indexes)
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / quick.MARKER).write_text("{}")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "another"))
    monkeypatch.setenv("MODELPACK_RUNTIME_PACKAGE", "sha256:" + "0" * 64)
    enter(locked)
    assert entered == [(built.path, locked.digest)]


@pytest.mark.parametrize("digest", [None, "sha256:" + "0" * 64], ids=["entered for it", "the same pins"])
def test_in_its_own_environment_it_stays(
    locked: modelpack.Package,
    indexes: uv.Indexes,
    entered: list[tuple[Path, str]],
    monkeypatch: pytest.MonkeyPatch,
    digest: str | None,
) -> None:
    built = cache.create(locked, indexes=indexes)
    monkeypatch.setattr(sys, "prefix", str(built.path))
    monkeypatch.setenv("MODELPACK_RUNTIME_PACKAGE", digest or locked.digest)
    enter(locked)
    assert entered == []


def test_a_cache_that_cannot_be_written_to_is_used(
    locked: modelpack.Package, indexes: uv.Indexes, environments: Path, command: Command
) -> None:
    cache.create(locked, indexes=indexes)
    assert command("test", locked.path, "--env", "isolated").returncode == 0
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && ! touch "$0/x" 2> /dev/null && exec "$@"'
    call = [sys.executable, "-P", "-m", "modelpack", "test", str(locked.path), "--env", "isolated"]

    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, str(environments), *call], capture_output=True, text=True, timeout=120
    )

    assert (done.returncode, done.stdout) == (0, "example: 2 rows, ok (flavor python)\n"), done.stderr


def test_a_lock_file_of_somebody_elses_is_held_for_reading_or_not_at_all(
    locked: modelpack.Package, indexes: uv.Indexes, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = cache.create(locked, indexes=indexes)
    opened = os.open

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(os, "open", lambda path, flags, *more: refuse() if flags & os.O_RDWR else opened(path, flags))
    assert quick.hold(built.path)
    monkeypatch.setattr(os, "open", refuse)
    assert quick.hold(built.path)


def test_an_environment_whose_python_is_gone_is_built_anew(locked: modelpack.Package, indexes: uv.Indexes) -> None:
    built = cache.create(locked, indexes=indexes)
    python = built.path / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")

    assert not quick.hold(built.path)
    assert cache.create(locked, indexes=indexes).fresh
    assert quick.hold(built.path)


def test_one_that_somebody_runs_in_is_not_waited_for(
    locked: modelpack.Package, indexes: uv.Indexes, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = cache.create(locked, indexes=indexes)
    monkeypatch.setattr(places, "locked", lambda *_: pytest.fail("it waits"))
    assert (cache.create(locked, indexes=indexes).path, cache.create(locked).fresh) == (built.path, False)


def test_what_is_gone_before_it_is_entered_is_said(locked: modelpack.Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "create", lambda *_, **__: None)
    monkeypatch.setattr(layer, "enter", lambda *_: None)
    with pytest.raises(EnvironmentMismatch, match="not there any more") as info:
        place.enter_environment("isolated", str(locked.path), None)
    assert (info.value.code, info.value.path) == ("environment-gone", "environment.locks")


def test_programs_are_found_in_the_environment_that_is_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}
    monkeypatch.setattr(os, "execve", lambda _, __, variables: seen.update(variables))
    for name, value in (("VIRTUAL_ENV", "/another"), ("PATH", "/another/bin:/bin"), ("PYTHONPATH", "/mine")):
        monkeypatch.setenv(name, value)
    quick.become(tmp_path / "this", tmp_path / "layer", "sha256:" + "0" * 64, [])
    assert seen["VIRTUAL_ENV"] == str(tmp_path / "this")
    assert seen["PATH"] == f"{tmp_path / 'this' / 'bin'}:/another/bin:/bin"
    assert "PYTHONPATH" not in seen
