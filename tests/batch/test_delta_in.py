"""Delta tables as inputs: the rows of one version, whatever lies around in the directory."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from modelpack.errors import InputError, ModelpackError, UsageError
from modelpack.model import Model
from modelpack_server.batch import Options, make, predict_files
from modelpack_server.batch.chunks import Wanted
from modelpack_server.batch.inputs import find
from modelpack_server.batch.readers import read as read_chunks
from modelpack_server.delta.history import When

Read = Callable[[Path], list[dict[str, Any]]]
AddVector = Callable[[Path, list[int]], None]


def block(first: int, count: int = 3) -> pa.Table:
    """Return rows with ids from ``first`` on."""
    ids = list(range(first, first + count))
    days = [dt.date(2024, 1, 1 + i % 2) for i in ids]
    return pa.table({"id": ids, "x": [i / 2 for i in ids], "n": ids, "name": [f"row {i}" for i in ids], "day": days})


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of four versions: two appends, a third that replaces one row of each file, and an optimisation."""
    root = tmp_path / "features"
    write_deltalake(root, block(0))
    write_deltalake(root, block(3), mode="append")
    DeltaTable(root).delete("id = 1")
    DeltaTable(root).optimize.compact()
    return root


def ids(path: Path, read: Read) -> list[int]:
    return sorted(row["id"] for row in read(path))


def test_only_the_rows_of_the_version_are_scored(table: Path, model: Model, read: Read, tmp_path: Path) -> None:
    assert len(list(table.glob("*.parquet"))) > len(DeltaTable(table).file_uris())
    summary = predict_files(model, [table], tmp_path / "out.parquet")
    assert summary.rows == 5
    assert ids(tmp_path / "out.parquet", read) == [0, 2, 3, 4, 5]
    assert all(row["score"] == row["id"] for row in read(tmp_path / "out.parquet"))


@pytest.mark.parametrize(("version", "expected"), [(0, [0, 1, 2]), (1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 3, 4, 5])])
def test_an_older_version(
    version: int, expected: list[int], table: Path, model: Model, read: Read, tmp_path: Path
) -> None:
    predict_files(model, [table], tmp_path / "out.jsonl", Options(when=When(version=version)))
    assert ids(tmp_path / "out.jsonl", read) == expected


def test_a_time_means_the_last_version_up_to_it_as_the_commits_tell(table: Path, tmp_path: Path) -> None:
    stamps = {entry["version"]: entry["timestamp"] for entry in DeltaTable(table).history()}
    for commit in (table / "_delta_log").glob("*.json"):
        os.utime(commit, (0, 0))  # a copy has other times of files

    def at(stamp: float) -> int:
        sources = find([table], None, When(time=dt.datetime.fromtimestamp(stamp / 1000, dt.UTC)))
        assert sources[0].table is not None
        return sources[0].table.version

    assert [at(stamps[version]) for version in range(4)] == list(range(4))
    assert at(stamps[1] + 0.5) == 1
    assert at(stamps[3] + 1e9) == 3
    with pytest.raises(UsageError, match=r"is known since .* which is later than that") as caught:
        at(stamps[0] - 1)
    assert caught.value.code == "table-version"


def test_a_commit_that_says_nothing_of_itself_makes_no_time_another_version(table: Path) -> None:
    stamps = {entry["version"]: entry["timestamp"] for entry in DeltaTable(table).history()}
    silent = table / "_delta_log" / f"{2:020d}.json"
    lines = [line for line in silent.read_text().splitlines() if "commitInfo" not in json.loads(line)]
    silent.write_text("\n".join(lines))

    with pytest.raises(InputError, match="do not say their time") as caught:
        find([table], None, When(time=dt.datetime.fromtimestamp(stamps[1] / 1000, dt.UTC)))
    assert caught.value.code == "table-unreadable"


def test_a_directory_and_a_pattern_take_tables_as_tables(
    table: Path, model: Model, read: Read, tmp_path: Path, write: Callable[[pa.Table, Path], Path]
) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    table.rename(folder / "features")
    write(block(100), folder / "more.parquet")
    for number, given in enumerate([folder, f"{folder}/*", f"{folder}/**"]):
        out = tmp_path / f"{number}.jsonl"
        predict_files(model, [given], out)
        assert ids(out, read) == [0, 2, 3, 4, 5, 100, 101, 102]


def test_columns_are_pruned_and_partitions_have_their_types(tmp_path: Path) -> None:
    root = tmp_path / "t"
    columns = {
        "x": pa.array([1.0, 2.0]),
        "unused": pa.array(["a", "b"]),
        "day": pa.array([dt.date(2024, 2, 29), None]),
        "at": pa.array([dt.datetime(2024, 2, 29, 1, 2, 3, 456, tzinfo=dt.UTC), None], pa.timestamp("us", "UTC")),
        "price": pa.array([Decimal("1.50"), None], pa.decimal128(5, 2)),
        "yes": pa.array([True, None]),
        "small": pa.array([-3, None], pa.int8()),
        "word": pa.array(["a b/ü=%20", None]),
    }
    names = ["day", "at", "price", "yes", "small", "word"]
    write_deltalake(root, pa.table(columns), partition_by=names)
    found = []
    for source in find([root]):
        for chunk in read_chunks(source, Wanted(inputs=["x"], keep=names), 100):
            assert isinstance(chunk.data, pa.Table)
            assert "unused" not in chunk.data.column_names
            assert all(chunk.data.schema.field(name).type == columns[name].type for name in names)
            found += chunk.data.to_pylist()
    expected = [{name: columns[name][i].as_py() for name in ["x", *names]} for i in range(2)]
    assert sorted(found, key=lambda row: row["x"]) == expected


def test_columns_that_came_later_are_missing_in_older_files(tmp_path: Path, model: Model, read: Read) -> None:
    root = tmp_path / "t"
    write_deltalake(root, block(0).drop_columns(["n"]))
    write_deltalake(root, block(3), mode="append", schema_mode="merge")
    predict_files(model, [root], tmp_path / "out.parquet", Options(keep=("id", "n")))
    assert {row["id"]: row["n"] for row in read(tmp_path / "out.parquet")} == {
        0: None, 1: None, 2: None, 3: 3, 4: 4, 5: 5,
    }  # fmt: skip


def test_a_table_without_rows_gives_an_output_with_columns(tmp_path: Path, model: Model) -> None:
    DeltaTable.create(tmp_path / "t", schema=block(0).schema)
    assert predict_files(model, [tmp_path / "t"], tmp_path / "out.parquet").rows == 0
    assert pq.read_schema(tmp_path / "out.parquet").names == ["id", "x", "n", "name", "day", "score", "label"]


def test_a_folder_gets_a_file_for_each_file_of_the_table(table: Path, model: Model, tmp_path: Path) -> None:
    plan = make([table], f"{tmp_path}/out/", Options(when=When(version=1)))
    assert [Path(path).name for path in plan.outputs] == ["features-00000.parquet", "features-00001.parquet"]


def test_deleted_rows_of_a_deletion_vector_are_left_out(
    tmp_path: Path, model: Model, read: Read, add_vector: AddVector
) -> None:
    root = tmp_path / "t"
    write_deltalake(root, block(0, 10))
    add_vector(root, [1, 2, 9])
    predict_files(model, [root], tmp_path / "out.jsonl", Options(batch_size=4))
    assert ids(tmp_path / "out.jsonl", read) == [0, 3, 4, 5, 6, 7, 8]


def test_rows_are_numbered_as_in_their_file(tmp_path: Path, model: Model, add_vector: AddVector) -> None:
    root = tmp_path / "t"
    write_deltalake(root, block(0, 10).set_column(1, "x", [["oops"] * 10]))
    add_vector(root, [0, 1])
    with pytest.raises(InputError, match=r"t/part-.*\.parquet, row 3, column 'x'") as caught:
        predict_files(model, [root], tmp_path / "out.jsonl")
    assert caught.value.faults[0].row == 3


def mapped(root: Path) -> None:
    commit = root / "_delta_log" / f"{0:020d}.json"
    plain = commit.read_text()
    commit.write_text(plain.replace('"configuration":{}', '"configuration":{"delta.columnMapping.mode":"name"}'))
    assert commit.read_text() != plain


def vacuumed(root: Path) -> None:
    next(root.glob("*.parquet")).unlink()


def torn(root: Path) -> None:
    (root / "_delta_log" / f"{0:020d}.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (mapped, "table-unsupported", "maps its columns to other names"),
        (vacuumed, "table-file-missing", "is gone, though version 0 of the table has it"),
        (torn, "table-unreadable", "cannot be read"),
    ],
)
def test_what_cannot_be_read_rightly_is_refused(
    spoil: Callable[[Path], None], code: str, words: str, tmp_path: Path, model: Model
) -> None:
    root = tmp_path / "t"
    write_deltalake(root, block(0))
    spoil(root)
    with pytest.raises(ModelpackError, match=words) as caught:
        predict_files(model, [root], tmp_path / "out.jsonl")
    assert caught.value.code == code
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("given", "options", "code"),
    [
        (["features"], {"when": When(version=9)}, "table-version"),
        (["rows.csv"], {"when": When(version=0)}, "table-version"),
        (["features", "other"], {"when": When(version=0)}, "table-version"),
        (["features"], {"input_format": "parquet"}, "input-format"),
        (["features/*.parquet"], {}, "input-in-table"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    given: list[str], options: dict[str, Any], code: str, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)
    write_deltalake("other", block(0))
    Path("rows.csv").write_text("x\n")
    with pytest.raises(UsageError) as caught:
        make(given, "out.jsonl", Options(**options))
    assert caught.value.code == code


def test_a_file_of_a_table_is_read_as_it_is_when_the_format_is_said(table: Path, tmp_path: Path) -> None:
    assert len(make([f"{table}/*.parquet"], "-", Options(input_format="parquet")).sources) >= 3


@pytest.mark.parametrize("more", [{"version": 0, "time": dt.datetime.now(dt.UTC)}, {"time": dt.datetime(2024, 1, 1)}])
def test_a_version_is_said_in_one_clear_way(more: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        When(**more)
    assert caught.value.code == "table-version"
