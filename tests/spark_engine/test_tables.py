"""`modelpack.spark.register`: Delta tables as a source and a sink of Spark, without Delta's jars."""

from __future__ import annotations

import datetime as dt
import pickle
import shutil
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

import modelpack.spark
from modelpack.errors import InputError, SaveError, UsageError
from modelpack_server.delta.commit import Target
from modelpack_server.delta.tables import open_table
from modelpack_server.spark.kinds import holds
from modelpack_server.spark.tables import DeltaSource

pytestmark = [
    # pyspark leaves the closing of its sockets to the collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]
NOON = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
FORMAT = "modelpack_delta"


def typed(first: int, count: int = 12) -> pa.Table:
    """Return rows of many types, with missing values in each column but the id."""
    ids = range(first, first + count)

    def some(value: Any) -> list[Any]:
        return [None if i % 5 == 0 else value(i) for i in ids]

    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "part": [f"k {i % 2}" for i in ids],
            "x": pa.array(some(lambda i: i / 3), pa.float64()),
            "small": pa.array(some(lambda i: i), pa.int8()),
            "yes": some(lambda i: i % 2 == 0),
            "text": some(lambda i: f"'ü{i}"),
            "raw": some(lambda i: b"\x00%d" % i),
            "day": some(lambda i: dt.date(2026, 1, 1 + i % 28)),
            "at": pa.array(some(lambda i: NOON + dt.timedelta(microseconds=i)), pa.timestamp("us", "UTC")),
            "local": pa.array(some(lambda i: dt.datetime(2026, 3, 8, 2, 30, i % 60)), pa.timestamp("us")),
            "money": pa.array(some(lambda i: Decimal(i) / 4), pa.decimal128(12, 2)),
            "many": pa.array(some(lambda i: [float(i), None]), pa.list_(pa.float64())),
            "both": pa.array(some(lambda i: {"a": i, "b": None}), pa.struct([("a", pa.int32()), ("b", pa.string())])),
        }
    )


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows as delta-rs reads them, by id."""
    rows: list[dict[str, Any]] = DeltaTable(path).to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: int(row["id"]))


def files_of(path: Path) -> list[str]:
    return sorted(file.name for file in path.glob("*.parquet"))


@pytest.fixture
def registered(spark: Any) -> Any:
    """The session, to which the format is known."""
    modelpack.spark.register(spark)
    return spark


def test_a_table_is_read_as_it_is_and_as_it_was_and_written_with_all_its_types(registered: Any, tmp_path: Path):
    write_deltalake(tmp_path / "in", typed(0), partition_by=["part"])
    write_deltalake(tmp_path / "in", typed(12), mode="append")
    df = registered.read.format(FORMAT).load(str(tmp_path / "in"))

    df.write.format(FORMAT).mode("append").save(str(tmp_path / "out"))

    assert [(field.name, field.dataType.simpleString()) for field in df.schema][8:10] == [
        ("at", "timestamp"), ("local", "timestamp_ntz"),
    ]  # fmt: skip
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "in")
    assert DeltaTable(tmp_path / "out").to_pyarrow_table().num_rows == 24
    before = registered.read.format(FORMAT).option("version", 0).schema("id bigint, part string")
    found = before.load(str(tmp_path / "in")).orderBy("id").collect()
    assert [tuple(row) for row in found] == [(i, f"k {i % 2}") for i in range(12)]
    before.load(str(tmp_path / "in")).write.format(FORMAT).mode("overwrite").save(str(tmp_path / "ids"))
    before.load(str(tmp_path / "in")).write.format(FORMAT).mode("overwrite").save(str(tmp_path / "ids"))
    assert [row["id"] for row in rows_of(tmp_path / "ids")] == list(range(12))


def test_a_query_reads_what_is_there_and_then_what_is_added_each_row_once(registered: Any, tmp_path: Path):
    source, sink, checkpoint = (str(tmp_path / name) for name in ("in", "out", "checkpoint"))

    def catch_up() -> None:
        rows = registered.readStream.format(FORMAT).load(source).selectExpr("id", "x * 2 AS y", "at")
        query = rows.writeStream.format(FORMAT).option("checkpointLocation", checkpoint).trigger(availableNow=True)
        query.start(sink).awaitTermination()

    write_deltalake(source, typed(0), partition_by=["part"])
    write_deltalake(source, typed(12), mode="append")
    catch_up()
    for first in (24, 36):
        write_deltalake(source, typed(first), mode="append")
    catch_up()
    catch_up()  # there is nothing to do

    found = rows_of(Path(sink))
    assert [(row["id"], row["y"], row["at"]) for row in found] == [
        (row["id"], None if row["x"] is None else row["x"] * 2, row["at"]) for row in rows_of(Path(source))
    ]
    assert len(found) == 48
    assert sorted(DeltaTable(sink).file_uris()) == sorted(str(Path(sink) / name) for name in files_of(Path(sink)))


@pytest.fixture
def sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The sink of a streaming query, called as Spark calls it; ``batch`` is what its tasks are told."""
    from pyspark.sql.types import StructType

    told = {"sql.streaming.queryId": "5f4a", "streaming.sql.batchId": "0"}
    context = SimpleNamespace(partitionId=lambda: 3, getLocalProperty=told.get)
    monkeypatch.setattr("modelpack_server.spark.sinks.TaskContext", SimpleNamespace(get=lambda: context))
    schema = StructType().add("id", "long")
    writer = DeltaSource({"path": str(tmp_path / "out")}).streamWriter(schema, overwrite=False)

    def write(batch: int, *ids: int) -> Any:
        told["streaming.sql.batchId"] = str(batch)
        return writer.write(iter([pa.record_batch([pa.array(ids, pa.int64())], names=["id"])]))

    return SimpleNamespace(writer=writer, write=write, told=told, root=tmp_path / "out")


def test_a_batch_that_is_done_again_is_not_there_twice_and_leaves_no_file(sink: Any):
    """As after a kill between the commit and Spark's own note of it; and after a kill between files and commit."""
    lost = sink.write(0, 1, 2)
    sink.writer.commit([sink.write(0, 1, 2), None], 0)
    assert not (sink.root / lost.name).exists()
    sink.writer.commit([sink.write(1, 3)], 1)
    sink.writer.commit([sink.write(1, 3)], 1)
    sink.writer.commit([sink.write(0, 1, 2)], 0)

    assert [row["id"] for row in rows_of(sink.root)] == [1, 2, 3]
    assert DeltaTable(sink.root).version() == 2
    assert len(files_of(sink.root)) == 2


def test_a_batch_that_is_done_again_leaves_what_older_versions_need(sink: Any):
    """As if another process had compacted the table, before Spark came to note that the batch is done."""
    sink.writer.commit([sink.write(0, 1, 2)], 0)
    sink.writer.commit([sink.write(1, 3)], 1)
    DeltaTable(sink.root).optimize.compact()
    sink.writer.commit([sink.write(1, 3)], 1)

    assert [row["id"] for row in rows_of(sink.root)] == [1, 2, 3]
    assert sorted(DeltaTable(sink.root, version=2).to_pyarrow_table()["id"].to_pylist()) == [1, 2, 3]
    assert len(files_of(sink.root)) == 3


def test_what_others_do_behind_a_commit_takes_no_file_from_older_versions(sink: Any, monkeypatch: pytest.MonkeyPatch):
    """Another process compacts the table before lost tasks' files are looked for, and before Spark aborts."""
    commit = Target.commit

    def then_compacted(self: Target, *args: Any, **more: Any) -> None:
        commit(self, *args, **more)
        DeltaTable(sink.root).optimize.compact()

    def then_fails(self: Target, *args: Any, **more: Any) -> None:
        then_compacted(self, *args, **more)
        raise SaveError("the checkpoint failed", code="output-unwritable")

    sink.writer.commit([sink.write(0, 1, 2)], 0)
    monkeypatch.setattr(Target, "commit", then_compacted)
    lost, written = sink.write(1, 3), sink.write(1, 3)
    sink.writer.commit([written], 1)
    assert [(sink.root / message.name).exists() for message in (lost, written)] == [False, True]
    monkeypatch.setattr(Target, "commit", then_fails)
    written = sink.write(2, 4)
    with pytest.raises(SaveError):
        sink.writer.commit([written], 2)
    sink.writer.abort([written], 2)

    for version, ids in [(2, [1, 2, 3]), (4, [1, 2, 3, 4]), (5, [1, 2, 3, 4])]:
        assert sorted(DeltaTable(sink.root, version=version).to_pyarrow_table()["id"].to_pylist()) == ids


def test_files_of_lost_tasks_go_where_the_driver_was_killed_behind_the_commit(
    sink: Any, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("modelpack_server.spark.sinks.Sink.remove", killed)
        lost, written = sink.write(0, 1), sink.write(0, 1)
        with pytest.raises(Killed):
            sink.writer.commit([written], 0)
    assert (sink.root / lost.name).exists()

    sink.writer.commit([sink.write(0, 1)], 0)

    assert files_of(sink.root) == [written.name]
    assert [row["id"] for row in rows_of(sink.root)] == [1]


def test_a_batch_opens_the_table_once_to_commit(sink: Any, monkeypatch: pytest.MonkeyPatch):
    sink.writer.commit([sink.write(0, 1)], 0)
    written = sink.write(1, 2)
    opened: list[Path] = []

    def counted(root: Path, version: int | None = None) -> Any:
        opened.append(root)
        return open_table(root, version)

    monkeypatch.setattr("modelpack_server.delta.commit.open_table", counted)
    sink.writer.commit([written], 1)
    assert opened == [sink.root]


def test_where_the_commit_of_a_batch_is_not_in_the_log_any_more_no_file_goes(sink: Any):
    sink.writer.commit([sink.write(0, 1)], 0)
    sink.writer.commit([sink.write(1, 2)], 1)
    DeltaTable(sink.root).create_checkpoint()
    for version in (0, 1, 2):
        (sink.root / "_delta_log" / f"{version:020d}.json").unlink()

    sink.writer.commit([sink.write(1, 2)], 1)

    assert len(files_of(sink.root)) == 3
    assert [row["id"] for row in rows_of(sink.root)] == [1, 2]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_write_of_a_batch_leaves_no_file_of_lost_tasks(overwrite: bool, tmp_path: Path):
    from pyspark.sql.types import StructType

    root, schema = tmp_path / "out", StructType().add("id", "long")
    write_deltalake(root, pa.table({"id": [0]}))

    def rows(*ids: int) -> Any:
        return iter([pa.record_batch([pa.array(ids, pa.int64())], names=["id"])])

    # Each step in a process of its own, as Spark does it.
    writer = pickle.dumps(DeltaSource({"path": str(root)}).writer(schema, overwrite=overwrite))
    lost, written = pickle.loads(writer).write(rows(1)), pickle.loads(writer).write(rows(1))
    pickle.loads(writer).commit([written, None])
    assert not (root / lost.name).exists()
    # Spark takes the commit for failed.
    pickle.loads(writer).abort([written, None])
    assert [row["id"] for row in rows_of(root)] == ([1] if overwrite else [0, 1])
    other = DeltaSource({"path": str(root)}).writer(schema, overwrite=overwrite)
    lost, written = other.write(rows(2)), other.write(rows(2))
    before = set(files_of(root)) - {lost.name, written.name}
    other.abort([written, None])
    assert set(files_of(root)) == before


def test_a_write_that_fails_before_there_is_a_table_leaves_nothing(tmp_path: Path):
    from pyspark.sql.types import StructType

    writer = DeltaSource({"path": str(tmp_path / "out")}).writer(StructType().add("id", "long"), overwrite=False)
    writer.abort([None])
    writer.write(iter([pa.record_batch([pa.array([1], pa.int64())], names=["id"])]))
    assert len(files_of(tmp_path / "out")) == 1
    writer.abort([None])
    assert files_of(tmp_path / "out") == []


def test_rows_that_must_stay_are_not_overwritten(tmp_path: Path):
    from pyspark.sql.types import StructType

    write_deltalake(tmp_path / "out", pa.table({"id": [0]}), configuration={"delta.appendOnly": "true"})
    source, schema = DeltaSource({"path": str(tmp_path / "out")}), StructType().add("id", "long")

    with pytest.raises(UsageError, match=r"takes new rows only, because of delta\.appendOnly") as caught:
        source.writer(schema, overwrite=True)
    assert caught.value.code == "table-unwritable"
    assert source.writer(schema, overwrite=False) is not None


def test_of_two_that_run_the_same_query_one_commits_a_batch(sink: Any, monkeypatch: pytest.MonkeyPatch):
    sink.writer.commit([sink.write(0, 1)], 0)
    mine, theirs = sink.write(1, 2), sink.write(1, 2)
    commit = Target.commit

    def late(self: Target, *args: Any, **more: Any) -> None:
        monkeypatch.setattr(Target, "commit", commit)
        sink.writer.commit([theirs], 1)
        commit(self, *args, **more)

    monkeypatch.setattr(Target, "commit", late)
    sink.writer.commit([mine], 1)

    assert [row["id"] for row in rows_of(sink.root)] == [1, 2]
    assert not (sink.root / mine.name).exists()


def test_what_is_in_the_table_stays_when_spark_takes_a_commit_for_failed(sink: Any, monkeypatch: pytest.MonkeyPatch):
    written = sink.write(0, 1)
    commit = Target.commit

    def fails_behind(self: Target, *args: Any, **more: Any) -> None:
        commit(self, *args, **more)
        raise SaveError("the checkpoint failed", code="output-unwritable")

    monkeypatch.setattr(Target, "commit", fails_behind)
    with pytest.raises(SaveError):
        sink.writer.commit([written], 0)
    sink.writer.abort([written, None], 0)
    other = sink.write(1, 2)
    sink.writer.abort([other], 1)

    assert [row["id"] for row in rows_of(sink.root)] == [1]
    assert files_of(sink.root) == [written.name]


def test_a_sink_that_does_not_know_its_query_writes_nothing(sink: Any):
    del sink.told["sql.streaming.queryId"]

    with pytest.raises(SaveError, match="does not tell which query") as caught:
        sink.write(0, 1)
    assert caught.value.code == "spark-query"
    assert not sink.root.exists()


def test_what_cannot_be_read_or_written_is_refused_by_name(tmp_path: Path):
    from pyspark.sql.types import StructType

    schema = StructType().add("id", "long")
    write_deltalake(tmp_path / "in", pa.table({"id": [1], "x": [0.5]}))
    path = str(tmp_path / "in")
    with pytest.raises(UsageError, match="needs a path"):
        DeltaSource({}).schema()
    with pytest.raises(UsageError, match="only append"):
        DeltaSource({"path": path}).streamWriter(schema, overwrite=True)
    with pytest.raises(UsageError, match="'first' is not the number of a version"):
        DeltaSource({"path": path, "version": "first"}).reader(schema)
    with pytest.raises(UsageError, match="'upsert' is not 'fail' or 'append'"):
        DeltaSource({"path": path, "changes": "upsert"}).streamReader(schema)
    with pytest.raises(InputError, match="no column 'y'"):
        DeltaSource({"path": path}).reader(StructType().add("y", "double"))
    reader = DeltaSource({"path": path}).reader(StructType().add("x", "double"))
    (part,) = DeltaSource({"path": path}).reader(schema).partitions()
    (tmp_path / "in" / part.add.path).unlink()
    with pytest.raises(InputError, match="is gone: the table was vacuumed"):
        list(reader.read(part))


@pytest.mark.parametrize(
    ("calls", "options", "shown"),
    [
        ("reader", {"versionAsOf": "1"}, r"'versionasof'.* called version\."),
        ("reader", {"timestampAsOf": "2026-01-31"}, r"'timestampasof'.* It has: version\."),
        ("reader", {"fromVersion": "1"}, r"a batch that is read has no option 'fromversion'"),
        ("reader", {"version": "-1"}, r"'-1' is not the number of a version"),
        ("streamReader", {"version": "1"}, r"a stream that is read has no option 'version'"),
        ("streamReader", {"startingVersion": "1"}, r"'startingversion'.* called fromVersion\."),
        ("streamReader", {"ignoreDeletes": "true"}, r"'ignoredeletes'.* It has: fromVersion, changes\."),
        ("streamReader", {"fromVersion": "-1"}, r"'-1' is not the number of a version"),
        ("streamReader", {"fromVersion": "9" * 30}, r"is not the number of a version"),
        ("writer", {"mergeSchema": "true"}, r"a batch that is written has no option 'mergeschema'.* It has none\."),
        ("streamWriter", {"fromVersion": "1"}, r"a stream that is written has no option 'fromversion'"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(calls: str, options: dict[str, str], shown: str, tmp_path: Path):
    from pyspark.sql.datasource import CaseInsensitiveDict
    from pyspark.sql.types import StructType

    write_deltalake(tmp_path / "in", pa.table({"id": [1]}))
    # As Spark hands them over; of queries, and only there, it adds two of its own.
    more = {"checkpointLocation": "/there", "queryName": "q"} if calls == "streamWriter" else {}
    source = DeltaSource(CaseInsensitiveDict({"path": str(tmp_path / "in"), **more, **options}))
    overwrite = {"overwrite": False} if calls.endswith("riter") else {}

    with pytest.raises(UsageError, match=shown) as caught:
        getattr(source, calls)(StructType().add("id", "long"), **overwrite)
    assert caught.value.code == "source-option"
    kept = {"version": "0"} if calls == "reader" else {"fromVersion": "0"} if calls == "streamReader" else {}
    source = DeltaSource(CaseInsensitiveDict({"path": str(tmp_path / "in"), **more, **kept}))
    assert getattr(source, calls)(StructType().add("id", "long"), **overwrite) is not None


def read_as(root: Path, asked: dict[str, pa.DataType]) -> Any:
    """Return what reads columns in types, as Spark asks for them with `.schema(...)`."""
    from pyspark.sql.pandas.types import from_arrow_schema

    schema = from_arrow_schema(pa.schema(list(asked.items())), prefer_timestamp_ntz=True)
    return DeltaSource({"path": str(root)}).reader(schema)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("x", pa.float32()), ("x", pa.int64()), ("id", pa.bool_()), ("id", pa.int32()), ("id", pa.float64()),
        ("id", pa.string()), ("at", pa.date32()), ("at", pa.timestamp("us")), ("local", pa.timestamp("us", "UTC")),
        ("day", pa.timestamp("us")), ("money", pa.float64()), ("money", pa.decimal128(12, 1)),
        ("money", pa.decimal128(11, 2)), ("money", pa.decimal128(12, 3)), ("text", pa.int64()), ("text", pa.binary()),
        ("raw", pa.string()), ("many", pa.list_(pa.float32())), ("many", pa.list_(pa.string())),
        ("both", pa.struct([("a", pa.int32()), ("c", pa.string())])),
        ("both", pa.struct([("a", pa.int16()), ("b", pa.string())])), ("both", pa.struct([("a", pa.int32())])),
    ],
    ids=str,
)  # fmt: skip
def test_a_column_is_not_read_as_a_type_that_would_change_its_values(name: str, asked: pa.DataType, tmp_path: Path):
    write_deltalake(tmp_path / "in", typed(0, 1))

    with pytest.raises(InputError, match=f"column '{name}' is .*, not all of which is exact as") as caught:
        read_as(tmp_path / "in", {name: asked})
    assert caught.value.code == "not-exact"


def test_a_column_is_read_as_a_type_that_has_all_its_values(tmp_path: Path):
    write_deltalake(tmp_path / "in", typed(0))
    own = {name: typed(0).schema.field(name).type for name in ("id", "yes", "at", "local", "many", "raw")}
    wider = {"money": pa.decimal128(20, 4), "both": pa.struct([("a", pa.int64()), ("b", pa.string())])}

    for small in (pa.int64(), pa.float32(), pa.float64()):
        reader = read_as(tmp_path / "in", {**own, **wider, "small": small})
        (batch,) = [batch for part in reader.partitions() for batch in reader.read(part)]
        assert batch.schema.field("small").type == small
        assert batch.to_pylist() == [
            {name: row[name] for name in batch.schema.names} for row in rows_of(tmp_path / "in")
        ]
    sure = pa.list_(pa.field("element", pa.float64(), nullable=False))
    assert (holds(own["many"], sure), holds(sure, own["many"])) == (True, False)


def test_a_missing_value_is_not_read_as_a_column_that_has_none(tmp_path: Path):
    from pyspark.sql.types import StructType

    write_deltalake(tmp_path / "in", typed(0))
    reader = DeltaSource({"path": str(tmp_path / "in")}).reader(StructType().add("x", "double", nullable=False))
    with pytest.raises(InputError, match="not exact in the type"):
        list(reader.read(reader.partitions()[0]))


def test_a_table_is_read_with_the_columns_that_it_had(tmp_path: Path):
    write_deltalake(tmp_path / "in", pa.table({"id": [1], "old": ["a"]}))
    write_deltalake(tmp_path / "in", pa.table({"id": [2], "new": [0.5]}), mode="overwrite", schema_mode="overwrite")
    source = DeltaSource({"path": str(tmp_path / "in"), "version": "0"})
    reader = source.reader(source.schema())
    assert [batch.to_pylist() for part in reader.partitions() for batch in reader.read(part)] == [
        [{"id": 1, "old": "a"}]
    ]
    with pytest.raises(UsageError, match="has no version 7"):
        DeltaSource({"path": str(tmp_path / "in"), "version": "7"}).schema()


def test_a_stream_that_begins_too_late_is_told_by_the_name_of_the_option(tmp_path: Path):
    from pyspark.sql.types import StructType

    write_deltalake(tmp_path / "in", pa.table({"id": [1]}))
    source = DeltaSource({"path": str(tmp_path / "in"), "fromVersion": "3"})
    with pytest.raises(UsageError, match="no version 3 yet; it is at 0") as caught:
        source.streamReader(StructType().add("id", "long")).initialOffset()
    assert (caught.value.code, caught.value.path) == ("version-absent", "fromVersion")


def test_a_stream_stops_at_another_table_of_the_name_and_at_deletes(tmp_path: Path):
    from pyspark.sql.types import StructType

    schema = StructType().add("id", "long")
    path = tmp_path / "in"
    write_deltalake(path, pa.table({"id": [1, 2]}))
    source = DeltaSource({"path": str(path)})
    reader = source.streamReader(schema)
    start = reader.initialOffset()
    end = reader.latestOffset()
    assert [len(list(reader.read(part))) for part in reader.partitions(start, end)] == [1]
    assert reader.latestOffset() == end
    assert list(reader.partitions(end, end)) == []
    DeltaTable(path).delete("id = 1")
    with pytest.raises(InputError, match=r"deletes or rewrites rows.*\. With the option changes set to append"):
        reader.partitions(end, reader.latestOffset())
    append = DeltaSource({"path": str(path), "changes": "append"}).streamReader(schema)
    assert append.partitions(end, append.latestOffset()) is not None
    other = tmp_path / "other"
    write_deltalake(other, pa.table({"id": [1, 2]}))
    with pytest.raises(InputError, match="is not the table"):
        DeltaSource({"path": str(other)}).streamReader(schema).partitions(start, end)


def test_a_stream_that_runs_stops_where_its_table_is_replaced_by_a_shorter_one(tmp_path: Path):
    from pyspark.sql.types import StructType

    schema = StructType().add("id", "long")
    path = tmp_path / "in"
    for number in range(3):
        write_deltalake(path, pa.table({"id": [number]}), mode="append")
    copy = shutil.copytree(path, tmp_path / "copy")
    write_deltalake(path, pa.table({"id": [3]}), mode="append")
    reader = DeltaSource({"path": str(path)}).streamReader(schema)
    start, end = reader.initialOffset(), reader.latestOffset()
    assert len(reader.partitions(start, end)) == 4

    # An older copy of the same table.
    shutil.rmtree(path)
    copy.rename(path)
    with pytest.raises(
        InputError, match=r"went back from version 3 to 2\. Begin anew, with another checkpoint"
    ) as caught:
        reader.partitions(end, reader.latestOffset())
    assert caught.value.code == "source-replaced"
    # Another table, as short as before or longer.
    for count in (1, 6):
        shutil.rmtree(path)
        for number in range(count):
            write_deltalake(path, pa.table({"id": [number]}), mode="append")
        with pytest.raises(InputError, match="is not the table that what is in the checkpoint was made from") as caught:
            reader.partitions(end, reader.latestOffset())
        assert caught.value.code == "source-replaced"
