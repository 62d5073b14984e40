"""Streams whose tables lie in S3: each row once, as on a local disk."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from s3_server import OPTIONS, SECRET, Server

from modelpack.errors import ModelpackError
from modelpack.model import Model
from modelpack_server.delta.commit import Target
from modelpack_server.stream import follow


@pytest.fixture
def tables(cloud_tables: Any) -> Any:
    """A place for tables in S3."""
    return cloud_tables


def code_of(call: Callable[[], Any]) -> tuple[str, str]:
    """Return the code and the words of the error that a call ends with."""
    with pytest.raises(ModelpackError) as caught:
        call()
    return caught.value.code, str(caught.value)


def below(url: str) -> set[str]:
    """Return the names of the data files that are in the place of a table."""
    files, path = fsspec.url_to_fs(url)
    files.invalidate_cache()
    return {name.rpartition("/")[2] for name in files.find(path) if name.endswith(".parquet") and "/_" not in name}


def listed(tables: Any, root: str) -> set[str]:
    """Return the names of the data files that the log lists."""
    return {uri.rpartition("/")[2] for uri in tables.table(root).file_uris()}


def racing(monkeypatch: pytest.MonkeyPatch, other: Callable[[], Any]) -> None:
    """Let somebody else be faster, after the rows are scored and before they are committed."""
    real, left = Target.commit, [other]

    def late(self: Target, *args: Any) -> None:
        if left:
            left.pop()()
        real(self, *args)

    monkeypatch.setattr(Target, "commit", late)


def test_what_is_there_and_what_comes_is_scored_once(tables: Any, model: Model) -> None:
    tables.add()
    tables.add()
    done = tables.run(model, tables.add, tables.add)
    tables.check(40)
    assert (done.rows, done.commits, done.conflicts, done.version) == (40, 3, 0, 3)
    assert tables.run(model).rows == 0
    tables.add()
    assert tables.run(model, once=True).rows == 10
    tables.check(50)
    assert below(tables.output) == listed(tables, tables.output)


@pytest.mark.parametrize("here", ["source", "output"])
def test_one_of_the_tables_may_be_here(tables: Any, model: Model, tmp_path: Path, here: str) -> None:
    setattr(tables, here, tmp_path / here)
    tables.add()
    tables.run(model)
    tables.check(10)


def test_a_new_stream_begins_where_it_is_told_to(tables: Any, model: Model) -> None:
    for _ in range(3):
        tables.add()
    tables.run(model, from_version=1, max_rows=1)
    assert tables.ids() == list(range(10, 30))
    assert code_of(lambda: tables.run(model, from_version=9, job="other"))[0] == "version-absent"


def test_an_idle_look_is_one_request(tables: Any, model: Model, s3_server: Server, bucket: str) -> None:
    tables.add()
    tables.run(model)
    for idle in (1, 11):
        before = len(s3_server.requests())
        tables.run(model, idle=idle)
        asked = s3_server.requests()[before:]
        looks = [one for one in asked if one.startswith(f"GET /{bucket}/lake/source/_delta_log/{1:020d}.json")]
        assert len(looks) == idle
        if idle == 1:
            once = len(asked)
    assert len(asked) == once + 10


def test_a_commit_takes_as_many_requests_however_long_the_logs_are(
    tables: Any, model: Model, s3_server: Server
) -> None:
    counts: list[int] = []

    def add() -> None:
        tables.add()
        counts.append(len(s3_server.requests()))

    def note() -> None:
        counts.append(len(s3_server.requests()) - counts.pop())

    tables.add()
    tables.run(model, *[add, note] * 8)
    assert counts[-1] == counts[2] <= 20


def test_new_columns_are_not_read(tables: Any, model: Model) -> None:
    tables.add(2)
    tables.run(model, lambda: tables.add(2, extra=["a", "b"]), lambda: tables.add(2, extra=["c", None]))
    tables.check(6)


def test_deletes_and_updates_are_what_they_are_here(tables: Any, model: Model) -> None:
    tables.add()
    tables.run(model)
    tables.table(tables.source).delete("id < 5")
    assert code_of(lambda: tables.run(model))[0] == "source-changed"
    tables.run(model, changes="append")
    assert tables.ids() == sorted([*range(10), *range(5, 10)])


def test_an_output_follows_by_key(tables: Any, model: Model) -> None:
    def write(rows: dict[str, Any], **more: Any) -> None:
        write_deltalake(tables.source, pa.table(rows), storage_options=OPTIONS, **more)

    write({"id": [1, 2, 3], "x": [1.0, 2.0, 3.0]}, configuration={"delta.enableChangeDataFeed": "true"})
    options = {"changes": "upsert", "key": ("id",)}
    tables.run(model, **options)
    tables.table(tables.source).update(updates={"x": "x + 10"}, predicate="id = 2")
    tables.table(tables.source).delete("id = 3")
    write({"id": [4], "x": [4.0]}, mode="append")
    done = tables.run(model, **options)
    assert (done.rows, done.deleted) == (2, 1)
    assert tables.scored() == [
        {"id": 1, "x": 1.0, "score": 2.0},
        {"id": 2, "x": 12.0, "score": 24.0},
        {"id": 4, "x": 4.0, "score": 8.0},
    ]


def test_rows_that_do_not_fit_go_to_a_table_there(tables: Any, model: Model) -> None:
    tables.add(4, x=[1.0, None, 2.0, None])
    name = next(iter(listed(tables, tables.source)))
    _, text = code_of(lambda: tables.run(model))
    assert f"{tables.source}/{name}, row 2, column 'x'" in text
    assert tables.run(model, on_error=tables.rejects).rejected == 2
    rejects = tables.table(tables.rejects).to_pyarrow_table().to_pylist()
    assert [(row["file"], row["row"]) for row in rejects] == [
        (f"{tables.source}/{name}", 2),
        (f"{tables.source}/{name}", 4),
    ]
    assert tables.ids() == [0, 2]
    for place in (tables.source, tables.output):
        with pytest.raises(ModelpackError):
            tables.run(model, on_error=place)


def test_vacuumed_files_are_a_gap(tables: Any, model: Model, cloud: Any) -> None:
    tables.add()
    tables.run(model)
    tables.add()
    for name in below(tables.source):
        cloud.rm(f"{tables.source}/{name}")
    code, text = code_of(lambda: tables.run(model))
    assert code == "source-gap" and f"{tables.source}/part-" in text
    tables.run(model, tables.add, on_gap="skip")
    assert tables.ids() == [*range(10), *range(20, 30)]


def test_a_log_that_was_cleaned_is_a_gap(tables: Any, model: Model, cloud: Any) -> None:
    tables.add()
    tables.run(model)
    for _ in range(3):
        tables.add()
    tables.table(tables.source).create_checkpoint()
    for version in range(3):
        cloud.rm(f"{tables.source}/_delta_log/{version:020d}.json")
    assert code_of(lambda: tables.run(model))[0] == "source-gap"
    said: list[str] = []
    tables.run(model, on_gap="skip", said=said)
    assert tables.ids() == [*range(10), *range(30, 40)]
    assert "versions 1 to 2 are not in the log any more; skipped" in said[0]


@pytest.mark.parametrize("commits", [0, 1, 3])
def test_a_source_that_is_replaced_while_it_waits_is_refused(
    tables: Any, model: Model, cloud: Any, commits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace() -> None:
        cloud.rm(tables.source, recursive=True)
        for _ in range(commits):
            tables.add()

    monkeypatch.setattr(follow, "LOOK_AGAIN", 0.0)
    monkeypatch.setattr(follow, "SHARE", 0)
    tables.add()
    tables.add()
    assert code_of(lambda: tables.run(model, replace, idle=3))[0] == "source-replaced"
    tables.check(20)


def test_status_tells_of_tables_there(tables: Any, package: Path, model: Model, command: list[str]) -> None:
    tables.add()
    tables.run(model)
    tables.add()
    line = [*command, str(package), "--from", tables.source, "--to", tables.output, "--status"]
    told = json.loads(subprocess.run([*line, "--json"], capture_output=True, check=True).stdout)
    assert told["backlog"] == {"versions": 1, "files": 1, "rows": 10}
    assert 0 < told["lag_seconds"] < 600
    assert told["same_package"] is True
    assert f"source   {tables.source}: version 1" in subprocess.run(line, capture_output=True, text=True).stdout


def test_of_two_streams_that_start_from_one_position_one_commits(
    tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.add()
    tables.run(model)
    tables.add()
    racing(monkeypatch, lambda: tables.run(model))
    done = tables.run(model, tables.add)
    assert (done.conflicts, done.rows) == (1, 10)
    tables.check(30)
    assert below(tables.output) == listed(tables, tables.output)  # the loser took its file away


def test_two_new_streams_make_one_output(tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.add()
    racing(monkeypatch, lambda: tables.run(model))
    tables.run(model)
    tables.check(10)


def test_what_others_do_to_the_output_is_no_conflict(
    tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        tables.add()
    tables.run(model, max_rows=1)
    tables.add()
    theirs = pa.table({"id": [100], "x": [0.0], "score": [0.0]})

    def others() -> None:
        write_deltalake(tables.output, theirs, mode="append", storage_options=OPTIONS)
        tables.table(tables.output).optimize.compact()

    racing(monkeypatch, others)
    assert tables.run(model).conflicts == 0
    assert tables.ids() == [*range(40), 100]


def test_commits_are_written_on_condition_that_there_is_none_of_their_number(
    tables: Any, model: Model, s3_server: Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What exactly once rests on, whatever the environment says of the ways before it."""
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")
    tables.add()
    tables.run(model, tables.add)
    commits = [one for one in s3_server.requests() if one.startswith(f"PUT /{bucket}/lake/output/_delta_log/")]
    log = f"PUT /{bucket}/lake/output/_delta_log"
    assert commits == [f"{log}/{version:020d}.json  *" for version in range(3)]


def test_writers_at_once_make_a_version_each(tables: Any) -> None:
    def work() -> None:
        for _ in range(4):
            write_deltalake(tables.output, pa.table({"id": [1]}), mode="append", storage_options=OPTIONS)

    work()
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = tables.table(tables.output)
    assert (found.version(), found.to_pyarrow_table().num_rows) == (15, 16)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_commit_whose_answer_is_lost_is_there_once(
    tables: Any, model: Model, s3_server: Server, bucket: str, version: int
) -> None:
    tables.add()
    tables.add()
    s3_server.lose(f"PUT /{bucket}/lake/output/_delta_log/{version:020d}.json")
    tables.run(model, max_rows=1, idle=5)
    assert not s3_server.is_to_lose()
    tables.check(20)
    tables.run(model)
    tables.check(20)
    assert below(tables.output) == listed(tables, tables.output)


def test_a_service_that_lets_nobody_in_ends_the_stream_which_goes_on_later(
    tables: Any, model: Model, s3_server: Server
) -> None:
    tables.add()
    tables.run(model)
    tables.add()
    with s3_server.denied():
        code, text = code_of(lambda: tables.run(model))
        assert code == "file-unreachable" and "access is denied" in text
        assert SECRET not in text and "somebody" not in text
    with contextlib.ExitStack() as until:
        code, text = code_of(lambda: tables.run(model, lambda: until.enter_context(s3_server.denied())))
    assert code == "file-unreachable" and "access is denied" in text
    assert SECRET not in text and "somebody" not in text
    tables.add()
    tables.run(model)
    tables.check(30)


def test_a_wrong_bucket_is_said(tables: Any, model: Model) -> None:
    tables.add()
    source = tables.source
    tables.source = "s3://no-such-bucket-here/source"
    code, text = code_of(lambda: tables.run(model))
    assert code in ("table-missing", "table-unreadable") and "no-such-bucket-here" in text
    tables.source, tables.output = source, "s3://no-such-bucket-here/output"
    code, text = code_of(lambda: tables.run(model))
    assert code == "output-unwritable" and "there is no such" in text
    tables.output = f"s3://key:{SECRET}@bucket/output"
    code, text = code_of(lambda: tables.run(model))
    assert code == "url-secret" and SECRET not in text
    tables.output = "gs://bucket/output"
    assert code_of(lambda: tables.run(model))[0] == "table-location"


def test_another_engine_does_not_follow_tables_there(tables: Any, package: Path, command: list[str]) -> None:
    line = [*command, str(package), "--from", tables.source, "--to", tables.output, "--engine", "spark"]
    done = subprocess.run(line, capture_output=True)
    assert done.returncode == 2 and b"[engine-unsupported]" in done.stderr


@pytest.mark.slow
def test_two_processes_at_once_write_each_row_once(tables: Any, start: Any) -> None:
    for _ in range(6):
        tables.add()
    for process in [start("--once", "--max-rows-per-commit", "1", "--on-error", tables.rejects) for _ in range(2)]:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    tables.check(60)
    assert below(tables.output) == listed(tables, tables.output)


@pytest.mark.parametrize("start", [None, 0])
def test_deletion_vectors_are_read_there(
    tables: Any, model: Model, cloud: Any, tmp_path: Path, start: int | None
) -> None:
    with zipfile.ZipFile(Path(__file__).with_name("tables_of_sail.zip")) as archive:
        archive.extractall(tmp_path)
    tables.source = f"{tables.source}-of-sail"
    cloud.put(f"{tmp_path / 'vectors'}/", f"{tables.source}/", recursive=True)
    tables.run(model, changes="append", from_version=start)
    assert tables.ids() == ([1, 2, 3, 4] if start == 0 else [1, 3, 4])
