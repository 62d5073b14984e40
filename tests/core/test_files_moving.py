"""A directory that cannot be read, or changes while it is read: a fault with its path, never a crash."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelpack import files
from modelpack.manifest import FileEntry


def listed(root: Path, *paths: str) -> list[FileEntry]:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    entries = []
    for path in paths:
        digest, size = files.hash_file(root / path)
        entries.append(FileEntry(path=path, size=size, digest=digest, role="other"))
    return entries


def test_a_directory_that_cannot_be_listed_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = listed(tmp_path, "a", "b/c")
    scandir = os.scandir

    def denied(place: Any) -> Any:
        if Path(place).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    monkeypatch.setattr(os, "scandir", denied)
    found = [(fault.code, fault.path) for fault in files.verify(tmp_path, entries)]
    assert found == [("file-unreadable", "b"), ("file-missing", "b/c")]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda path: path.unlink(), "file-missing"),
        (lambda path: (path.unlink(), path.symlink_to("a")), "file-kind"),
        (lambda path: path.write_bytes(b"X"), "digest-mismatch"),
    ],
    ids=["removed", "made a link", "rewritten"],
)
@pytest.mark.parametrize("count", [1, 5], ids=["one", "many"])
def test_a_file_that_changes_between_listing_and_hashing_is_a_fault(
    change: Callable[[Path], object], code: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = listed(tmp_path, *"zabcd"[:count])
    scan = files.scan

    def then_change(root: Path) -> Any:
        found = scan(root)
        change(root / "z")
        return found

    monkeypatch.setattr(files, "scan", then_change)
    assert [(fault.code, fault.path) for fault in files.verify(tmp_path, entries)] == [(code, "z")]


def test_a_name_that_is_not_unicode_can_be_printed(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff")).symlink_to("nowhere")
    (tmp_path / os.fsdecode(b"a\xfe")).write_bytes(b"")
    faults = files.verify(tmp_path, [])
    assert [(fault.code, fault.path) for fault in faults] == [("file-kind", "\\xff"), ("file-unexpected", "a\\xfe")]


def test_a_file_that_cannot_be_opened_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = listed(tmp_path, "a")
    opened = os.open

    def denied(path: Any, *rest: Any) -> int:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", denied)
    assert [(fault.code, fault.path) for fault in files.verify(tmp_path, entries)] == [("file-unreadable", "a")]
