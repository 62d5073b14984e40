from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelpack import atomic
from modelpack.errors import SaveError
from modelpack.pathrules import MANIFEST


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".modelpack-"))


def write(target: Path, text: str, *, overwrite: bool = False) -> None:
    with atomic.directory(target, overwrite=overwrite) as staging:
        (staging / MANIFEST).write_text(text)


def test_the_directory_appears_with_its_content(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "pkg", "one")
    assert (tmp_path / "deep" / "pkg" / MANIFEST).read_text() == "one"
    assert leftovers(tmp_path / "deep") == []


def test_nothing_is_there_while_it_is_written(tmp_path: Path) -> None:
    with atomic.directory(tmp_path / "pkg", overwrite=False) as staging:
        (staging / "a").write_text("a")
        assert not (tmp_path / "pkg").exists()
        assert staging.stat().st_mode & 0o777 == 0o700


def test_the_directory_gets_the_mode_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "pkg", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "pkg").stat().st_mode & 0o777 == 0o750


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic.directory(tmp_path / "pkg", overwrite=False):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_overwriting_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "pkg", "old")
    with pytest.raises(ZeroDivisionError), atomic.directory(tmp_path / "pkg", overwrite=True):
        raise ZeroDivisionError
    assert (tmp_path / "pkg" / MANIFEST).read_text() == "old"
    assert leftovers(tmp_path) == []


def test_an_existing_target_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "pkg", "old")
    with pytest.raises(SaveError, match="overwrite=True") as info:
        write(tmp_path / "pkg", "new")
    assert info.value.code == "target-exists"
    assert (tmp_path / "pkg" / MANIFEST).read_text() == "old"


def test_a_target_that_appears_meanwhile_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "pkg"
    with pytest.raises(SaveError) as info, atomic.directory(target, overwrite=False) as staging:
        (staging / MANIFEST).write_text("mine")
        write(target, "theirs")
    assert info.value.code == "target-exists"
    assert (target / MANIFEST).read_text() == "theirs"


def test_an_empty_directory_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    write(tmp_path / "pkg", "one")
    assert (tmp_path / "pkg" / MANIFEST).read_text() == "one"


def test_overwrite_replaces_a_whole_package(tmp_path: Path) -> None:
    write(tmp_path / "pkg", "old")
    (tmp_path / "pkg" / "more").write_text("gone after")
    write(tmp_path / "pkg", "new", overwrite=True)
    assert [path.name for path in (tmp_path / "pkg").iterdir()] == [MANIFEST]
    assert (tmp_path / "pkg" / MANIFEST).read_text() == "new"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_overwrite_never_replaces_what_is_not_a_package(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "pkg"
    if kind == "file":
        target.write_text("precious")
    elif kind == "folder":
        target.mkdir()
        (target / "precious").write_text("precious")
    else:
        write(tmp_path / "other", "precious")
        target.symlink_to(tmp_path / "other")
    with pytest.raises(SaveError) as info:
        write(target, "new", overwrite=True)
    assert info.value.code == "target-not-package"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError) as info:
        write(tmp_path / "file" / "pkg", "x")
    assert info.value.code == "target-unwritable"


KILLED = """
import sys, time
from pathlib import Path
from modelpack import atomic
with atomic.directory(Path(sys.argv[1]), overwrite=True) as staging:
    (staging / "half").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_writer_left_is_swept_and_a_live_one_is_not(tmp_path: Path) -> None:
    target = tmp_path / "pkg"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert len(leftovers(tmp_path)) == 1
        write(target, "another")  # sweeps nothing: the other writer lives
        assert len(leftovers(tmp_path)) == 1
        writer.kill()
    assert len(leftovers(tmp_path)) == 1
    deadline = time.monotonic() + 10
    while leftovers(tmp_path) and time.monotonic() < deadline:
        write(target, "again", overwrite=True)
    assert leftovers(tmp_path) == []
    assert (target / MANIFEST).read_text() == "again"


def test_names_with_glob_characters_are_swept_literally(tmp_path: Path) -> None:
    (tmp_path / ".modelpack-ab-1").mkdir()
    write(tmp_path / "a[b]", "x")
    assert leftovers(tmp_path) == [".modelpack-ab-1"]


def test_a_file_system_without_exchange_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        def renameat2(self, *_: object) -> int:
            return -1

    write(tmp_path / "pkg", "old")
    monkeypatch.setattr(atomic.ctypes, "CDLL", lambda *_, **__: Libc())
    with pytest.raises(SaveError, match="one step") as info:
        write(tmp_path / "pkg", "new", overwrite=True)
    assert info.value.code == "target-unwritable"
    assert (tmp_path / "pkg" / MANIFEST).read_text() == "old"


def test_a_staging_directory_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[int] = []

    def late(fd: int, operation: int) -> None:
        if not locked:
            # Another writer to the same target is quicker, and takes it for one that a killed writer left.
            for leftover in tmp_path.glob(".modelpack-*"):
                leftover.rmdir()
        locked.append(fd)

    monkeypatch.setattr(fcntl, "flock", late)
    with atomic.directory(tmp_path / "model", overwrite=False) as staging:
        (staging / "a").write_text("whole")
    assert len(locked) == 2
    assert (tmp_path / "model" / "a").read_text() == "whole"
