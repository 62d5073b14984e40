from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from modelpack import files
from modelpack.errors import IntegrityError
from modelpack.files import VerifiedFiles
from modelpack.manifest import FileEntry


def entry(root: Path, path: str, content: bytes = b"content") -> FileEntry:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    digest, size = files.hash_file(file)
    return FileEntry(path=path, size=size, digest=digest, role="payload")


def codes(root: Path, *entries: FileEntry) -> list[tuple[str, str]]:
    return [(fault.code, fault.path) for fault in files.verify(root, entries)]


def test_hash_is_what_coreutils_give(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.hash_file(tmp_path / "a") == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        3,
    )


def test_a_directory_as_listed_has_no_faults(tmp_path: Path) -> None:
    listed = [entry(tmp_path, f"d/{i}", bytes([i]) * i) for i in range(20)]
    (tmp_path / "modelpack.json").write_text("{}")
    (tmp_path / "model.sig").write_text("unlisted by rule")
    (tmp_path / "empty").mkdir()
    assert codes(tmp_path, *listed) == []


def test_every_difference_is_found(tmp_path: Path) -> None:
    listed = [entry(tmp_path, name) for name in ("changed", "gone", "good", "grown", "link", "sub/pipe")]
    (tmp_path / "changed").write_bytes(b"CONTENT")
    (tmp_path / "grown").write_bytes(b"content and more")
    for name in ("gone", "link", "sub/pipe"):
        (tmp_path / name).unlink()
    (tmp_path / "link").symlink_to("good")
    os.mkfifo(tmp_path / "sub/pipe")
    (tmp_path / ".extra").write_text("")
    assert codes(tmp_path, *listed) == [
        ("file-unexpected", ".extra"),
        ("digest-mismatch", "changed"),
        ("file-missing", "gone"),
        ("size-mismatch", "grown"),
        ("file-kind", "link"),
        ("file-kind", "sub/pipe"),
    ]


def test_a_link_to_a_directory_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    entry(outside, "x")
    root = tmp_path / "root"
    root.mkdir()
    (root / "d").symlink_to(outside, target_is_directory=True)
    assert codes(root, FileEntry(path="d/x", size=7, digest="sha256:" + "0" * 64, role="other")) == [
        ("file-kind", "d"),
        ("file-missing", "d/x"),
    ]


def test_verified_reading_returns_the_listed_bytes(tmp_path: Path) -> None:
    listed = [entry(tmp_path, "p/a", b"one"), entry(tmp_path, "p/b/c", b"two")]
    verified = VerifiedFiles(tmp_path, listed, "p/")
    assert verified.paths() == ["a", "b/c"]
    assert verified.read("a") == b"one"
    assert verified.size("b/c") == 3


@pytest.mark.parametrize(
    ("swap", "code"),
    [
        (lambda file: file.write_bytes(b"ONE"), "digest-mismatch"),
        (lambda file: file.write_bytes(b"one and more"), "size-mismatch"),
        (lambda file: file.unlink(), "file-missing"),
        (lambda file: (file.unlink(), file.symlink_to("b")), "file-kind"),
        (lambda file: (file.unlink(), os.mkfifo(file)), "file-kind"),
        (lambda file: (file.unlink(), file.mkdir()), "file-kind"),
    ],
)
def test_a_file_swapped_after_verification_is_refused(tmp_path: Path, swap: object, code: str) -> None:
    listed = [entry(tmp_path, "a", b"one"), entry(tmp_path, "b", b"one")]
    assert codes(tmp_path, *listed) == []
    swap(tmp_path / "a")  # type: ignore[operator]
    with pytest.raises(IntegrityError) as info:
        VerifiedFiles(tmp_path, listed).read("a")
    assert (info.value.code, info.value.path) == (code, "a")


def test_a_path_that_is_not_listed_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("but not listed")
    with pytest.raises(IntegrityError, match="no such file"):
        VerifiedFiles(tmp_path, []).read("there")


def test_the_directory_holds_verified_copies_and_goes_with_the_object(tmp_path: Path) -> None:
    verified = VerifiedFiles(tmp_path, [entry(tmp_path, "p/b/c", b"two")], "p/")
    copy = verified.directory()
    assert verified.directory() == copy
    assert copy.stat().st_mode & 0o777 == 0o700
    assert (copy / "b/c").read_bytes() == b"two"
    del verified
    assert not copy.exists()


def test_a_manifest_is_read_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "modelpack.json").write_bytes(b"x" * 100)
    assert len(files.read_manifest(tmp_path, max_bytes=10)) == 11


def test_no_directory_and_no_manifest_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as info:
        files.read_manifest(tmp_path / "nowhere", max_bytes=10)
    assert info.value.code == "package-missing"
    with pytest.raises(IntegrityError) as info:
        files.read_manifest(tmp_path, max_bytes=10)
    assert info.value.code == "manifest-missing"


def test_a_manifest_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.json").write_text("{}")
    (tmp_path / "modelpack.json").symlink_to("elsewhere.json")
    with pytest.raises(IntegrityError) as info:
        files.read_manifest(tmp_path, max_bytes=10)
    assert (info.value.code, info.value.path) == ("file-kind", "modelpack.json")


LARGE = bytes(range(256)) * 65_536  # 16 MiB: read in several pieces


def test_a_large_file_is_viewed_without_a_copy_and_read_as_bytes(tmp_path: Path) -> None:
    kept: dict[str, bytes | memoryview] = {}
    verified = VerifiedFiles(tmp_path, [entry(tmp_path, "p/large", LARGE)], "p/", kept)
    view = verified.view("large")
    assert isinstance(view, memoryview)
    assert view.readonly
    assert view == LARGE
    assert verified.view("large") is view
    assert verified.read("large") == LARGE
    assert verified.view("large") is verified.read("large")
    assert (verified.directory() / "large").read_bytes() == LARGE


def test_verification_keeps_the_view_it_hashed(tmp_path: Path) -> None:
    kept: dict[str, bytes | memoryview] = {}
    listed = [entry(tmp_path, "large", LARGE), entry(tmp_path, "small")]
    assert files.verify(tmp_path, listed, kept) == []
    (tmp_path / "large").write_bytes(b"other")
    assert kept == {"large": LARGE, "small": b"content"}


@pytest.mark.parametrize(
    ("swap", "code"),
    [
        (b"x" + LARGE[1:], "digest-mismatch"),
        (LARGE[:-1] + b"x", "digest-mismatch"),
        (LARGE[:-1], "size-mismatch"),
        (LARGE + b"x", "size-mismatch"),
    ],
)
def test_a_large_file_that_changed_is_refused(tmp_path: Path, swap: bytes, code: str) -> None:
    verified = VerifiedFiles(tmp_path, [entry(tmp_path, "large", LARGE)])
    (tmp_path / "large").write_bytes(swap)
    with pytest.raises(IntegrityError) as caught:
        verified.view("large")
    assert caught.value.code == code


def test_a_large_file_that_grows_or_shrinks_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = entry(tmp_path, "large", LARGE)
    for changed in (LARGE[:-1], LARGE + b"x"):
        (tmp_path / "large").write_bytes(LARGE)
        verified = VerifiedFiles(tmp_path, [listed])
        read = files._read_hashed

        def late(fd: int, size: int, changed: bytes = changed, read: Any = read) -> Any:
            (tmp_path / "large").write_bytes(changed)
            return read(fd, size)

        with monkeypatch.context() as patch:
            patch.setattr(files, "_read_hashed", late)
            with pytest.raises(IntegrityError) as caught:
                verified.view("large")
        assert caught.value.code == "size-mismatch"
