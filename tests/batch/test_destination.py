"""Output appears whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from modelpack.errors import SaveError, UsageError
from modelpack_server import wholefile
from modelpack_server.batch import destination
from modelpack_server.batch.formats import Kind

CSV = Kind(format="csv")


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "out.csv"
    with wholefile.whole_file(target, overwrite=False) as file:
        file.write(b"x")
        assert not target.exists()
    assert target.read_bytes() == b"x"
    assert entries(target.parent) == ["out.csv"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), wholefile.whole_file(tmp_path / "out.csv", overwrite=False) as file:
        file.write(b"x")
        raise KeyError
    assert entries(tmp_path) == []


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_bytes(b"old")
    with pytest.raises(KeyError), wholefile.whole_file(tmp_path / "out.csv", overwrite=True) as file:
        file.write(b"x")
        raise KeyError
    assert (tmp_path / "out.csv").read_bytes() == b"old"


def test_a_file_that_comes_up_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    with pytest.raises(UsageError, match="exists"), wholefile.whole_file(target, overwrite=False) as file:
        file.write(b"x")
        target.write_bytes(b"theirs")
    assert target.read_bytes() == b"theirs"
    assert entries(tmp_path) == ["out.csv"]


def test_a_file_system_without_links_works_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    with wholefile.whole_file(tmp_path / "out.csv", overwrite=False) as file:
        file.write(b"x")
    assert entries(tmp_path) == ["out.csv"]


def test_leftovers_of_dead_runs_are_swept_but_not_those_of_living_ones(tmp_path: Path) -> None:
    (tmp_path / ".modelpack-out.csv-dead").write_bytes(b"half")
    (tmp_path / ".modelpack-other.csv-dead").write_bytes(b"half")
    with wholefile.whole_file(tmp_path / "out.csv", overwrite=True) as first:
        first.write(b"1")
        with wholefile.whole_file(tmp_path / "out.csv", overwrite=True) as second:
            second.write(b"2")
        first.write(b"1")
    assert (tmp_path / "out.csv").read_bytes() == b"11"
    assert entries(tmp_path) == [".modelpack-other.csv-dead", "out.csv"]


def test_a_link_is_followed_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out.csv").symlink_to(tmp_path / "real" / "out.csv")
    with wholefile.whole_file(tmp_path / "out.csv", overwrite=False) as file:
        file.write(b"x")
    assert (tmp_path / "real" / "out.csv").read_bytes() == b"x"


def test_a_directory_with_other_things_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_bytes(b"")
    with pytest.raises(UsageError, match="more than data files"):
        destination.refuse_existing(tmp_path / "out", overwrite=True)
    assert entries(tmp_path / "out") == ["thesis.tex"]


def test_a_link_to_a_directory_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.csv").write_bytes(b"")
    (tmp_path / "out").symlink_to(tmp_path / "real")
    with pytest.raises(UsageError, match="more than data files"):
        destination.refuse_existing(tmp_path / "out", overwrite=True)


def test_what_exists_is_refused_and_what_is_empty_is_not(tmp_path: Path) -> None:
    destination.refuse_existing(tmp_path / "new", overwrite=False)
    (tmp_path / "empty").mkdir()
    destination.refuse_existing(tmp_path / "empty", overwrite=False)
    (tmp_path / "file.csv").write_bytes(b"")
    with pytest.raises(UsageError, match="exists"):
        destination.refuse_existing(tmp_path / "file.csv", overwrite=False)
    destination.refuse_existing(tmp_path / "file.csv", overwrite=True)


def test_a_device_is_written_as_it_is() -> None:
    assert destination.is_stream(Path("/dev/null"))
    assert not destination.is_stream(Path("/nowhere"))
    with destination.stream(Path("/dev/null")) as opened, opened.open("", CSV) as file:
        assert file.write(b"abc") == 3


def test_what_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    inside = tmp_path / "file" / "out.csv"
    with pytest.raises(SaveError, match="cannot be written"), wholefile.whole_file(inside, overwrite=False):
        pass
    full = destination.stream(Path("/dev/full"))
    with pytest.raises(SaveError, match="No space left"), full as opened, opened.open("", CSV) as file:
        file.write(b"x" * 100_000)
    # Little enough to be tried when it is flushed, and once more when the file is closed.
    full = destination.stream(Path("/dev/full"))
    with pytest.raises(SaveError, match="/dev/full cannot be"), full as opened, opened.open("", CSV) as file:
        file.write(b"x")
    with pytest.raises(BrokenPipeError), wholefile.whole_file(tmp_path / "out.csv", overwrite=False):
        raise BrokenPipeError
