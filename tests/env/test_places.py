"""Builders that are killed or ended, and places where nothing can be built."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import modelpack
from modelpack.environments import cache, places, quick, uv
from modelpack.errors import EnvironmentMismatch, SaveError

Builder = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def index() -> Iterator[socket.socket]:
    """Listen as an index that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(100)
        yield listening


@pytest.fixture
def builder(locked: modelpack.Package, index: socket.socket) -> Builder:
    """Start a builder whose uv waits for the index."""

    def start() -> subprocess.Popen[str]:
        address = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        call = [sys.executable, "-P", "-m", "modelpack", "env", "create", str(locked.path)]
        variables = {**os.environ, "UV_DEFAULT_INDEX": address, "UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": "300"}
        return subprocess.Popen(call, env=variables, stderr=subprocess.PIPE, text=True)

    return start


def half(environments: Path) -> list[Path]:
    """Return the directories that environments are built in before they have their name."""
    return [path for path in environments.iterdir() if re.fullmatch(r"\.[0-9a-f]{32}\.[0-9a-f]{8}", path.name)]


def test_where_a_builder_was_killed_another_builds_although_the_first_ones_uv_lives_on(
    locked: modelpack.Package, indexes: uv.Indexes, builder: Builder, index: socket.socket, environments: Path
) -> None:
    first = builder()
    connection, _ = index.accept()
    first.kill()
    first.communicate()
    [left] = half(environments)

    built = cache.create(locked, indexes=indexes)

    assert built.fresh and quick.whole(built.path)
    # What its uv may still write to, nobody has taken away.
    assert half(environments) == [left]
    connection.close()
    index.close()
    lock = os.open(left, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # waits until that uv has ended
    os.close(lock)
    places.sweep(built.path)
    assert half(environments) == [] and quick.whole(built.path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_builder_that_is_ended_ends_its_uv_and_leaves_nothing_half(
    builder: Builder, index: socket.socket, environments: Path, number: signal.Signals
) -> None:
    first = builder()
    connection, _ = index.accept()
    connection.settimeout(100)
    first.send_signal(number)
    first.communicate()

    assert first.returncode == (1 if number == signal.SIGINT else -number)
    assert half(environments) == []
    while connection.recv(65536):
        pass  # what uv had asked; then it is gone
    connection.close()


def test_what_was_built_is_where_it_was_to_be_and_nothing_beside_it(
    locked: modelpack.Package, indexes: uv.Indexes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    built = cache.create(locked, Path("venv"), indexes=indexes)
    assert [path.name for path in Path.cwd().iterdir()] == ["venv"]
    activated = subprocess.run(
        ["sh", "-c", ". venv/bin/activate && command -v python && python -c 'import tiny_twice'"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert activated.stdout.strip() == str(built.python)


@pytest.mark.parametrize("path", ["dangling", "file", "folder"])
def test_where_something_is_nothing_is_built(locked: modelpack.Package, tmp_path: Path, path: str) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(SaveError) as info:
        cache.create(locked, tmp_path / path)
    assert info.value.code == "target-exists"


def test_where_no_directory_can_be_is_said(
    locked: modelpack.Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match="file/x cannot be written") as named:
        cache.create(locked, tmp_path / "file" / "x")
    assert named.value.code == "target-unwritable"
    for place in (tmp_path / "file", tmp_path / "file" / "x"):
        monkeypatch.setenv("MODELPACK_ENVIRONMENTS", str(place))
        with pytest.raises(EnvironmentMismatch, match="cannot be written") as info:
            cache.create(locked)
        assert info.value.code == "cache-unwritable"
