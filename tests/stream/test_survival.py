"""What may happen to the source, to the output and to other processes, and what the stream makes of it."""

from __future__ import annotations

import functools
import json
import shutil
import struct
from collections.abc import Callable, Generator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

import modelpack
from modelpack.errors import SaveError
from modelpack.model import Model
from modelpack_server.delta.commit import Target
from modelpack_server.stream import Options, follow, status


def log(root: Path, version: int) -> Path:
    """Return the file of a commit."""
    return root / "_delta_log" / f"{version:020d}.json"


def commit(root: Path, *actions: dict[str, Any]) -> None:
    """Write the next commit by hand."""
    log(root, DeltaTable(root).version() + 1).write_text("\n".join(map(json.dumps, actions)))


def code_of(call: Callable[[], Any]) -> tuple[str, str]:
    """Return the code and the text of the error."""
    with pytest.raises(modelpack.ModelpackError) as caught:
        call()
    return caught.value.code, str(caught.value)


def test_compaction_of_the_source_gives_nothing_to_score(tables: Any, model: Model) -> None:
    for _ in range(4):
        tables.add()
    tables.run(model, lambda: DeltaTable(tables.source).optimize.compact(), tables.add)
    tables.check(50)


def test_compaction_and_vacuum_of_the_output_do_no_harm(tables: Any, model: Model) -> None:
    def compact() -> None:
        output = DeltaTable(tables.output)
        output.optimize.compact()
        output.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
        output.create_checkpoint()

    for _ in range(3):
        tables.add()
    tables.run(model, compact, tables.add, compact, tables.add, max_rows=10)
    tables.check(50)


def test_the_position_outlives_the_log_of_the_output(tables: Any, model: Model) -> None:
    for _ in range(3):
        tables.add()
    tables.run(model, max_rows=10)
    output = DeltaTable(tables.output)
    output.create_checkpoint()
    for version in range(output.version()):
        log(tables.output, version).unlink()
    tables.add()
    tables.run(model)
    tables.check(40)


@pytest.mark.parametrize("gone", [[3], [2, 3]])
def test_commits_that_were_cleaned_out_are_a_gap(tables: Any, model: Model, gone: list[int]) -> None:
    tables.add()
    tables.add()
    tables.run(model)
    for _ in range(3):
        tables.add()
    DeltaTable(tables.source).create_checkpoint()
    for version in gone:
        log(tables.source, version).unlink()
    code, text = code_of(lambda: tables.run(model))
    assert code == "source-gap" and f"no version {gone[0]} any more" in text
    said: list[str] = []
    tables.run(model, tables.add, on_gap="skip", said=said)
    lost = {10 * v + i for v in gone for i in range(10)}
    assert tables.ids() == [i for i in range(60) if i not in lost]
    assert any(f"versions {gone[0]} to {gone[-1]} are not in the log any more" in line for line in said)


def test_a_gap_up_to_the_newest_version_is_skipped_without_losing_the_next(tables: Any, model: Model) -> None:
    tables.add()
    tables.run(model)
    tables.add()
    DeltaTable(tables.source).create_checkpoint()
    tables.add()
    newest = log(tables.source, 2)
    held = newest.rename(tables.folder / newest.name)
    log(tables.source, 1).unlink()
    tables.run(model, lambda: held.rename(newest), on_gap="skip")
    assert tables.ids() == [*range(10), *range(20, 30)]


def test_a_gap_that_comes_up_while_it_waits_is_noticed(
    tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose() -> None:
        tables.add()
        DeltaTable(tables.source).create_checkpoint()
        log(tables.source, 1).unlink()

    monkeypatch.setattr(follow, "LOOK_AGAIN", 0.0)
    monkeypatch.setattr(follow, "SHARE", 0)
    tables.add()
    assert code_of(lambda: tables.run(model, lose, idle=3))[0] == "source-gap"


def test_vacuumed_files_are_a_gap(tables: Any, model: Model) -> None:
    tables.add()
    tables.run(model)
    tables.add()
    for name in DeltaTable(tables.source).get_add_actions().column("path").to_pylist():
        (tables.source / name).unlink()
    code, text = code_of(lambda: tables.run(model))
    assert code == "source-gap" and "was vacuumed before the stream came to it" in text and ".parquet" in text
    tables.run(model, tables.add, on_gap="skip")
    assert tables.ids() == [*range(10), *range(20, 30)]


def test_a_source_that_was_made_anew_is_refused(tables: Any, model: Model) -> None:
    tables.add()
    tables.run(model)
    shutil.rmtree(tables.source)
    for _ in range(3):
        tables.add()
    code, text = code_of(lambda: tables.run(model))
    assert code == "source-replaced" and "is not the table that" in text
    assert tables.ids() == list(range(10))


@pytest.mark.parametrize("commits", [0, 1, 3])
def test_a_source_that_is_replaced_while_it_waits_is_refused(tables: Any, model: Model, commits: int) -> None:
    def replace() -> None:
        shutil.rmtree(tables.source)
        for _ in range(commits):
            tables.add()

    tables.add()
    tables.add()
    assert code_of(lambda: tables.run(model, replace, idle=3))[0] == "source-replaced"
    tables.check(20)


def test_a_source_that_went_back_is_refused(tables: Any, model: Model) -> None:
    for _ in range(3):
        tables.add()
    tables.run(model)
    log(tables.source, 2).unlink()
    code, text = code_of(lambda: tables.run(model))
    assert code == "source-replaced" and "is at version 1, and was at 2 before" in text


def test_new_columns_are_not_read(tables: Any, model: Model) -> None:
    tables.add(2)
    tables.run(model, lambda: tables.add(2, extra=["a", "b"]), lambda: tables.add(2, extra=["c", None]))
    tables.check(6)
    tables.add(2, more=[1, 2])
    tables.run(model)
    tables.check(8)


def test_files_from_before_a_column_was_added_have_it_missing(tables: Any, model: Model) -> None:
    tables.add(1)
    tables.add(1, extra=["b"])
    tables.run(model, keep=("id", "extra"))
    assert [row["extra"] for row in tables.scored()] == [None, "b"]


def test_a_column_that_changes_its_type_or_goes_is_said(tables: Any, model: Model) -> None:
    def change(columns: dict[str, Any]) -> Callable[[], None]:
        return lambda: write_deltalake(tables.source, pa.table(columns), mode="overwrite", schema_mode="overwrite")

    tables.add(2)
    text = {"id": [7], "x": ["text"]}
    code, said = code_of(lambda: tables.run(model, change(text), changes="append"))
    assert code == "source-columns" and "the column 'x' was double and is string from version 1 on" in said
    code, said = code_of(lambda: tables.run(model, change(text), changes="append"))
    assert code == "type-mismatch" and "row 1, column 'x'" in said
    change({"id": [7]})()
    code, said = code_of(lambda: tables.run(model, changes="append"))
    assert code == "type-mismatch", "what was there before it went is scored first"
    code, said = code_of(lambda: tables.run(model, changes="append", job="behind", from_version=2))
    assert code == "column-missing" and "has no column 'x', which the model needs" in said


def overwrite(tables: Any, **columns: Any) -> None:
    write_deltalake(tables.source, pa.table(columns), mode="overwrite", schema_mode="overwrite")


def test_rows_from_before_a_column_changed_are_read_as_they_were(tables: Any, model: Model) -> None:
    """A digit is no number as long as it was text."""
    overwrite(tables, id=["007"], x=[1.0])
    overwrite(tables, id=[8], x=[2.0])
    code, said = code_of(lambda: tables.run(model, from_version=0, changes="append"))
    assert code == "source-columns" and "the column 'id' was string and is int64 from version 1 on" in said
    assert tables.ids() == ["007"]
    code, said = code_of(lambda: tables.run(model, changes="append"))
    assert code == "output-columns" and "has 'id' as string, here it is int64" in said


def test_text_of_an_earlier_version_is_no_number_for_the_model(tables: Any, model: Model) -> None:
    overwrite(tables, id=[1], x=["1"])
    overwrite(tables, id=[2], x=[2.0])
    code, said = code_of(lambda: tables.run(model, from_version=0, changes="append"))
    assert code == "type-mismatch" and "row 1, column 'x'" in said


def test_each_change_of_a_column_is_said_though_it_is_as_before(tables: Any, model: Model) -> None:
    overwrite(tables, x=[1.0], n=[1])
    overwrite(tables, x=[2.0], n=["2"])
    overwrite(tables, x=[3.0], n=[3])
    overwrite(tables, n=[4])
    overwrite(tables, x=[5.0], n=[5])
    options = {"from_version": 0, "changes": "append"}
    code, said = code_of(lambda: tables.run(model, keep=("n",), **options))
    assert code == "source-columns" and "the column 'n' was int64 and is string from version 1 on" in said
    code, said = code_of(lambda: status("", tables.source, tables.output, Options(changes="append")))
    assert code == "source-columns" and "the column 'n' was string and is int64 from version 2 on" in said

    tables.output = tables.folder / "other"
    code, said = code_of(lambda: tables.run(model, keep=(), **options))
    assert code == "source-columns" and "the column 'x' was double and is gone from version 3 on" in said
    assert [row["score"] for row in tables.scored()] == [2.0, 4.0, 6.0]
    code, said = code_of(lambda: tables.run(model, keep=(), changes="append"))
    assert code == "null-not-allowed"


def test_a_file_of_another_type_than_the_log_tells_is_refused_with_its_version(tables: Any, model: Model) -> None:
    """The commits that told it are not in the log any more."""
    overwrite(tables, id=["007"], x=[1.0])
    overwrite(tables, id=[8], x=[2.0])
    DeltaTable(tables.source).create_checkpoint()
    log(tables.source, 1).rename(tables.folder / "kept")
    (tables.folder / "kept").write_text(log(tables.source, 0).read_text().replace("metaData", "other"))
    log(tables.source, 0).unlink()
    (tables.folder / "kept").rename(log(tables.source, 1))
    code, said = code_of(lambda: tables.run(model, from_version=1))
    assert code == "source-columns" and "has the column 'id' as string, and the table as int64 (version 1)" in said


def rewritten(tables: Any, **columns: Any) -> None:
    """Write the one data file of the source anew, as the log does not tell."""
    (path,) = tables.source.glob("*.parquet")
    pq.write_table(pa.table(columns), path)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (pa.timestamp("us"), pa.array([1], pa.timestamp("ns"))),
        (pa.int64(), pa.array([2**63], pa.uint64())),
        (pa.decimal128(10, 1), pa.array([Decimal("1.25")], pa.decimal128(10, 2))),
    ],
)
def test_a_value_that_the_type_of_the_table_does_not_have_is_refused_with_its_column(
    tables: Any, model: Model, kind: pa.DataType, found: pa.Array
) -> None:
    overwrite(tables, id=pa.array([None], kind), x=[1.0])
    rewritten(tables, id=found, x=[1.0])
    code, said = code_of(lambda: tables.run(model))
    assert code == "file-unreadable"
    assert f"has a value in the column 'id', which is {found.type}, that the table's type {kind} does not have" in said


def test_columns_that_differ_in_case_alone_are_not_taken_for_missing(tables: Any, model: Model) -> None:
    overwrite(tables, id=[1], x=[1.0])
    rewritten(tables, ID=[1], x=[1.0])
    code, said = code_of(lambda: tables.run(model))
    assert code == "source-columns" and "has the column 'ID', and the table 'id'" in said


def test_numbers_that_were_widened_are_read_on(tables: Any, model: Model) -> None:
    overwrite(tables, id=pa.array([1], pa.int32()), x=[1.0])
    tables.add(1)  # rows of a wider column
    overwrite(tables, id=[2], x=[2.0])
    assert tables.run(model, from_version=0, changes="append").rows == 3
    assert DeltaTable(tables.output).schema().to_arrow().field("id").type == pa.int64()


def test_deletes_and_updates_end_it_unless_told_otherwise(tables: Any, model: Model) -> None:
    tables.add(4)
    tables.run(model)
    DeltaTable(tables.source).update(updates={"x": "x + 100"}, predicate="id = 1")
    code, text = code_of(lambda: tables.run(model))
    assert code == "source-changed" and "version 1 deletes or rewrites rows" in text
    DeltaTable(tables.source).delete("id = 2")
    DeltaTable(tables.source).delete("id >= 0")
    tables.run(model, tables.add, changes="append")
    # The file was rewritten twice: with the update and what it left alone, then without one row.
    assert [row["id"] for row in tables.scored()].count(1) == 3
    assert sorted(row["x"] for row in tables.scored() if row["id"] == 1) == [0.25, 100.25, 100.25]
    assert len(tables.scored()) == 4 + 4 + 3 + 10


def test_with_a_change_data_feed_only_rows_that_changed_are_scored_again(tables: Any, model: Model) -> None:
    schema = pa.schema([("id", pa.int64()), ("x", pa.float64())])
    DeltaTable.create(tables.source, schema, configuration={"delta.enableChangeDataFeed": "true"})
    tables.add(4)
    tables.add(2)
    tables.run(model)
    source = DeltaTable(tables.source)
    source.update(updates={"x": "x + 100"}, predicate="id = 1")
    source.delete("id = 2")
    news = pa.table({"id": [3, 50], "x": [-1.0, 12.5]})
    merge = source.merge(news, "old.id = new.id", source_alias="new", target_alias="old")
    merge.when_matched_update_all().when_not_matched_insert_all().execute()
    source.optimize.compact()
    source.delete("id = 5")
    assert tables.run(model, changes="append").rows == 3
    found = sorted((row["id"], row["x"]) for row in tables.scored())
    assert found == [(0, 0.0), (1, 0.25), (1, 100.25), (2, 0.5), (3, -1.0), (3, 0.75), (4, 1.0), (5, 1.25), (50, 12.5)]
    assert all(row["score"] == 2 * row["x"] for row in tables.scored())


def test_column_mapping_is_refused(tables: Any, model: Model) -> None:
    tables.add()
    tables.run(model)
    metadata = json.loads(next(line for line in log(tables.source, 0).read_text().splitlines() if "metaData" in line))
    metadata["metaData"]["configuration"] = {"delta.columnMapping.mode": "name"}
    commit(tables.source, metadata)
    code, text = code_of(lambda: tables.run(model))
    assert code == "table-unsupported" and "delta.columnMapping.mode" in text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"path": "file:///elsewhere/part.parquet"}, "shallow clones"),
        ({"path": "/elsewhere/part.parquet"}, "shallow clones"),
        ({"path": "../elsewhere/part.parquet"}, "shallow clones"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read_rightly_are_refused(
    tables: Any, model: Model, change: dict[str, Any], named: str
) -> None:
    def more() -> None:
        add = json.loads(next(line for line in log(tables.source, 0).read_text().splitlines() if '"add"' in line))
        add["add"].update(change)
        log(tables.source, 1).write_text(json.dumps(add))

    tables.add()
    code, text = code_of(lambda: tables.run(model, more))
    assert code == "table-unsupported" and named in text


def test_a_deletion_vector_on_a_known_file_adds_no_row(tables: Any, model: Model) -> None:
    tables.add()

    def delete() -> None:
        add = json.loads(next(line for line in log(tables.source, 0).read_text().splitlines() if '"add"' in line))
        remove = {"remove": {"path": add["add"]["path"], "dataChange": True, "deletionTimestamp": 1}}
        add["add"]["deletionVector"] = {"storageType": "i", "pathOrInlineDv": "", "sizeInBytes": 1, "cardinality": 1}
        log(tables.source, 1).write_text(f"{json.dumps(remove)}\n{json.dumps(add)}")

    tables.run(model, delete, changes="append")
    tables.check(10)


def test_features_that_are_not_known_are_refused(tables: Any, model: Model) -> None:
    tables.add()
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["timeTravelling"],
                "writerFeatures": ["timeTravelling"]}  # fmt: skip
    code, text = code_of(
        lambda: tables.run(model, lambda: log(tables.source, 1).write_text(json.dumps({"protocol": protocol})))
    )
    assert code == "table-unsupported" and "timeTravelling" in text


def test_a_commit_that_is_no_json_is_said(tables: Any, model: Model) -> None:
    tables.add()
    code, text = code_of(lambda: tables.run(model, lambda: log(tables.source, 1).write_text('{"add":')))
    assert code == "table-unreadable" and "00001.json" in text


def test_a_file_that_is_no_parquet_is_said_with_its_name(tables: Any, model: Model) -> None:
    tables.add()
    name = DeltaTable(tables.source).get_add_actions().column("path").to_pylist()[0]
    (tables.source / name).write_bytes(b"PAR1 not really")
    code, text = code_of(lambda: tables.run(model))
    assert code == "file-unreadable" and name in text


def racing(monkeypatch: pytest.MonkeyPatch, other: Callable[[], Any], times: int = 1) -> None:
    """Let another stream be faster, after the rows are scored and before they are committed."""
    commit_, left = Target.commit, [times]

    def late(self: Target, *args: Any) -> None:
        if left[0]:
            left[0] -= 1
            other()
        commit_(self, *args)

    monkeypatch.setattr(Target, "commit", late)


def test_of_two_streams_that_start_from_one_position_one_commits(
    tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.add()
    tables.run(model)
    tables.add()
    racing(monkeypatch, lambda: tables.run(model))
    said: list[str] = []
    done = tables.run(model, tables.add, said=said)
    assert (done.conflicts, done.rows) == (1, 10)
    assert "another process works on the job 'default'" in said[0]
    tables.check(30)
    on_disk = {path.name for path in tables.output.glob("*.parquet")}
    assert on_disk == {
        Path(path).name for path in DeltaTable(tables.output).file_uris()
    }  # the loser took its file away


def test_two_new_streams_make_one_output(tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.add()
    racing(monkeypatch, lambda: tables.run(model))
    tables.run(model)
    tables.check(10)


def test_a_stream_that_another_begins_while_the_first_rows_are_scored_is_gone_on_with(
    tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.add()
    create, begun = Target.create, []

    def late(self: Target, schema: pa.Schema) -> Any:
        if not begun:
            begun.append(True)
            tables.run(model)
        return create(self, schema)

    monkeypatch.setattr(Target, "create", late)
    assert tables.run(model).conflicts == 1
    tables.check(10)
    assert {path.name for path in tables.output.glob("*.parquet")} == {
        Path(path).name for path in DeltaTable(tables.output).file_uris()
    }


def test_appends_of_others_to_the_output_are_no_conflict(
    tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.add()
    tables.run(model)
    tables.add()
    row = pa.table({"id": [99], "x": [24.75], "score": [49.5]})
    racing(monkeypatch, lambda: write_deltalake(tables.output, row, mode="append"))
    assert tables.run(model).conflicts == 0
    assert tables.ids() == [*range(20), 99]


def test_a_stream_that_always_loses_gives_up(tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def meddle() -> None:
        transaction = Transaction("modelpack/stream/default/index", 0)
        DeltaTable(tables.output).create_write_transaction(
            [], "append", DeltaTable(tables.output).schema(),
            commit_properties=CommitProperties(app_transactions=[transaction]),
        )  # fmt: skip

    tables.add()
    tables.run(model)
    tables.add()
    racing(monkeypatch, meddle, times=1000)
    monkeypatch.setattr("modelpack_server.stream.job.MAX_CONFLICTS", 3)
    with pytest.raises(SaveError, match="4 commits in a row were refused") as caught:
        tables.run(model, idle=10)
    assert caught.value.code == "output-contended"


def test_an_output_that_was_set_back_is_filled_again(tables: Any, model: Model) -> None:
    tables.add()
    tables.run(model)
    tables.add()

    def set_back() -> None:
        tables.run(model)
        log(tables.output, DeltaTable(tables.output).version()).unlink()
        tables.add()

    tables.run(model, set_back)
    tables.check(30)


def test_rejects_are_written_once_whenever_it_stops(tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rejects are committed before the answers; a stream that ends between the two does not write them again."""
    tables.add(4, x=[0.0, None, 0.5, None])
    tables.add(2, x=[None, 1.25])
    options = {"on_error": tables.rejects, "keep": ("id",)}
    with monkeypatch.context() as patch:
        commit_ = Target.commit

        def stop(self: Target, table: Any, parts: Any, *args: Any) -> None:
            if self.root == tables.output and parts:
                raise InterruptedError
            commit_(self, table, parts, *args)

        patch.setattr(Target, "commit", stop)
        with pytest.raises(InterruptedError):
            tables.run(model, **options)
    assert DeltaTable(tables.rejects).count() == 3
    tables.add(1, x=[None])  # a stream that was new then would begin with a later version now
    done = tables.run(model, max_rows=4, **options)
    assert (done.rows, done.rejected) == (3, 4)
    assert tables.scored() == [{"id": 0, "score": 0.0}, {"id": 2, "score": 1.0}, {"id": 5, "score": 2.5}]
    refused = DeltaTable(tables.rejects).to_pyarrow_table().to_pylist()
    assert sorted(json.loads(row["record"])["id"] for row in refused) == [1, 3, 4, 6]
    row = next(row for row in refused if row["version"] == 2)
    assert (row["row"], row["column"], row["code"]) == (1, "x", "null-not-allowed")


def test_a_new_output_gets_all_its_rejects_again(tables: Any, model: Model) -> None:
    tables.add(2, x=[None, 1.0])
    tables.run(model, on_error=tables.rejects)
    shutil.rmtree(tables.output)
    tables.run(model, on_error=tables.rejects)
    assert DeltaTable(tables.rejects).count() == 2


def test_too_many_rejects_end_it(tables: Any, model: Model) -> None:
    tables.add(3, x=[None, None, 1.0])
    code, _ = code_of(lambda: tables.run(model, on_error=tables.rejects, max_rejects=1))
    assert code == "too-many-rejects"
    assert not tables.rejects.exists()
    assert tables.run(model, on_error=tables.rejects, max_rejects=2).rejected == 2


def test_without_any_good_row_the_columns_may_be_unknown(tables: Any, make_package: Any) -> None:
    signature = modelpack.Signature(
        inputs=modelpack.load(make_package(tables.folder / "a")).signature.inputs, outputs=None
    )
    model = modelpack.load(make_package(tables.folder / "more", signature))
    tables.add(1, x=[None])
    assert code_of(lambda: tables.run(model, on_error=tables.rejects))[0] == "output-unknown"
    assert not tables.rejects.exists()


Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def vector(*rows: int) -> dict[str, Any]:
    """Return an inline deletion vector for rows below 65536, as the protocol of Delta lays it out."""
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + struct.pack(f"<{len(rows)}H", *rows)
    raw = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    raw += bytes(-len(raw) % 4)
    text = ""
    for (word,) in struct.iter_unpack(">I", raw):
        text += "".join(Z85[word // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(raw), "cardinality": len(rows)}


def test_rows_that_were_deleted_before_it_began_are_left_out(tables: Any, model: Model) -> None:
    tables.add()
    tables.add()
    features = ["deletionVectors"]
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}
    add = json.loads(next(line for line in log(tables.source, 0).read_text().splitlines() if '"add"' in line))
    remove = {"remove": {"path": add["add"]["path"], "dataChange": True, "deletionTimestamp": 1}}
    add["add"]["deletionVector"] = vector(1, 3, 4)
    commit(tables.source, {"protocol": protocol}, remove, add)
    assert tables.run(model).rows == 17
    assert tables.ids() == [0, 2, *range(5, 20)]


@pytest.fixture
def marked(tables: Any) -> Callable[..., None]:
    """Let the source have deletion vectors, and return what commits a file of version 0 anew with those rows dead."""
    features = ["deletionVectors", "changeDataFeed"]
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features[:1],
                "writerFeatures": features}  # fmt: skip

    def write(*dead: int, name: str | None = None, before: tuple[int, ...] = ()) -> None:
        add = json.loads(next(line for line in log(tables.source, 0).read_text().splitlines() if '"add"' in line))
        remove: dict[str, Any] = {"path": add["add"]["path"], "dataChange": True, "deletionTimestamp": 1}
        if before:
            remove["deletionVector"] = vector(*before)
        if dead:
            add["add"]["deletionVector"] = vector(*dead)
        if name is not None:
            shutil.copy(tables.source / add["add"]["path"], tables.source / name)
            add["add"]["path"] = name
        actions = [{"protocol": {**protocol}}] + ([{"remove": remove}] if name is None else []) + [add]
        commit(tables.source, *actions)

    return write


def test_rows_that_are_dead_in_a_file_that_is_added_are_left_out(tables: Any, model: Model, marked: Any) -> None:
    tables.add()
    tables.run(model, lambda: marked(0, 2, 9, name="more.parquet"), tables.add)
    assert tables.ids() == sorted([*range(20), 1, 3, 4, 5, 6, 7, 8])


def test_a_deletion_vector_that_is_gone_is_said(tables: Any, model: Model, marked: Any) -> None:
    def spoil() -> None:
        marked(0, name="more.parquet")
        path = log(tables.source, 1)
        actions = [json.loads(line) for line in path.read_text().splitlines()]
        actions[-1]["add"]["deletionVector"] = {"storageType": "u", "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^",
                                                "offset": 4, "sizeInBytes": 40, "cardinality": 6}  # fmt: skip
        path.write_text("\n".join(map(json.dumps, actions)))

    tables.add()
    code, text = code_of(lambda: tables.run(model, spoil))
    assert code == "table-unreadable" and "has a deletion vector that cannot be read" in text
    assert tables.ids() == list(range(10))


def test_rows_that_a_deletion_vector_takes_and_gives_back_are_followed_by_key(
    tables: Any, model: Model, marked: Any
) -> None:
    configuration = {"delta.enableChangeDataFeed": "true"}
    rows = pa.table({"id": list(range(10)), "x": [i / 4 for i in range(10)]})
    write_deltalake(tables.source, rows, configuration=configuration)
    options = {"changes": "upsert", "key": ("id",)}
    tables.run(model, lambda: marked(1, 3), **options)
    assert tables.ids() == [0, 2, 4, 5, 6, 7, 8, 9]
    done = tables.run(model, lambda: marked(3, 4, 9, before=(1, 3)), **options)
    assert tables.ids() == [0, 1, 2, 5, 6, 7, 8]
    assert (done.rows, done.deleted) == (1, 2)
    tables.run(model, lambda: marked(before=(3, 4, 9)), **options)
    tables.check(10)
    tables.run(model, lambda: marked(5), lambda: DeltaTable(tables.source).delete("id = 6"), **options)
    assert tables.ids() == [0, 1, 2, 3, 4, 7, 8, 9]


def test_rows_of_the_beginning_that_are_gone_are_a_gap(
    tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that stopped within the table it began with, whose version cannot be opened any more."""
    for _ in range(3):
        tables.add()

    class Enough(Exception):
        pass

    def stop(_: str) -> None:
        raise Enough

    with pytest.raises(Enough):
        tables.run(model, max_rows=10, said=type("Said", (), {"append": staticmethod(stop)}))
    tables.add()
    DeltaTable(tables.source).create_checkpoint()
    for version in range(3):
        log(tables.source, version).unlink()
    code, text = code_of(lambda: tables.run(model))
    assert code == "source-gap" and "no version 2 any more" in text
    assert tables.run(model, on_gap="skip").rows == 10
    assert len(tables.ids()) == 20


def test_cleaning_the_log_behind_the_stream_is_no_matter(tables: Any, model: Model) -> None:
    def clean() -> None:
        DeltaTable(tables.source).create_checkpoint()
        log(tables.source, 0).unlink()
        log(tables.source, 1).touch()

    tables.add()
    tables.add()
    tables.run(model, clean, tables.add, tables.add)
    tables.check(40)


def test_a_replacing_commit_with_another_id_is_refused(tables: Any, model: Model) -> None:
    metadata = {}

    def replace() -> None:
        line = next(line for line in log(tables.source, 0).read_text().splitlines() if "metaData" in line)
        metadata.update(json.loads(line)["metaData"], id="another")
        commit(tables.source, {"metaData": metadata})

    tables.add()
    assert code_of(lambda: tables.run(model, replace))[0] == "source-replaced"


def test_a_source_that_goes_back_while_it_waits_is_refused(tables: Any, model: Model) -> None:
    tables.add()
    tables.add()
    assert (
        "went back from version 1 to 0" in code_of(lambda: tables.run(model, log(tables.source, 1).unlink, idle=2))[1]
    )


def test_a_conflict_over_the_rejects_leaves_no_file_behind(
    tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.add(2, x=[None, 1.0])
    tables.run(model, on_error=tables.rejects)
    tables.add(2, x=[None, 1.0])
    racing(monkeypatch, lambda: tables.run(model, on_error=tables.rejects))
    assert tables.run(model, on_error=tables.rejects).conflicts == 1
    assert tables.ids() == [1, 3]
    assert DeltaTable(tables.rejects).count() == 2
    for root in (tables.output, tables.rejects):
        listed = {Path(path).name for path in DeltaTable(root).file_uris()}
        assert {path.name for path in root.glob("*.parquet")} == listed


def test_an_output_that_cannot_be_written_is_said(tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.add()
    tables.run(model)
    tables.add()

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", refuse)
    code, text = code_of(lambda: tables.run(model))
    assert code == "output-unwritable" and "No space left" in text
    monkeypatch.undo()
    tables.run(model)
    tables.check(20)
    tables.output = tables.output / "_delta_log" / f"{0:020d}.json" / "below"
    assert code_of(lambda: tables.run(model))[0] == "output-unwritable"


class Stalled:
    """An engine of executors that stall, and wake up when all is committed."""

    def __init__(self) -> None:
        self.again: list[Callable[[], Any]] = []

    def each(self, model: Model, work: Any, items: Sequence[Any]) -> Generator[tuple[Any, Any]]:
        for item in items:
            self.again.append(functools.partial(work, model, item))
            yield item, work(model, item)


def test_an_executor_that_wakes_behind_the_commit_leaves_the_files_that_are_in_it(
    tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch
):
    tables.add(3)
    tables.run(model, on_error=tables.rejects)
    tables.add(4, x=[0.75, None, 1.25, 1.5])
    engine = Stalled()
    tables.run(model, on_error=tables.rejects, engine=engine)
    files = {path: path.stat().st_ino for path in tables.output.glob("*.parquet")}
    assert (len(files), tables.ids()) == (2, [0, 1, 2, 3, 5, 6])
    score = Model.score

    def watched(*args: Any) -> Any:
        assert all(path.exists() for path in files)
        return score(*args)

    monkeypatch.setattr(Model, "score", watched)
    (done,) = [call() for call in engine.again]

    assert (done.rows, len(done.refused)) == (3, 1)
    assert {path: path.stat().st_ino for path in tables.output.glob("*.parquet")} == files
