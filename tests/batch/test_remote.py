"""Files behind URLs: over HTTP against a server that speaks S3, and in memory."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from s3_server import OPTIONS, SECRET

from modelpack.errors import InputError, ModelpackError, SaveError, UsageError
from modelpack.model import Model
from modelpack_server.batch import Options, predict_files
from modelpack_server.delta.history import When

Write = Callable[[pa.Table, Path], Path]
Read = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture(params=["s3", "memory"])
def place(request: pytest.FixtureRequest) -> str:
    """The URL of an empty place: a bucket of its own, or memory."""
    name = f"b{uuid.uuid4().hex[:12]}"
    if request.param == "s3":
        request.getfixturevalue("cloud").mkdir(name)
    return f"{request.param}://{name}"


def put(url: str, data: bytes) -> None:
    with fsspec.open(url, "wb") as file:
        file.write(data)


def get(url: str) -> bytes:
    with fsspec.open(url, "rb") as file:
        data: bytes = file.read()
    return data


def below(url: str) -> list[str]:
    files, path = fsspec.url_to_fs(url)
    files.invalidate_cache()
    return sorted(name.removeprefix(path).lstrip("/") for name in files.find(path))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "arrow", "csv.gz"])
def test_a_file_behind_a_url_gives_what_the_local_one_gives(
    place: str, model: Model, rows: pa.Table, write: Write, tmp_path: Path, suffix: str
) -> None:
    plain = suffix.removesuffix(".gz")
    source = write(rows.slice(0, 4), tmp_path / f"in.{plain}")
    predict_files(model, [source], tmp_path / f"out.{suffix}")
    put(f"{place}/in.{plain}", source.read_bytes())
    summary = predict_files(model, [f"{place}/in.{plain}"], f"{place}/out.{suffix}")
    assert summary.outputs == [f"{place}/out.{suffix}"]
    assert get(f"{place}/out.{suffix}") == (tmp_path / f"out.{suffix}").read_bytes()


def test_folders_and_patterns_are_walked(
    place: str, model: Model, rows: pa.Table, write: Write, tmp_path: Path
) -> None:
    data = write(rows, tmp_path / "in.parquet").read_bytes()
    for name in ("in/a.parquet", "in/deep/b.parquet", "in/_SUCCESS", "in/.c.parquet", "in/notes.txt"):
        put(f"{place}/{name}", data)
    out = tmp_path / "out"
    assert predict_files(model, [f"{place}/in/"], f"{out}/").rows == 10
    assert {str(path.relative_to(out)) for path in out.rglob("*.parquet")} == {"a.parquet", "deep/b.parquet"}
    assert predict_files(model, [f"{place}/in/*.parquet"], tmp_path / "one.parquet").rows == 5


def test_a_folder_behind_a_url_is_complete_when_success_is_there(
    place: str, model: Model, rows: pa.Table, write: Write, tmp_path: Path
) -> None:
    inputs = [write(rows, tmp_path / "a.parquet"), write(rows.slice(2), tmp_path / "b.csv")]
    options = Options(where="n is not null", output_format="parquet")
    summary = predict_files(model, inputs, f"{place}/run/", options)
    assert summary.rows == 4 + 3
    assert below(f"{place}/run") == ["_SUCCESS", "_manifest.json", "a.parquet", "b.parquet"]
    manifest = json.loads(get(f"{place}/run/_manifest.json"))
    assert [(entry["file"], entry["rows"]) for entry in manifest["files"]] == [("a.parquet", 4), ("b.parquet", 3)]
    assert manifest["where"] == "n is not null"
    assert SECRET not in json.dumps(manifest)
    assert predict_files(model, inputs, f"{place}/run/", options).already
    with pytest.raises(UsageError, match="exists") as caught:
        predict_files(model, inputs[:1], f"{place}/run/", options)
    assert caught.value.code == "output-exists"


def test_a_folder_behind_a_url_goes_on_after_a_kill(
    place: str, model: Model, rows: pa.Table, write: Write, tmp_path: Path
) -> None:
    inputs = [write(rows, tmp_path / f"{name}.parquet") for name in "abc"]
    asked: list[int] = []

    def check() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_files(model, inputs, f"{place}/run/", Options(check=check))
    assert [name for name in below(f"{place}/run") if "/" not in name] == ["a.parquet", "b.parquet"]
    with pytest.raises(UsageError, match="--where is not the same") as caught:
        predict_files(model, inputs, f"{place}/run/", Options(where="n > 1"))
    assert caught.value.code == "run-changed"
    summary = predict_files(model, inputs, f"{place}/run/")
    assert (summary.resumed, summary.rows) == (2, 15)
    assert below(f"{place}/run") == ["_SUCCESS", "_manifest.json", "a.parquet", "b.parquet", "c.parquet"]
    for name in "abc":
        assert pq.read_table(pa.BufferReader(get(f"{place}/run/{name}.parquet")))["score"].null_count == 1


@pytest.mark.parametrize("count", [10, 30_000], ids=["small", "several parts"])
def test_what_fails_leaves_no_file(place: str, model: Model, tmp_path: Path, count: int) -> None:
    text = "x,n,name\n" + f"1.25,123456,{'long' * 100}\n" * count
    (tmp_path / "in.csv").write_text(text + "large,1,b\n")
    with pytest.raises(InputError, match="column 'x'"):
        predict_files(model, [tmp_path / "in.csv"], f"{place}/out.csv", Options(keep=("n", "name", "x")))
    assert below(place) == []
    if place.startswith("s3:"):
        bucket = place.removeprefix("s3://")
        assert "Uploads" not in fsspec.filesystem("s3").call_s3("list_multipart_uploads", Bucket=bucket)


def test_what_is_there_is_not_overwritten_unasked(
    place: str, model: Model, rows: pa.Table, write: Write, tmp_path: Path
) -> None:
    source = write(rows, tmp_path / "in.parquet")
    put(f"{place}/out.csv", b"mine")
    with pytest.raises(UsageError, match="exists"):
        predict_files(model, [source], f"{place}/out.csv")
    assert get(f"{place}/out.csv") == b"mine"
    predict_files(model, [source], f"{place}/out.csv", Options(overwrite=True))
    assert get(f"{place}/out.csv").startswith(b"id,x,n,name,extra,score,label\n")


def test_what_comes_up_meanwhile_is_not_overwritten(
    place: str, model: Model, rows: pa.Table, write: Write, tmp_path: Path
) -> None:
    source = write(rows, tmp_path / "in.parquet")
    with pytest.raises(UsageError, match="exists"):
        predict_files(model, [source], f"{place}/o.csv", Options(check=lambda: put(f"{place}/o.csv", b"mine")))
    assert get(f"{place}/o.csv") == b"mine"


@pytest.mark.parametrize(
    ("inputs", "output", "more", "code"),
    [
        ("{place}/gone.csv", "{tmp}/out.csv", {}, "input-missing"),
        ("{place}/in.dat", "{tmp}/out.csv", {}, "input-format"),
        ("{place}/", "{tmp}/out.csv", {}, "table-location"),
        ("{place}/table", "{tmp}/out.csv", {"input_format": "parquet"}, "input-format"),
        ("{place}/table/part/rows.csv", "{tmp}/out.csv", {}, "input-in-table"),
        ("{place}/table/*/*.csv", "{tmp}/out.csv", {}, "input-in-table"),
        ("{place}/table/part/", "{tmp}/out.csv", {}, "input-in-table"),
        ("{place}/in.csv", "{place}/in.csv", {}, "output-is-input"),
        ("{place}/in.csv", "{place}/", {}, "output-is-input"),
        ("{place}/in.csv", "{place}/out", {}, "output-format"),
        ("{place}/in.csv", "memory://out", {"output_format": "delta"}, "table-location"),
        ("{place}/in.csv", "{place}/out/", {"on_error": Path("bad.jsonl")}, "output-remote"),
        ("{place}/in.csv", "{place}/out.csv", {"on_error": Path("s3://bucket/bad.jsonl")}, "output-remote"),
        ("{place}/in.csv", "{place}/out/", {"overwrite": True}, "output-remote"),
        ("ftp://host/in.csv", "{tmp}/out.csv", {}, "url-scheme"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_scored(
    place: str, model: Model, tmp_path: Path, inputs: str, output: str, more: Any, code: str
) -> None:
    put(f"{place}/in.csv", b"x,n,name\n1,2,a\n")
    put(f"{place}/in.dat", b"x,n,name\n1,2,a\n")
    put(f"{place}/table/_delta_log/00000000000000000000.json", b"{}")
    put(f"{place}/table/part/rows.csv", b"x,n,name\n1,2,a\n")
    with pytest.raises(ModelpackError) as caught:
        predict_files(model, [inputs.format(place=place)], output.format(place=place, tmp=tmp_path), Options(**more))
    assert caught.value.code == code


@pytest.mark.usefixtures("cloud")
def test_secrets_are_in_no_message(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        predict_files(model, [f"s3://key:{SECRET}@bucket/in.csv"], tmp_path / "out.csv")
    assert (caught.value.code, SECRET in str(caught.value)) == ("url-secret", False)
    (tmp_path / "in.csv").write_text("x,n,name\n1,2,a\n")
    with pytest.raises(SaveError, match="cannot be written") as failed:
        predict_files(model, [tmp_path / "in.csv"], "s3://no-such-bucket-here/out.csv")
    assert SECRET not in str(failed.value) and "somebody" not in str(failed.value)


def test_the_command_takes_urls(cloud: Any, package: Path, run: Any, tmp_path: Path) -> None:
    env = dict(os.environ)
    cloud.mkdir("commands")
    (tmp_path / "in.csv").write_text("x\n1\n2\n")
    up = run(package, "-i", "in.csv", "-o", "s3://commands/out.parquet", "--json", env=env)
    assert (up.returncode, json.loads(up.stdout)["outputs"]) == (0, ["s3://commands/out.parquet"])
    down = run(package, "-i", "s3://commands/out.parquet", "-o", "-", "--keep", "score", "--where", "x > 1", env=env)
    assert down.stdout == b'{"score":4.0,"score_prediction":4.0}\n', down.stderr


@pytest.fixture
def table(bucket: str) -> str:
    """The URL of a table with two versions, in a bucket of its own."""
    url = f"s3://{bucket}/lake/flats"
    for first in (0, 4):
        ids = list(range(first, first + 4))
        columns = {"id": ids, "x": [None if i == 2 else i / 2 for i in ids], "n": ids, "name": ["a"] * 4}
        rows = pa.table({**columns, "part": [f"k {i % 2}" for i in ids]})
        write_deltalake(url, rows, mode="append", partition_by=["part"], storage_options=OPTIONS)
    return url


def test_a_table_behind_a_url_gives_what_it_gives_here(table: str, cloud: Any, model: Model, tmp_path: Path) -> None:
    cloud.get(table, f"{tmp_path}/flats", recursive=True)
    for number, more in enumerate([{}, {"where": "part = 'k 1' and id > 1"}, {"when": When(version=0)}]):
        options = Options(keep=("id", "part"), **more)
        there = predict_files(model, [table], tmp_path / f"there-{number}.csv", options)
        predict_files(model, [tmp_path / "flats"], tmp_path / f"here-{number}.csv", options)
        assert there.rows == [8, 3, 4][number]
        assert (tmp_path / f"there-{number}.csv").read_bytes() == (tmp_path / f"here-{number}.csv").read_bytes()

    folder = predict_files(model, [f"{table}/"], f"{table.removesuffix('/lake/flats')}/scores/", Options())
    assert (folder.rows, folder.files) == (8, 4)
    told = json.loads(get(f"{table.removesuffix('/lake/flats')}/scores/_manifest.json"))
    assert {(entry["table"], entry["version"]) for entry in told["inputs"]} == {(table, 1)}


def test_a_table_behind_a_url_that_lacks_a_file_is_named(table: str, cloud: Any, model: Model, tmp_path: Path) -> None:
    gone = next(path for path in cloud.find(table) if path.endswith(".parquet"))
    cloud.rm(gone)
    with pytest.raises(InputError) as caught:
        predict_files(model, [table], tmp_path / "out.csv")
    assert (caught.value.code, caught.value.path) == ("table-file-missing", f"s3://{gone}")
    with pytest.raises(UsageError) as missing:
        predict_files(model, [table], tmp_path / "out.csv", Options(when=When(version=7)))
    assert missing.value.code == "table-version"
    put(f"{table}/_delta_log/00000000000000000001.json", b"{")
    with pytest.raises(InputError) as broken:
        predict_files(model, [table], tmp_path / "out.csv")
    assert (broken.value.code, SECRET in str(broken.value)) == ("table-unreadable", False)
    assert list(tmp_path.iterdir()) == []


def test_tables_of_this_file_system_are_still_found(model: Model, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", pa.table({"x": [1.0], "n": [1], "name": ["a"]}))
    assert predict_files(model, [(tmp_path / "t").as_uri()], tmp_path / "out.csv").rows == 1
