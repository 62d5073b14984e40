"""Rows that are updated and deleted in the source are updated and deleted in the output, by their key."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

import modelpack
from modelpack.errors import InputError, UsageError
from modelpack.model import Model
from modelpack_server.delta import keys
from modelpack_server.stream import Options, status, upsert

FEED = {"delta.enableChangeDataFeed": "true"}
SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.float64())])
KEYED = {"changes": "upsert", "key": ("id",)}


@pytest.fixture
def source(tables: Any) -> Callable[[], DeltaTable]:
    """Create a source with a change data feed; each call opens it anew."""
    DeltaTable.create(tables.source, SCHEMA, configuration=FEED)
    return lambda: DeltaTable(tables.source)


def wanted(tables: Any) -> list[dict[str, Any]]:
    """Return what the output must hold: the source as delta-rs reads it, doubled."""
    rows = DeltaTable(tables.source).to_pyarrow_table().to_pylist()
    return sorted(({**row, "score": 2 * row["x"]} for row in rows), key=lambda row: str(row["id"]).zfill(12))


def put(table: DeltaTable, ids: list[int], x: float) -> None:
    """Update these rows, and insert those that are not there."""
    news = pa.table({"id": ids, "x": [x + i for i in ids]}, schema=SCHEMA)
    merge = table.merge(news, "old.id = new.id", source_alias="new", target_alias="old")
    merge.when_matched_update_all().when_not_matched_insert_all().execute()


def test_the_output_follows_inserts_updates_and_deletes(tables: Any, model: Model, source: Any) -> None:
    tables.add(8)
    done = tables.run(
        model,
        lambda: source().update(updates={"x": "x + 100"}, predicate="id = 1"),
        lambda: source().delete("id = 2"),
        lambda: put(source(), [3, 50], -1.0),
        lambda: source().optimize.compact(),
        tables.add,
        **KEYED,
    )
    assert tables.scored() == wanted(tables)
    assert len(tables.scored()) == 18
    assert (done.rows, done.deleted) == (8 + 1 + 2 + 10, 1)
    assert tables.run(model, **KEYED).commits == 0


def test_all_changes_in_one_commit_end_as_they_would_one_by_one(tables: Any, model: Model, source: Any) -> None:
    tables.add(8)
    source().update(updates={"x": "x + 100"}, predicate="id = 1")
    source().update(updates={"x": "x + 100"}, predicate="id < 3")
    source().delete("id = 2")
    put(source(), [2, 3, 50], -1.0)
    source().delete("id = 50")
    done = tables.run(model, from_version=0, max_rows=10_000, **KEYED)
    assert done.commits == 1
    assert tables.scored() == wanted(tables)
    assert sorted(tables.ids()) == list(range(8))


def test_rows_and_position_are_one_commit(tables: Any, model: Model, source: Any) -> None:
    tables.add(4)
    tables.run(model, lambda: source().update(updates={"x": "9.0"}, predicate="id = 1"), **KEYED)
    output = DeltaTable(tables.output)
    assert output.version() == 2  # created, filled, merged
    actions = [json.loads(line) for line in (tables.output / "_delta_log" / f"{2:020d}.json").read_text().splitlines()]
    kinds = [kind for action in actions for kind in action]
    assert "add" in kinds and "remove" in kinds
    moved = {action["txn"]["appId"]: action["txn"]["version"] for action in actions if "txn" in action}
    assert moved["modelpack/stream/default/version"] == 3
    assert modelpack.open(tables.folder / "pkg").digest in output.history(1)[0]["modelpack"]
    assert not list(tables.output.glob(".modelpack-*"))


def test_new_keys_are_added_without_rewriting_a_file(tables: Any, model: Model, source: Any) -> None:
    tables.add()
    tables.run(model, tables.add, tables.add, **KEYED)
    assert len(DeltaTable(tables.output).file_uris()) == 3
    names = {Path(uri).name for uri in DeltaTable(tables.output).file_uris()}
    assert {path.name for path in tables.output.glob("*.parquet")} == names


def test_a_whole_file_that_is_deleted_or_replaced_is_followed(tables: Any, model: Model, source: Any) -> None:
    """Writers leave out the change data feed where a commit only removes files, or only adds some."""
    tables.add(4)
    tables.add(4)

    def overwrite() -> None:
        write_deltalake(tables.source, pa.table({"id": [1, 6, 70], "x": [0.5, 1.5, 2.5]}), mode="overwrite")

    tables.run(model, overwrite, lambda: source().delete(), tables.add, **KEYED)
    assert tables.scored() == wanted(tables)


def test_files_are_compared_where_a_commit_has_no_feed(tables: Any, model: Model) -> None:
    """The feed was switched on later: what was rewritten before is known from the files themselves."""
    DeltaTable.create(tables.source, SCHEMA)
    tables.add(6)
    DeltaTable(tables.source).update(updates={"x": "x + 100"}, predicate="id = 1")
    DeltaTable(tables.source).delete("id = 2")
    DeltaTable(tables.source).alter.set_table_properties(FEED)
    DeltaTable(tables.source).delete("id = 3")
    tables.run(model, from_version=0, max_rows=1, **KEYED)
    assert tables.scored() == wanted(tables)


def test_without_a_feed_it_names_the_property_to_set(tables: Any, model: Model) -> None:
    tables.add()
    with pytest.raises(InputError, match=r"delta\.enableChangeDataFeed is not true") as caught:
        tables.run(model, **KEYED)
    assert caught.value.code == "feed-missing"
    DeltaTable(tables.source).alter.set_table_properties(FEED)

    def switch_off() -> None:
        DeltaTable(tables.source).alter.set_table_properties({"delta.enableChangeDataFeed": "false"})

    with pytest.raises(InputError) as caught:
        tables.run(model, switch_off, **KEYED)
    assert caught.value.code == "feed-missing"


def test_a_version_is_never_cut_in_two(tables: Any, model: Model) -> None:
    """A row that moves to another partition is deleted in one file and added in another one."""
    schema = pa.schema([("id", pa.int64()), ("x", pa.float64()), ("part", pa.string())])
    DeltaTable.create(tables.source, schema, partition_by=["part"], configuration=FEED)
    rows = pa.table({"id": [0, 1, 2, 3], "x": [0.0, 1.0, 2.0, 3.0], "part": list("aabb")}, schema=schema)
    write_deltalake(tables.source, rows, mode="append")
    tables.run(
        model,
        lambda: DeltaTable(tables.source).update(updates={"part": "'c'"}, predicate="id in (1, 2)"),
        lambda: DeltaTable(tables.source).update(updates={"part": "'a'"}, predicate="id = 3"),
        max_rows=1,
        **KEYED,
    )
    assert tables.scored() == wanted(tables)


def test_a_key_may_be_several_columns_with_odd_names(tables: Any, model: Model) -> None:
    fields = [("Id", pa.int64()), ('a "b".c', pa.string()), ("x", pa.float64()), ("modelpack action", pa.bool_())]
    schema = pa.schema(fields)
    DeltaTable.create(tables.source, schema, configuration=FEED)
    rows = [(i, name, float(i), True) for i in range(3) for name in ("p", "q", "")]
    write_deltalake(tables.source, pa.table(list(zip(*rows, strict=True)), schema=schema), mode="append")
    key = ("Id", 'a "b".c')
    quoted = '"a ""b"".c"'
    tables.run(
        model,
        lambda: DeltaTable(tables.source).update(updates={"x": "x + 10"}, predicate=f"\"Id\" = 1 and {quoted} = 'p'"),
        lambda: DeltaTable(tables.source).delete(f"{quoted} = ''"),
        changes="upsert",
        key=key,
    )
    found = {(row["Id"], row[key[1]]): row for row in tables.scored()}
    expected = DeltaTable(tables.source).to_pyarrow_table().to_pylist()
    assert len(found) == len(tables.scored()) == len(expected) == 6
    assert all(found[row["Id"], row[key[1]]] == {**row, "score": 2 * row["x"]} for row in expected)


KINDS = [
    pa.array(["a", "A", " a", "é", ""]),
    pa.array([b"a", b"\x00", b"", b"\xff", b"b"]),
    pa.array([-(2**63), -1, 0, 1, 2**63 - 1]),
    pa.array([1, 2, 3, 4, 5], pa.int8()),
    pa.array([0, 1, -1, 19000, 5], pa.date32()),
    pa.array([0, 1, -1, 2, 5], pa.timestamp("us", "UTC")),
    pa.array([0, 1, -1, 2, 5], pa.timestamp("us")),
    pa.array([Decimal("1.10"), Decimal("-1.10"), Decimal("0.00"), Decimal("9999.99"), Decimal("2.00")]),
]


@pytest.mark.parametrize("values", KINDS, ids=lambda values: str(values.type))
def test_keys_of_every_type_are_told_apart(tables: Any, model: Model, values: pa.Array) -> None:
    schema = pa.schema([("k", values.type), ("x", pa.float64())])
    DeltaTable.create(tables.source, schema, configuration=FEED)
    write_deltalake(tables.source, pa.table([values, [0.0, 1.0, 2.0, 3.0, 4.0]], schema=schema), mode="append")

    def change() -> None:
        news = pa.table([values[1:3], [10.0, 20.0]], schema=schema)
        merge = DeltaTable(tables.source).merge(news, "old.k = new.k", source_alias="new", target_alias="old")
        merge.when_matched_update_all().when_not_matched_by_source_delete("old.x = 4.0").execute()

    tables.run(model, change, changes="upsert", key=("k",))
    found = {row["k"]: row["score"] for row in tables.scored()}
    assert found == dict(zip(values.to_pylist()[:4], [0.0, 20.0, 40.0, 6.0], strict=True))


def test_all_values_of_rows_that_stay_are_left_as_they_were(tables: Any, model: Model) -> None:
    columns = {
        "f": pa.array([float("nan"), -0.0, 1e-320, float("inf"), None]),
        "list": pa.array([[1], [], None, [None], [2, 3]]),
        "struct": pa.array([{"a": 1, "b": "x"}, {"a": None, "b": None}, None, {"a": 2, "b": ""}, {"a": 3, "b": "y"}]),
        "dec": pa.array([Decimal("1.10"), None, Decimal("-0.01"), Decimal("0.00"), Decimal("5.00")]),
        "when": pa.array([0, -1, 2**50, None, 7], pa.timestamp("us")),
        "small": pa.array([1, 2, None, -128, 127], pa.int8()),
        "bytes": pa.array([b"", b"\xff", None, b"a", b"b"]),
    }
    rows = pa.table({"id": [0, 1, 2, 3, 4], "x": [0.0, 0.5, 1.0, 1.5, 2.0], **columns})
    DeltaTable.create(tables.source, rows.schema, configuration=FEED)
    write_deltalake(tables.source, rows, mode="append")
    tables.run(model, lambda: DeltaTable(tables.source).update(updates={"x": "7.0"}, predicate="id = 2"), **KEYED)
    assert repr(tables.scored()) == repr(wanted(tables))


def test_two_rows_with_one_key_in_one_version_are_refused(tables: Any, model: Model, source: Any) -> None:
    tables.add(4)
    tables.run(model, **KEYED)
    write_deltalake(tables.source, pa.table({"id": [7, 8, 7], "x": [1.0, 2.0, 3.0]}), mode="append")
    with pytest.raises(InputError, match="version 2 adds a row with the same 'id' as another one") as caught:
        tables.run(model, tables.add, **KEYED)
    assert caught.value.code == "key-repeated"
    assert tables.ids() == [0, 1, 2, 3]
    assert {path.name for path in tables.output.glob("*.parquet")} == {
        Path(uri).name for uri in DeltaTable(tables.output).file_uris()
    }
    source().delete("id = 7")  # too late: what version 2 said is not changed by what version 3 says
    with pytest.raises(InputError, match="version 2 adds a row with the same"):
        tables.run(model, **KEYED)


@pytest.mark.parametrize("max_rows", [1, 100])
@pytest.mark.parametrize("way", ["insert", "update", "refused"])
def test_a_key_that_another_row_of_the_source_has_is_refused(
    tables: Any, model: Model, source: Any, way: str, max_rows: int
) -> None:
    """The same whether the two are in one commit of the output, and also if one is deleted later."""
    options = {"max_rows": max_rows, "from_version": 0, "on_error": tables.rejects, **KEYED}
    tables.add(4)
    tables.run(model, **options) if max_rows == 1 else None
    if way == "update":
        source().update(updates={"id": "1"}, predicate="id = 2")
    else:
        row = {"id": [1], "x": [7.0 if way == "insert" else None]}
        write_deltalake(tables.source, pa.table(row, schema=SCHEMA), mode="append")
    source().delete("id = 1 and (x = 7.0 or x is null)" if way != "update" else "id = 1 and x = 0.5")
    with pytest.raises(InputError, match="version 2 adds a row with the same 'id' as another one") as caught:
        tables.run(model, **options)
    assert caught.value.code == "key-repeated"


def test_keys_that_went_may_come_again(tables: Any, model: Model, source: Any) -> None:
    def overwrite() -> None:
        write_deltalake(tables.source, pa.table({"id": [3, 1, 9], "x": [1.0, 2.0, 3.0]}), mode="overwrite")

    tables.add(6)
    steps: list[Callable[[], Any]] = [
        lambda: source().delete("id = 2"),
        lambda: put(source(), [1, 2], 5.0),
        lambda: source().update(updates={"id": "1 - id"}, predicate="id < 2"),
        lambda: source().delete("id > 3"),
        lambda: write_deltalake(tables.source, pa.table({"id": [4, 5], "x": [8.0, 9.0]}), mode="append"),
        overwrite,
        lambda: source().restore(3),
    ]
    for number in range(len(steps)):
        tables.run(model, steps[number], **KEYED)
        assert tables.scored() == wanted(tables)
    tables.output = tables.folder / "at once"
    assert tables.run(model, from_version=0, max_rows=1000, **KEYED).commits == 1
    assert tables.scored() == wanted(tables)


def test_a_new_key_replaces_rows_that_others_have_put_into_the_output(tables: Any, model: Model, source: Any) -> None:
    tables.add(4)
    tables.run(model, **KEYED)
    foreign = pa.table({"id": [1, 1, 2, 5, 5, 77], "x": [0.0] * 6, "score": [-1.0] * 6})
    write_deltalake(tables.output, foreign, mode="append")
    tables.run(
        model,
        lambda: write_deltalake(tables.source, pa.table({"id": [5], "x": [5.0]}), mode="append"),
        lambda: source().update(updates={"x": "9.0"}, predicate="id = 1"),
        lambda: source().delete("id = 2"),
        **KEYED,
    )
    assert tables.scored() == [*wanted(tables), {"id": 77, "x": 0.0, "score": -1.0}]


@pytest.mark.parametrize("gone", ["file", "log"])
def test_a_source_that_does_not_tell_any_more_repeats_no_key(tables: Any, model: Model, source: Any, gone: str) -> None:
    write_deltalake(tables.source, pa.table({"id": [0, 9], "x": [0.0, 9.0]}), mode="append")
    tables.run(model, **KEYED)
    (old,) = tables.source.glob("*.parquet")
    write_deltalake(tables.output, pa.table({"id": [5], "x": [0.0], "score": [-1.0]}), mode="append")
    write_deltalake(tables.source, pa.table({"id": [5], "x": [5.0]}), mode="append")
    source().optimize.compact()
    source().create_checkpoint()
    lost = [old] if gone == "file" else [tables.source / "_delta_log" / f"{version:020d}.json" for version in (0, 1)]
    for path in lost:
        path.unlink()
    tables.run(model, **KEYED)
    assert tables.scored() == wanted(tables)


def test_key_columns_may_be_called_like_what_is_counted(tables: Any, model: Model) -> None:
    key = ("moment", "row", "count", "number", "key1", "modelpack gone 0")
    schema = pa.schema([*((name, pa.int64()) for name in key), ("x", pa.float64())])
    DeltaTable.create(tables.source, schema, configuration=FEED)
    rows = [[i, i, i, 1, 1, 1, float(i)] for i in range(4)]
    write_deltalake(tables.source, pa.table(list(zip(*rows, strict=True)), schema=schema), mode="append")
    tables.run(
        model,
        lambda: DeltaTable(tables.source).update(updates={"x": "x + 10"}, predicate="moment = 1"),
        lambda: DeltaTable(tables.source).delete("moment = 2"),
        changes="upsert",
        key=key,
    )
    assert sorted(row["score"] for row in tables.scored()) == [0.0, 6.0, 22.0]


def test_a_row_without_a_key_is_refused(tables: Any, model: Model, source: Any) -> None:
    write_deltalake(tables.source, pa.table({"id": [1, None, None], "x": [1.0, 2.0, 3.0]}), mode="append")
    with pytest.raises(InputError, match="row 2, column 'id': a missing value in a column of the key") as caught:
        tables.run(model, **KEYED)
    assert caught.value.code == "key-null"
    options = {**KEYED, "on_error": tables.rejects}
    assert tables.run(model, lambda: source().delete("id is null"), **options).rejected == 2
    assert tables.ids() == [1]
    assert DeltaTable(tables.rejects).to_pyarrow_table().column("row").to_pylist() == [2, 3]


def test_a_row_that_does_not_fit_any_more_leaves_no_old_answer(tables: Any, model: Model, source: Any) -> None:
    tables.add(4)
    options = {**KEYED, "on_error": tables.rejects}
    done = tables.run(
        model,
        lambda: source().update(updates={"x": "null"}, predicate="id = 1"),
        lambda: source().update(updates={"x": "null"}, predicate="id = 2"),
        lambda: source().update(updates={"x": "5.0"}, predicate="id = 1"),
        **options,
    )
    assert [(row["id"], row["score"]) for row in tables.scored()] == [(0, 0.0), (1, 10.0), (3, 1.5)]
    assert done.rejected == 2


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [
        ({"changes": "upsert"}, UsageError, "option-alone"),
        ({"key": ("id",)}, UsageError, "option-alone"),
        ({"changes": "upsert", "key": ("id",), "engine": object()}, UsageError, "engine-unsupported"),
        ({"changes": "upsert", "key": ("id",), "keep": ("x",)}, UsageError, "key-not-kept"),
        ({"changes": "upsert", "key": ("nope",)}, InputError, "key-missing"),
        ({"changes": "upsert", "key": ("x",)}, InputError, "key-type"),
    ],
)
def test_keys_that_cannot_be_meant_are_refused(
    tables: Any, model: Model, source: Any, options: dict[str, Any], error: type[Exception], code: str
) -> None:
    tables.add()
    with pytest.raises(error) as caught:
        tables.run(model, **options)
    assert isinstance(caught.value, modelpack.ModelpackError) and caught.value.code == code
    assert not tables.output.exists()


def test_an_output_keeps_its_key(tables: Any, model: Model, source: Any) -> None:
    tables.add(x=[float(i) for i in range(10)], n=list(range(10)))
    tables.run(model, **KEYED)
    for options in ({"changes": "append"}, {}, {"changes": "upsert", "key": ("n",)}):
        with pytest.raises(UsageError) as caught:
            tables.run(model, **options)
        assert caught.value.code == "key-changed"


def test_an_output_of_new_rows_only_can_be_followed_by_key_from_then_on(tables: Any, model: Model, source: Any) -> None:
    class Enough(Exception):
        pass

    def stop(_: str) -> None:
        raise Enough

    tables.add()
    tables.add()
    tables.add()
    with pytest.raises(Enough):  # in the middle of the version it began with
        tables.run(model, max_rows=10, said=type("Said", (), {"append": staticmethod(stop)}))
    source().update(updates={"x": "x + 100"}, predicate="id = 1")
    tables.run(model, **KEYED)
    assert tables.scored() == wanted(tables)


def test_files_that_were_vacuumed_before_they_were_compared_are_a_gap(tables: Any, model: Model, source: Any) -> None:
    tables.add()
    tables.run(model, **KEYED)
    source().delete()
    source().vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(InputError) as caught:
        tables.run(model, **KEYED)
    assert caught.value.code == "source-gap"
    said: list[str] = []
    tables.run(model, tables.add, on_gap="skip", said=said, **KEYED)
    assert tables.ids() == list(range(20)) and any("skipped" in line for line in said)


def test_a_log_that_does_not_reach_back_is_a_gap(tables: Any, model: Model, source: Any) -> None:
    tables.add()
    tables.run(model, **KEYED)
    source().delete()
    source().create_checkpoint()
    for version in range(2):
        (tables.source / "_delta_log" / f"{version:020d}.json").unlink()
    with pytest.raises(InputError, match="does not reach back to version 1") as caught:
        tables.run(model, **KEYED)
    assert caught.value.code == "source-gap"


def racing(monkeypatch: pytest.MonkeyPatch, other: Callable[[], Any]) -> None:
    """Do something in the output after the rows were scored and looked for, and before the merge is committed."""
    left, merge = [other], upsert.merge

    def late(*args: Any) -> None:
        if left:
            left.pop()()
        merge(*args)

    monkeypatch.setattr(upsert, "merge", late)


def test_of_two_streams_one_commits_a_change(
    tables: Any, model: Model, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.add()
    tables.run(model, **KEYED)
    source().update(updates={"x": "x + 100"}, predicate="id < 5")
    source().delete("id = 7")
    racing(monkeypatch, lambda: tables.run(model, **KEYED))
    done = tables.run(model, tables.add, **KEYED)
    assert done.conflicts == 1
    assert tables.scored() == wanted(tables)


@pytest.mark.parametrize("what", ["compaction", "append", "update"])
def test_what_others_do_to_the_output_meanwhile_is_not_lost(
    tables: Any, model: Model, source: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def meddle() -> None:
        output = DeltaTable(tables.output)
        if what == "compaction":
            output.optimize.compact()
        elif what == "append":
            write_deltalake(output, pa.table({"id": [3, 99], "x": [1.0, 2.0], "score": [2.0, 4.0]}), mode="append")
        else:
            output.update(updates={"score": "-1.0"}, predicate="id = 9")

    tables.add()
    tables.run(model, tables.add, **KEYED)
    source().update(updates={"x": "x + 100"}, predicate="id < 5")
    racing(monkeypatch, meddle)
    tables.run(model, idle=3, **KEYED)
    found = [(row["id"], row["x"], row["score"]) for row in tables.scored()]
    expected = [(row["id"], row["x"], row["score"]) for row in wanted(tables)]
    if what == "append":  # the key 3 a second time, and one that the source does not have
        expected = [*expected, (99, 2.0, 4.0)]
    elif what == "update":
        expected[9] = (*expected[9][:2], -1.0)
    assert sorted(found) == expected


@pytest.mark.parametrize("setting", ["delta.dataSkippingNumIndexedCols=0", "delta.isolationLevel=WriteSerializable"])
@pytest.mark.parametrize("ids", [[20], [20, 3]])
def test_a_key_that_others_add_meanwhile_is_there_once(
    tables: Any, model: Model, source: Any, monkeypatch: pytest.MonkeyPatch, ids: list[int], setting: str
) -> None:
    """Between the look whether the output has the key, and the commit."""
    tables.add()
    tables.run(model, **KEYED)
    DeltaTable(tables.output).alter.set_table_properties(dict([setting.split("=")]))
    rows = pa.table({"id": ids, "x": [-1.0] * len(ids), "score": [-1.0] * len(ids)})
    left, found = [lambda: write_deltalake(tables.output, rows, mode="append")], keys.found

    def late(*args: Any) -> pa.Table:
        known = found(*args)
        if left:
            left.pop()()
        return known

    monkeypatch.setattr(keys, "found", late)
    put(source(), ids, 7.0)
    done = tables.run(model, idle=3, **KEYED)
    assert done.conflicts == 1
    assert tables.scored() == wanted(tables)


def test_many_rows_are_taken_as_they_come(
    tables: Any, model: Model, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelpack_server.delta.merge._MANY", 10)
    tables.add(100)
    tables.run(
        model,
        lambda: source().update(updates={"x": "x + 100"}, predicate="id < 50"),
        lambda: source().delete("id > 70"),
        batch_size=7,
        **KEYED,
    )
    assert tables.scored() == wanted(tables)


def test_a_random_history_ends_as_the_source_does(
    tables: Any, model: Model, source: Any, rng: np.random.Generator
) -> None:
    def step() -> None:
        ids = sorted({int(i) for i in rng.integers(0, 40, 6)})
        match int(rng.integers(0, 6)):
            case 0:
                source().delete(f"id in ({', '.join(map(str, ids))})")
            case 1:
                source().update(updates={"x": "x + 1"}, predicate=f"id in ({', '.join(map(str, ids))})")
            case 2:
                source().optimize.compact()
            case 3:
                source().update(updates={"id": "id + 1000"}, predicate=f"id = {ids[0]}")
            case _:
                put(source(), ids, float(rng.integers(0, 1000)))

    for _ in range(40):
        before = {row["id"] for row in DeltaTable(tables.source).to_pyarrow_table().to_pylist()}
        step()
        after = DeltaTable(tables.source).to_pyarrow_table().column("id").to_pylist()
        if len(after) != len(set(after)):  # two rows became one key: not a history with a key
            source().delete(f"id >= 1000 and id not in ({', '.join(map(str, [-1, *before]))})")
        if rng.integers(0, 3) == 0:
            tables.run(model, max_rows=int(rng.integers(1, 60)), **KEYED)
    tables.run(model, **KEYED)
    assert tables.scored() == wanted(tables)


@pytest.mark.parametrize("second", [{"job": "two", **KEYED}, {"job": "two"}])
def test_no_second_job_writes_where_one_follows(tables: Any, model: Model, source: Any, second: dict[str, Any]) -> None:
    tables.add(4)
    tables.run(model, job="one", **KEYED)
    version = DeltaTable(tables.output).version()
    with pytest.raises(UsageError, match="another job follows rows by their key") as caught:
        tables.run(model, on_error=tables.rejects, **second)
    assert caught.value.code == "output-keyed"
    assert (DeltaTable(tables.output).version(), tables.rejects.exists()) == (version, False)
    with pytest.raises(UsageError, match="another job follows"):
        status("", tables.source, tables.output, Options(job="two"))
    tables.add(4)
    tables.run(model, job="one", **KEYED)
    assert tables.scored() == wanted(tables)


@pytest.mark.parametrize("jobs", [["two"], ["one", "two"], ["two", "one", "three"]])
def test_nobody_begins_to_follow_where_others_add_rows(tables: Any, model: Model, source: Any, jobs: list[str]) -> None:
    tables.add(4)
    for job in jobs:
        tables.run(model, job=job)
    with pytest.raises(UsageError, match="another job adds rows") as caught:
        tables.run(model, job="one", **KEYED)
    assert caught.value.code == "output-keyed"
    assert len(tables.scored()) == 4 * len(jobs)
    tables.add(1)
    for job in jobs:
        tables.run(model, job=job)
    assert len(tables.scored()) == 5 * len(jobs)


@pytest.mark.parametrize("second", [KEYED, {}])
def test_of_two_jobs_that_begin_at_once_one_is_refused(
    tables: Any, model: Model, source: Any, monkeypatch: pytest.MonkeyPatch, second: dict[str, Any]
) -> None:
    tables.add(4)
    real, others = upsert.Keyed.commit, [lambda: tables.run(model, job="two", **second)]

    def late(self: Any, *args: Any) -> int:
        if others:
            others.pop()()
        return real(self, *args)

    monkeypatch.setattr(upsert.Keyed, "commit", late)
    with pytest.raises(UsageError, match="another job"):
        tables.run(model, job="one", **KEYED)
    assert tables.scored() == wanted(tables)


def test_the_status_is_that_of_a_stream_that_follows(tables: Any, model: Model, source: Any) -> None:
    tables.add(8)
    tables.run(model, **KEYED)
    source().update(updates={"x": "9.0"}, predicate="id = 1")
    found = status(model.digest, tables.source, tables.output, Options(**KEYED))
    assert (found.versions, found.files, found.rows) == (1, 1, 1)
    source().delete("id = 2")
    put(source(), [3, 50], -1.0)
    found = status(model.digest, tables.source, tables.output, Options(**KEYED))
    assert (found.versions, found.files, found.rows) == (3, 3, 3)
    for other in ({}, {"changes": "append"}, {"changes": "upsert", "key": ("x",)}):
        with pytest.raises(UsageError, match="made with another key") as caught:
            status(model.digest, tables.source, tables.output, Options(**other))
        assert caught.value.code == "key-changed"


def test_the_status_says_which_changes_are_gone(tables: Any, model: Model, source: Any) -> None:
    tables.add(8)
    tables.run(model, **KEYED)
    source().update(updates={"x": "9.0"}, predicate="id = 1")
    for path in (tables.source / "_change_data").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="vacuumed") as caught:
        status(model.digest, tables.source, tables.output, Options(**KEYED))
    assert caught.value.code == "source-gap"
    assert status(model.digest, tables.source, tables.output, Options(on_gap="skip", **KEYED)).rows == 0


@pytest.mark.slow
def test_the_command_tells_the_status_with_the_words_of_the_stream(
    tables: Any, package: Path, model: Model, source: Any, command: list[str]
) -> None:
    tables.add(8)
    tables.run(model, **KEYED)
    source().update(updates={"x": "9.0"}, predicate="id = 1")
    words = ["--from", str(tables.source), "--to", str(tables.output), "--changes", "upsert", "--key", "id"]
    line = [*command, str(package), *words, "--on-gap", "skip", "--keep", "id", "--status"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "backlog  1 rows in 1 files of 1 versions" in done.stdout
