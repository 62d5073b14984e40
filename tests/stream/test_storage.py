"""The files of a table, in a directory and behind URLs: the same contract."""

from __future__ import annotations

import errno
import time
import uuid
from pathlib import Path

import pytest

from modelpack.errors import ModelpackError, UsageError
from modelpack_server.delta.storage import LocalStorage, Root, Storage, inside, root_of, same, storage
from modelpack_server.delta.tables import reason
from modelpack_server.remote import reading

LARGE = b"0123456789abcdef" * 600_000  # in more than one part


@pytest.fixture(params=["local", "memory", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty place for a table."""
    if request.param == "local":
        return storage(tmp_path / "table")
    bucket = request.getfixturevalue("bucket") if request.param == "s3" else uuid.uuid4().hex
    return storage(f"{request.param}://{bucket}/lake/table")


def put(files: Storage, name: str, data: bytes, *, unique: bool = True) -> None:
    with files.write(name, unique=unique, family="test") as file:
        file.write(data)


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("data", [b"few", LARGE], ids=["small", "large"])
def test_what_is_written_is_there_when_it_is_whole(files: Storage, data: bytes, unique: bool) -> None:
    before = time.time()
    with files.write("a", unique=unique, family="test") as file:
        file.write(data)
        assert files.look("a") is None
    look = files.look("a")
    assert look is not None and look.size == len(data)
    assert before - 60 < look.modified < time.time() + 60
    assert files.read("a") == data
    assert files.names() == ["a"]


@pytest.mark.parametrize("data", [b"few", LARGE], ids=["small", "large"])
def test_what_fails_is_not_there(files: Storage, data: bytes) -> None:
    with pytest.raises(ZeroDivisionError), files.write("a", unique=True, family="test") as file:
        file.write(data)
        raise ZeroDivisionError
    assert (files.names(), files.look("a")) == ([], None)


@pytest.mark.parametrize("data", [b"few", LARGE], ids=["small", "large"])
def test_a_name_that_others_use_is_written_once(files: Storage, data: bytes) -> None:
    with pytest.raises(UsageError) as caught, files.write("a", unique=False, family="test") as file:
        file.write(data)
        put(files, "a", b"first", unique=False)
    assert caught.value.code == "output-exists"
    assert files.read("a") == b"first"


def test_what_is_not_there_is_said_alike(files: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        files.read("a")
    with pytest.raises(FileNotFoundError), files.parquet("a"):
        pass
    assert files.look("a") is None
    assert files.names("folder") == []
    assert not files.begun("_delta_log")


def test_a_file_that_is_written_anew_looks_different(files: Storage) -> None:
    put(files, "a", b"one")
    one = files.look("a")
    assert files.look("a") == one
    put(files, "a", b"two")
    assert files.look("a") != one


def test_folders_are_listed_one_by_one(files: Storage) -> None:
    for name in ("a", "_delta_log/0.json", "_delta_log/1.json"):
        files.make()
        put(files, name, b"{}")
    assert sorted(files.names()) == ["_delta_log", "a"]
    assert sorted(files.names("_delta_log")) == ["0.json", "1.json"]
    assert files.begun("_delta_log")
    files.remove("a")
    assert files.names() == ["_delta_log"]


def test_only_a_directory_can_be_kept_to_oneself_and_removed(files: Storage) -> None:
    files.make()
    assert files.made()
    with files.alone() as alone:
        assert alone is isinstance(files, LocalStorage)
    files.unmake()
    assert files.made() is not isinstance(files, LocalStorage)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("404 Not Found <Error><Code>NoSuchBucket</Code>", "there is no such bucket"),
        ("403 Forbidden <Error><Code>AccessDenied</Code>", "access is denied"),
        ("an error occurred while loading credentials", "the environment does not say who you are"),
        ("HTTP error: error sending request: connection refused", "the service cannot be reached"),
        ("503 Service Unavailable", "the service is not well"),
        ("501 Not Implemented", "the service cannot write on condition, which Delta tables need"),
        ("something else", "OSError"),
    ],
)
def test_what_a_service_says_is_told_in_our_words(said: str, told: str) -> None:
    error = OSError(f"Generic S3 error:\n {said} for the key AKIA")
    assert reason(error, "s3://bucket/table") == told
    assert reason(error, Path("table")) == f"Generic S3 error: {said} for the key AKIA"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileNotFoundError("AKIA"), "there is no such file or bucket"),
        (PermissionError("AKIA"), "access is denied"),
        (OSError(errno.EBUSY, "SlowDown AKIA"), "the service is busy"),
        (OSError(errno.ECONNRESET, "AKIA"), "Connection reset by peer"),
    ],
)
def test_what_a_file_system_says_is_told_in_our_words(error: OSError, told: str) -> None:
    with pytest.raises(ModelpackError, match=told) as caught, reading("s3://bucket/file"):
        raise error
    assert "AKIA" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("NoCredentialsError", "the environment does not say who you are"),
        ("EndpointConnectionError", "the service cannot be reached"),
        ("ReadTimeoutError", "the service cannot be reached"),
        ("FlexibleChecksumError", "FlexibleChecksumError"),
    ],
)
def test_what_a_client_says_is_told_in_our_words(name: str, told: str) -> None:
    with pytest.raises(ModelpackError, match=told) as caught, reading("s3://bucket/file"):
        raise type(name, (Exception,), {})("for the key AKIA")
    assert (caught.value.code, "AKIA" in str(caught.value)) == ("file-unreachable", False)


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ("tables/a", Path("tables/a")),
        ("file:///tables/a%20b", Path("/tables/a b")),
        (Path("a"), Path("a")),
        ("s3://bucket/a/", "s3://bucket/a"),
    ],
)
def test_tables_are_named_by_path_or_url(given: str | Path, root: Root) -> None:
    assert root_of(given) == root
    assert str(inside(root_of(given), "b")) == f"{root}/b"
    assert same(root_of(given), root)


@pytest.mark.parametrize(
    ("given", "code"),
    [("gs://bucket/a", "table-location"), ("memory://a", "table-location"), ("s3://key:secret@bucket/a", "url-secret")],
)
def test_tables_elsewhere_are_refused(given: str, code: str) -> None:
    with pytest.raises(ModelpackError) as caught:
        root_of(given)
    assert caught.value.code == code
