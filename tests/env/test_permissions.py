"""Environments that others could have changed: not run in, not built into, and not made so by a umask."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import modelpack
from modelpack.environments import cache, layer, places, quick, uv
from modelpack.errors import EnvironmentMismatch

Command = Callable[..., subprocess.CompletedProcess[str]]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")


@pytest.fixture
def generous() -> Iterator[None]:
    """Give others everything that is made."""
    before = os.umask(0)
    yield
    os.umask(before)


def writable(place: Path) -> list[Path]:
    found = [place, *place.rglob("*")]
    return [path for path in found if not path.is_symlink() and path.stat().st_mode & 0o022]


def test_whatever_the_umask_others_can_write_to_nothing(
    locked: modelpack.Package, indexes: uv.Indexes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generous: None
) -> None:
    monkeypatch.setenv("MODELPACK_ENVIRONMENTS", str(tmp_path / "cache" / "modelpack" / "environments"))
    built = cache.create(locked, indexes=indexes)
    quick.note(locked.digest, built.path, layer._layer(built))
    own = cache.create(locked, tmp_path / "venv", indexes=indexes).path
    assert writable(tmp_path / "cache") == writable(own) == []
    # Root builds for others in an image.
    assert stat.S_IMODE(built.path.stat().st_mode) == stat.S_IMODE(built.path.parent.stat().st_mode) == 0o755


def test_a_cache_that_others_can_write_to_is_not_used(
    locked: modelpack.Package, indexes: uv.Indexes, environments: Path, command: Command
) -> None:
    built = cache.create(locked, indexes=indexes)
    layer.prepare(built)
    assert command("test", locked.path, "--env", "isolated").returncode == 0
    for mode in (0o777, 0o775, 0o1777):
        environments.chmod(mode)
        for use in (lambda: cache.create(locked), cache.prune, lambda: layer.enter(built, locked.digest, [])):
            with pytest.raises(EnvironmentMismatch, match="others can write to it") as info:
                use()
            assert info.value.code == "cache-unsafe"
            assert "chmod go-w" in (info.value.hint or "")
        assert "cache-unsafe" in command("test", locked.path, "--env", "isolated").stderr


@needs_root
def test_what_belongs_to_another_user_is_not_used(
    locked: modelpack.Package, indexes: uv.Indexes, environments: Path
) -> None:
    built = cache.create(locked, indexes=indexes)
    os.chown(built.path, 12345, -1)
    assert not quick.hold(built.path)
    assert cache.create(locked, indexes=indexes).fresh
    os.chown(environments, 12345, -1)
    with pytest.raises(EnvironmentMismatch, match="belongs to another user"):
        places.cache(make=False)


def test_what_root_made_is_used_by_others(
    locked: modelpack.Package, indexes: uv.Indexes, environments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.create(locked, indexes=indexes)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert (quick.unsafe(environments) is None) == (environments.stat().st_uid == 0)


@pytest.mark.parametrize("what", ["note", "layer", "environment", "elsewhere"])
def test_the_short_way_goes_by_nothing_that_others_can_write_to(
    locked: modelpack.Package,
    indexes: uv.Indexes,
    environments: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    built = cache.create(locked, indexes=indexes)
    runtime = layer._layer(built)
    quick.note(locked.digest, built.path, runtime)
    seen: list[Path] = []
    monkeypatch.setattr(quick, "become", lambda place, *_: seen.append(place))
    quick.start(locked.path, [])
    assert seen.pop() == built.path

    note = environments / f".package-{locked.digest[7:]}.json"
    if what == "elsewhere":
        built.path.rename(tmp_path / "another")
        note.write_text(json.dumps({"environment": "../another", "layer": runtime.name}))
    else:
        {"note": note, "layer": runtime, "environment": built.path}[what].chmod(0o777)
    quick.start(locked.path, [])
    assert seen == []
    if what == "layer":
        assert layer._layer(built) == runtime and quick.unsafe(runtime) is None
