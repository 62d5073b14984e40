"""Files of a source that are laid out otherwise than the table is now: each is read as it was written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deletion import vector
from deltalake import DeltaTable, write_deltalake

from modelpack.errors import InputError, ModelpackError
from modelpack.model import Model
from modelpack_server.batch import Options, predict_files
from modelpack_server.stream import Options as StreamOptions
from modelpack_server.stream.follow import Follower

NAME_MODE = {"delta.columnMapping.mode": "name"}
PLAIN = {"minReaderVersion": 1, "minWriterVersion": 2}
MAPPED = {
    "minReaderVersion": 3,
    "minWriterVersion": 7,
    "readerFeatures": ["columnMapping"],
    "writerFeatures": ["columnMapping"],
}


def commit(root: Path, version: int, *actions: dict[str, Any]) -> None:
    """Write a commit by hand."""
    log = root / "_delta_log"
    log.mkdir(parents=True, exist_ok=True)
    (log / f"{version:020d}.json").write_text("".join(json.dumps(action) + "\n" for action in actions))


def metadata(names: Mapping[str, tuple[str, str]], configuration: Mapping[str, str] = NAME_MODE) -> dict[str, Any]:
    """Return the metadata of a table, of columns by their names: their types, and what they are called inside."""
    fields = [
        {
            "name": name,
            "type": kind,
            "nullable": True,
            "metadata": {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": inner},
        }
        for number, (name, (kind, inner)) in enumerate(names.items(), 1)
    ]
    schema = json.dumps({"type": "struct", "fields": fields})
    return {
        "metaData": {
            "id": "a-table",
            "format": {"provider": "parquet", "options": {}},
            "schemaString": schema,
            "partitionColumns": [],
            "configuration": dict(configuration),
        }
    }


def added(root: Path, name: str, **columns: Any) -> dict[str, Any]:
    """Write a data file, and return the action that adds it."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return {
        "add": {
            "path": name,
            "partitionValues": {},
            "size": path.stat().st_size,
            "modificationTime": 0,
            "dataChange": True,
            "stats": json.dumps({"numRecords": pq.read_metadata(path).num_rows}),
        }
    }


LONG, DOUBLE = "long", "double"
FIRST = {"id": (LONG, "c1"), "x": (DOUBLE, "c2"), "y": (DOUBLE, "c3")}


@pytest.fixture
def swapped(tables: Any) -> Callable[[], None]:
    """Begin a table of three columns with one row, and return what swaps the names of two and adds another row."""
    first = added(tables.source, "1.parquet", c1=[1], c2=[1.0], c3=[100.0])
    commit(tables.source, 0, {"protocol": MAPPED}, metadata(FIRST), first)

    def swap() -> None:
        names = {"id": (LONG, "c1"), "x": (DOUBLE, "c3"), "y": (DOUBLE, "c2")}
        commit(tables.source, 1, metadata(names))
        commit(tables.source, 2, added(tables.source, "2.parquet", c1=[2], c2=[2.0], c3=[200.0]))

    return swap


def code_of(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(ModelpackError) as caught:
        call()
    return caught.value.code, str(caught.value)


class TestNames:
    def test_a_name_that_stands_for_another_column_stops_a_stream(
        self, tables: Any, model: Model, swapped: Callable[[], None]
    ) -> None:
        code, said = code_of(lambda: tables.run(model, swapped, keep=("id",)))
        assert code == "source-columns" and "'x' was double and is another column from version 1 on" in said
        assert tables.scored() == [{"id": 1, "score": 2.0}]
        tables.run(model, keep=("id",))
        assert tables.scored() == [{"id": 1, "score": 2.0}, {"id": 2, "score": 400.0}]

    def test_rows_from_before_a_swap_are_read_by_the_names_of_their_time(
        self, tables: Any, model: Model, swapped: Callable[[], None]
    ) -> None:
        swapped()
        code, _ = code_of(lambda: tables.run(model, keep=("id",), from_version=0))
        assert code == "source-columns"
        assert tables.scored() == [{"id": 1, "score": 2.0}]

    def test_a_column_that_went_and_came_again_is_another_one(self, tables: Any, model: Model) -> None:
        first = added(tables.source, "1.parquet", c1=[1], c2=[1.0], c3=[100.0])
        commit(tables.source, 0, {"protocol": MAPPED}, metadata(FIRST), first)
        tables.run(model, keep=("id",))
        commit(tables.source, 1, added(tables.source, "2.parquet", c1=[2], c2=[2.0], c3=[200.0]))
        commit(tables.source, 2, metadata({"id": (LONG, "c1"), "y": (DOUBLE, "c3")}))
        commit(tables.source, 3, metadata({"id": (LONG, "c1"), "y": (DOUBLE, "c3"), "x": (DOUBLE, "c4")}))
        code, said = code_of(lambda: tables.run(model, keep=("id",)))
        assert code == "source-columns" and "is gone from version 2 on" in said
        assert tables.scored() == [{"id": 1, "score": 2.0}, {"id": 2, "score": 4.0}]

    def test_what_is_before_a_column_that_went_is_scored_first(self, tables: Any, model: Model) -> None:
        first = added(tables.source, "1.parquet", c1=[1], c2=[1.0], c3=[100.0])
        commit(tables.source, 0, {"protocol": MAPPED}, metadata(FIRST), first)
        tables.run(model)
        commit(tables.source, 1, added(tables.source, "2.parquet", c1=[2], c2=[2.0], c3=[200.0]))
        commit(tables.source, 2, metadata({"id": (LONG, "c1"), "y": (DOUBLE, "c3")}))
        code, said = code_of(lambda: tables.run(model))
        assert code == "source-columns" and "'x' was double and is gone from version 2 on" in said
        assert tables.ids() == [1, 2]
        code, said = code_of(lambda: tables.run(model))
        assert code == "column-missing" and "'x'" in said


def write(tables: Any, rows: Mapping[str, Sequence[Any]], partition: list[str] | None, **more: Any) -> None:
    write_deltalake(tables.source, pa.table(dict(rows)), partition_by=partition, **more)


class TestPartitions:
    @pytest.mark.parametrize(("before", "behind"), [(None, ["p"]), (["p"], None), (["p"], ["q"])])
    @pytest.mark.parametrize("while_it_runs", [True, False])
    def test_files_from_before_a_table_was_partitioned_otherwise_have_their_values(
        self, tables: Any, model: Model, before: list[str] | None, behind: list[str] | None, while_it_runs: bool
    ) -> None:
        more: dict[str, Any] = {"mode": "overwrite", "schema_mode": "overwrite"}
        steps = [
            lambda: write(tables, {"id": [2], "x": [2.0], "p": ["b"], "q": ["v"]}, before, mode="append"),
            lambda: write(tables, {"id": [3], "x": [3.0], "p": ["c"], "q": ["w"]}, behind, **more),
        ]
        write(tables, {"id": [1], "x": [1.0], "p": ["a"], "q": ["u"]}, before)
        keep = ("id", "p", "q")
        if while_it_runs:
            tables.run(model, lambda: [step() for step in steps], keep=keep, changes="append")
        else:
            tables.run(model, keep=keep, changes="append")
            for step in steps:
                step()
            tables.run(model, keep=keep, changes="append")
        found = [(row["id"], row["p"], row["q"], row["score"]) for row in tables.scored()]
        assert found == [(1, "a", "u", 2.0), (2, "b", "v", 4.0), (3, "c", "w", 6.0)]

    def test_rows_that_went_with_the_old_partitions_are_removed(self, tables: Any, model: Model) -> None:
        feed = {"configuration": {"delta.enableChangeDataFeed": "true"}}
        write(tables, {"id": [1], "x": [1.0], "p": ["a"]}, None, **feed)
        write(tables, {"id": [2], "x": [2.0], "p": ["b"]}, None, mode="append")
        options = {"changes": "upsert", "key": ("p",), "keep": ("id", "p")}
        tables.run(model, **options)
        more: dict[str, Any] = {"mode": "overwrite", "schema_mode": "overwrite", **feed}
        write(tables, {"id": [3], "x": [3.0], "p": ["c"]}, ["p"], **more)
        tables.run(model, **options)
        assert [(row["id"], row["p"]) for row in tables.scored()] == [(3, "c")]


def test_a_deletion_vector_is_that_of_its_own_file(tmp_path: Path, model: Model) -> None:
    for number, (one, other) in enumerate([("1.parquet", "11.parquet"), ("f.parquet", "d/f.parquet")]):
        root = tmp_path / f"{number}" / "d"
        protocol = {
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": ["deletionVectors"],
            "writerFeatures": ["deletionVectors"],
        }
        whole = added(root, one, id=[1, 2], x=[1.0, 2.0])
        marked = added(root, other, id=[11, 12], x=[1.0, 2.0])
        marked["add"]["deletionVector"] = vector([0])
        columns = {"id": (LONG, "id"), "x": (DOUBLE, "x")}
        commit(root, 0, {"protocol": protocol}, metadata(columns, {}), whole, marked)
        out = tmp_path / f"{number}.jsonl"
        predict_files(model, [root], out, Options(keep=("id",)))
        assert sorted(json.loads(line)["id"] for line in out.read_text().splitlines()) == [1, 2, 12]


def test_features_that_are_read_are_read_from_the_start_too(tables: Any, model: Model) -> None:
    features = ["typeWidening", "vacuumProtocolCheck"]
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}
    columns = {"id": (LONG, "id"), "x": (DOUBLE, "x")}
    first = added(tables.source, "1.parquet", id=[1], x=[1.0])
    commit(tables.source, 0, {"protocol": protocol}, metadata(columns, {}), first)
    tables.run(model)
    assert tables.ids() == [1]


class TestCommits:
    def test_actions_that_are_null_are_none(self, tables: Any, model: Model) -> None:
        columns = {"id": (LONG, "id"), "x": (DOUBLE, "x")}
        commit(tables.source, 0, {"protocol": PLAIN, "add": None}, {**metadata(columns, {}), "commitInfo": None})
        commit(tables.source, 1, {"remove": None, **added(tables.source, "1.parquet", id=[1], x=[1.0])})
        tables.run(model, from_version=0)
        assert tables.ids() == [1]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "is empty"),
            ("\n", "is empty"),
            ('{"add":{"dataChange":true}}', "is no commit"),
            ("[]", "is no commit"),
            ("{", "is no"),
        ],
    )
    def test_what_is_none_stops_a_stream(self, tables: Any, model: Model, text: str, words: str) -> None:
        tables.add(1)

        def spoil() -> None:
            (tables.source / "_delta_log" / f"{1:020d}.json").write_text(text)

        code, said = code_of(lambda: tables.run(model, spoil))
        assert code == "table-unreadable" and words in said
        assert tables.ids() == [0]


class TestTablesThatWereSetBack:
    @pytest.fixture
    def back(self, tables: Any) -> Callable[[], None]:
        """Copy a source of three rows, and return what puts the copy in its place and adds as many rows as came."""
        tables.add(3)
        shutil.copytree(tables.source, tables.folder / "copy")

        def set_back() -> None:
            shutil.rmtree(tables.source)
            (tables.folder / "copy").rename(tables.source)
            for _ in range(3):
                tables.add(1)

        return set_back

    @pytest.mark.parametrize("while_it_runs", [True, False])
    def test_a_source_that_has_gone_on_from_there_is_another(
        self, tables: Any, model: Model, back: Callable[[], None], while_it_runs: bool
    ) -> None:
        tables.add(2)
        if not while_it_runs:
            tables.run(model)
            back()
        code, said = code_of(lambda: tables.run(model, *([back] if while_it_runs else [])))
        assert code == "source-replaced" and "has another version 1" in said
        assert tables.ids() == [0, 1, 2, 3, 4]

    def test_one_that_is_the_same_again_goes_on(self, tables: Any, model: Model) -> None:
        tables.add(3)
        tables.run(model)
        shutil.copytree(tables.source, tables.folder / "copy")
        shutil.rmtree(tables.source)
        (tables.folder / "copy").rename(tables.source)
        tables.add(2)
        tables.run(model)
        assert tables.ids() == [0, 1, 2, 3, 4]

    def test_a_position_from_before_seals_were_kept_is_taken(
        self, tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tables.add(1)
        with monkeypatch.context() as patch:
            patch.setattr(Follower, "seal", lambda self, position: 0)
            tables.run(model)
        tables.add(1)
        tables.run(model)
        assert tables.ids() == [0, 1]

    @pytest.mark.parametrize("put", [True, False])
    def test_an_output_that_goes_while_the_stream_runs_stops_it(self, tables: Any, model: Model, put: bool) -> None:
        tables.add(3)

        def remove() -> None:
            schema = DeltaTable(tables.output).schema()
            shutil.rmtree(tables.output)
            if put:
                DeltaTable.create(tables.output, schema=schema)
            tables.add(1)

        code, said = code_of(lambda: tables.run(model, remove))
        assert code == "output-replaced" and "while the stream ran" in said
        tables.run(model)
        tables.check(4)


def test_a_stream_goes_on_by_the_layout_that_another_process_has_come_to(tables: Any) -> None:
    tables.add(1)
    follower = Follower(tables.source, StreamOptions(changes="append"))
    follower.check(follower.first())
    more: dict[str, Any] = {"mode": "overwrite", "schema_mode": "overwrite"}
    write(tables, {"id": [7], "x": [7.0]}, ["id"], **more)
    write(tables, {"id": [8], "x": [8.0]}, ["id"], mode="append")
    position = type(follower.first())(version=2)
    follower.check(position)
    (piece,) = follower.gather(position).pieces
    assert piece.add.layout is not None
    assert list(piece.add.layout.partitions) == ["id"]
    with pytest.raises(InputError, match="is at version 2"):
        follower.check(type(position)(version=9))


def test_a_stream_of_spark_reads_files_as_they_were_written(tables: Any, swapped: Callable[[], None]) -> None:
    from pyspark.sql.pandas.types import from_arrow_schema

    from modelpack_server.spark.sources import Files, StreamReader

    shape = Follower(tables.source, StreamOptions()).shape
    kinds = from_arrow_schema(pa.schema([shape.schema.field(name) for name in ("id", "x")]))
    reader = StreamReader(Files(tables.source, shape, kinds), StreamOptions(changes="append"))
    first = reader.initialOffset()
    swapped()
    whole = {**first, "version": 1}
    rows = [row for file in reader.partitions(first, whole) for part in reader.read(file) for row in part.to_pylist()]
    assert rows == [{"id": 1, "x": 1.0}]
    with pytest.raises(InputError, match="'x'") as caught:
        reader.partitions(whole, {**first, "version": 3})
    assert caught.value.code == "source-columns"
    again = StreamReader(Files(tables.source, shape, kinds), StreamOptions(changes="append"))
    rows = [row for file in again.partitions(first, whole) for part in again.read(file) for row in part.to_pylist()]
    assert rows == [{"id": 1, "x": 1.0}]
