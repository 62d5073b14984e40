"""What is added to a Delta table is scored into another one, each row once."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

import modelpack
from modelpack.errors import InputError, UsageError
from modelpack.model import Model
from modelpack.signature import Column, Signature, Table
from modelpack_server.stream import columns


def test_what_is_there_and_what_comes_is_scored_once(tables: Any, model: Model) -> None:
    tables.add()
    tables.add()
    done = tables.run(model, tables.add, tables.add)
    tables.check(40)
    assert (done.rows, done.rejected, done.commits, done.conflicts, done.version) == (40, 0, 3, 0, 3)
    assert tables.run(model).rows == 0
    tables.add()
    assert tables.run(model, once=True).rows == 10
    tables.check(50)


def test_a_commit_holds_no_more_rows_than_asked_for_but_whole_files(tables: Any, model: Model) -> None:
    for _ in range(5):
        tables.add()
    assert tables.run(model, max_rows=20).commits == 3
    for _ in range(5):
        tables.add()
    assert tables.run(model, max_rows=1).commits == 5
    tables.check(100)


def test_the_position_is_in_the_very_commits_of_the_rows(tables: Any, model: Model) -> None:
    tables.add()
    tables.run(model, tables.add)
    output = DeltaTable(tables.output)
    assert output.transaction_version("modelpack/stream/default/version") == 2
    assert output.version() == 2  # created, and one commit for each round
    facts = output.history(1)[0]["modelpack"]
    assert modelpack.open(tables.folder / "pkg").digest in facts


def test_kept_columns_are_those_that_are_named(tables: Any, model: Model) -> None:
    tables.add(1)
    tables.run(model, keep=("id",))
    assert tables.scored() == [{"id": 0, "score": 0.0}]
    with pytest.raises(InputError, match="has no column 'nope' to keep"):
        tables.run(model, keep=("nope",))


def test_an_answer_called_like_a_kept_column_but_for_the_case_gets_another_name(tables: Any, model: Model) -> None:
    tables.add(1, Score=["kept"])
    tables.run(model)
    assert tables.scored() == [{"id": 0, "x": 0.0, "Score": "kept", "score_prediction": 0.0}]


@pytest.mark.parametrize("signature", [True, False])
def test_a_column_that_comes_later_and_is_called_like_an_answer_is_not_read(
    tables: Any, make_package: Callable[..., Path], signature: bool
) -> None:
    known = modelpack.load(make_package(tables.folder)).signature
    model = modelpack.load(
        make_package(tables.folder / "more", known if signature else Signature(inputs=known.inputs, outputs=None))
    )
    tables.add(2)
    tables.run(model, lambda: tables.add(1, score=["no answer"]))
    tables.check(3)
    tables.run(model, lambda: tables.add(1, score=["no answer"]))
    tables.check(4)


@pytest.mark.parametrize(
    ("source", "output", "expected"),
    [
        ("id x score", "id x score", "id x"),
        ("id x score", "id x score score_prediction", "id x score"),
        ("id x score score_prediction", "id x score score_prediction", "id x score"),
        ("id x Score", "id x Score score_prediction", "id x Score"),
        ("id x Score", "id x score", "id x"),
        ("id x score", "score id", "id"),
        ("id score", "score_prediction score id", "id score"),
        ("id x", "other", ""),
        ("id x", "", ""),
    ],
)
def test_what_an_output_keeps_is_told_from_its_answers(source: str, output: str, expected: str, model: Model) -> None:
    assert columns.kept(source.split(), output.split(), model.signature.outputs) == expected.split()


def test_a_new_stream_begins_where_it_is_told_to(tables: Any, model: Model) -> None:
    for _ in range(4):
        tables.add()
    tables.run(model, from_version=2)
    assert tables.ids() == list(range(20, 40))
    tables.add()
    tables.run(model, from_version=0)  # it is not new any more
    assert tables.ids() == list(range(20, 50))
    with pytest.raises(UsageError, match="has no version 9 yet; it is at 4"):
        tables.run(model, from_version=9, job="other")


def test_two_jobs_keep_their_positions_apart(tables: Any, model: Model) -> None:
    tables.add()
    tables.run(model)
    tables.run(model, job="second")
    assert tables.ids() == sorted([*range(10)] * 2)


def test_partition_values_and_odd_paths_are_read_from_the_log(tables: Any, model: Model) -> None:
    days = pa.array([0, 1, None, 3], pa.date32())
    rows = pa.table({"id": [0, 1, 2, 3], "x": [0.0, 1.0, 2.0, 3.0], "p ": ["a b", "c%d", None, "é/x"], "day": days})
    write_deltalake(tables.source, rows, partition_by=["p ", "day"])
    tables.run(model, lambda: write_deltalake(tables.source, rows, mode="append"))
    expected = [{**row, "score": 2 * row["x"]} for row in rows.to_pylist() for _ in range(2)]
    assert tables.scored() == expected


def test_a_model_can_read_a_partition_column(tables: Any, make_package: Any) -> None:
    rows = pa.table({"id": [0, 1], "x": [1.5, 2.5]})
    write_deltalake(tables.source, rows, partition_by=["x"])
    model = modelpack.load(make_package(tables.folder / "more"))
    tables.run(model, lambda: write_deltalake(tables.source, rows, mode="append"))
    assert [row["score"] for row in tables.scored()] == [3.0, 3.0, 5.0, 5.0]


def test_params_reach_the_model(tables: Any, model: Model) -> None:
    tables.add(3)
    tables.run(model, params={"factor": 10.0})
    assert [row["score"] for row in tables.scored()] == [0.0, 2.5, 5.0]


def test_an_empty_source_still_makes_the_output_with_its_columns(tables: Any, model: Model) -> None:
    DeltaTable.create(tables.source, pa.schema([("id", pa.int64()), ("x", pa.float64())]))
    tables.run(model)
    assert DeltaTable(tables.output).to_pyarrow_table().schema.names == ["id", "x", "score"]
    tables.add()
    tables.run(model)
    tables.check(10)


def test_an_output_whose_columns_only_the_answers_tell_waits_for_the_first_row(tables: Any, make_package: Any) -> None:
    signature = Signature(inputs=Table(columns=(Column(name="x", type="float64"),)), outputs=None)
    model = modelpack.load(make_package(tables.folder / "more", signature))
    DeltaTable.create(tables.source, pa.schema([("id", pa.int64()), ("x", pa.float64())]))
    tables.run(model)
    assert not tables.output.exists()
    tables.run(model, tables.add)
    tables.check(10)


def test_types_that_delta_has_not_are_stored_wider_or_refused(tables: Any, make_package: Any) -> None:
    text = "def predict(data):\n    return {'small': [200 for _ in data['x']]}\n"
    inputs = Table(columns=(Column(name="x", type="float64"),))
    signature = Signature(inputs=inputs, outputs=Table(columns=(Column(name="small", type="uint8"),)))
    tables.add(2)
    tables.run(modelpack.load(make_package(tables.folder / "more", signature, text)), keep=())
    assert DeltaTable(tables.output).to_pyarrow_table().to_pydict() == {"small": [200, 200]}
    assert DeltaTable(tables.output).to_pyarrow_table().schema.field("small").type == pa.int16()


def test_what_is_no_table_or_a_bad_place_is_said(tables: Any, model: Model) -> None:
    with pytest.raises(UsageError, match="source is not a Delta table") as caught:
        tables.run(model)
    assert caught.value.code == "table-missing"
    tables.add()
    tables.output.mkdir()
    (tables.output / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something, and is no Delta table"):
        tables.run(model)
    tables.output = tables.source
    with pytest.raises(UsageError, match="is the source too"):
        tables.run(model)
    tables.source = "gs://bucket/table"
    with pytest.raises(UsageError, match="neither on a local file system nor behind s3"):
        tables.run(model)


@pytest.mark.parametrize(
    ("configuration", "partitions", "named"),
    [
        ({"delta.setTransactionRetentionDuration": "interval 1 day"}, None, "delta.setTransactionRetentionDuration"),
        ({}, ["id"], "partitions by id"),
    ],
)
def test_outputs_whose_rules_plain_files_would_break_are_refused(
    tables: Any, model: Model, configuration: dict[str, str], partitions: list[str] | None, named: str
) -> None:
    tables.add()
    schema = pa.schema([("id", pa.int64()), ("x", pa.float64()), ("score", pa.float64())])
    DeltaTable.create(tables.output, schema, configuration=configuration, partition_by=partitions)
    with pytest.raises(UsageError, match=named) as caught:
        tables.run(model)
    assert caught.value.code == "table-unwritable"


def test_a_constraint_of_the_output_is_not_got_around(tables: Any, model: Model) -> None:
    tables.add()
    tables.run(model)
    DeltaTable(tables.output).alter.add_constraint({"small": "score < 5.0"})
    tables.add()
    with pytest.raises(UsageError, match=r"delta\.constraints\.small"):
        tables.run(model)


def test_an_output_with_other_columns_is_refused_and_left_as_it_was(tables: Any, model: Model) -> None:
    tables.add()
    write_deltalake(tables.output, pa.table({"id": [1], "other": [2.0]}))
    with pytest.raises(modelpack.errors.OutputError, match="has 'other', which the answers have not") as caught:
        tables.run(model)
    assert caught.value.code == "output-columns"
    assert [path.name for path in Path(tables.output).glob("*.parquet")] == [
        Path(path).name for path in DeltaTable(tables.output).file_uris()
    ]


def test_another_package_goes_on_only_when_told_to(tables: Any, model: Model, make_package: Any) -> None:
    tables.add()
    tables.run(model)
    text = "def predict(data):\n    return {'score': [0.0 for _ in data['x']]}\n"
    other = modelpack.load(make_package(tables.folder / "more", text=text))
    tables.add()
    with pytest.raises(UsageError, match="was made with another package") as caught:
        tables.run(other)
    assert caught.value.code == "package-changed"
    tables.run(other, new_package=True)
    assert [row["score"] for row in tables.scored()[10:]] == [0.0] * 10
    assert tables.run(other).rows == 0


def test_files_that_killed_streams_left_are_swept(tables: Any, model: Model) -> None:
    tables.add()
    tables.run(model)
    leftover = tables.output / ".modelpack-stream-0123456789ab"
    leftover.write_bytes(b"half")
    tables.add()
    tables.run(model)
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"max_rows": 0}, "batch-size"),
        ({"job": "a/b"}, "job-name"),
        ({"keep": ("id", "id")}, "keep-repeated"),
        ({"on_error": "output"}, "output-clash"),
        ({"on_error": "source"}, "output-is-input"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    tables: Any, model: Model, options: dict[str, Any], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tables.folder)
    with pytest.raises(UsageError) as caught:
        tables.run(model, **options)
    assert caught.value.code == code


def test_a_table_can_be_named_by_a_file_url(tables: Any, model: Model) -> None:
    tables.folder = tables.folder / "with space"
    tables.source, tables.output = tables.folder / "source", tables.folder / "output"
    tables.add()
    source, output = tables.source, tables.output
    tables.source, tables.output = source.as_uri(), output.as_uri()
    tables.run(model)
    tables.output = output
    tables.check(10)


def test_rows_are_counted_in_files_that_the_log_knows_nothing_of(tables: Any, model: Model) -> None:
    for _ in range(3):
        tables.add()
    for number in range(3):
        path = tables.source / "_delta_log" / f"{number:020d}.json"
        path.write_text(re.sub(r'"stats":"(\\.|[^"\\])*"', '"stats":"no statistics"', path.read_text()))
    assert tables.run(model, from_version=0, max_rows=20).commits == 2
    tables.check(30)


def test_without_deltalake_it_says_what_to_install(tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "deltalake"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Without(), *sys.meta_path])
    with pytest.raises(UsageError, match=r"pip install 'modelpack\[delta\]'") as caught:
        tables.run(model)
    assert caught.value.code == "extra-missing"


class Without:
    """Finds no deltalake."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == "deltalake":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
