"""Which columns stand beside the answers, and what they are called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from modelpack.errors import InputError, OutputError
from modelpack.model import Model
from modelpack.signature import Column, Json, Signature, Table, Tensor, Tensors
from modelpack_server.batch import Options, predict_files

X = Table(columns=(Column(name="x", type="float64"),))


def test_named_columns_are_kept_in_the_order_named(
    model: Model, rows: pa.Table, write: Any, read: Any, tmp_path: Path
) -> None:
    for suffix in ("csv", "jsonl", "parquet"):
        source = write(rows, tmp_path / f"in.{suffix}")
        for output in ("csv", "jsonl", "arrow"):
            target = tmp_path / f"{suffix}.{output}"
            predict_files(model, [source], target, Options(keep=("extra", "id")))
            assert list(read(target)[0]) == ["extra", "id", "score", "label"]


def test_nothing_is_kept_if_none_is_wanted(model: Model, rows: pa.Table, write: Any, read: Any, tmp_path: Path) -> None:
    for suffix in ("csv", "jsonl", "parquet"):
        source = write(rows, tmp_path / f"in.{suffix}")
        predict_files(model, [source], tmp_path / f"{suffix}.csv", Options(keep=()))
        assert [list(row) for row in read(tmp_path / f"{suffix}.csv")] == [["score", "label"]] * 5


def test_only_needed_columns_are_read(make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    real = pq.ParquetFile.iter_batches

    def spy(self: Any, **options: Any) -> Any:
        seen.append(options["columns"])
        return real(self, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    pq.write_table(pa.table({"a.b": [1], "x": [1.0], "a": [{"b": 2}], "id": [7]}), tmp_path / "in.parquet")
    model = make_model(Signature(inputs=X), lambda d, p: d["x"])
    predict_files(model, [tmp_path / "in.parquet"], tmp_path / "o.csv", Options(keep=("id", "a.b")))
    assert seen == [["a.b", "x", "id"]]
    assert (tmp_path / "o.csv").read_text() == "id,a.b,prediction\n7,1,1\n"


def test_extra_columns_are_refused_where_the_signature_says_so(make_model: Any, tmp_path: Path) -> None:
    inputs = Table(columns=X.columns, extra_columns="reject")
    model = make_model(Signature(inputs=inputs), lambda d, p: d["x"])
    pq.write_table(pa.table({"x": [1.0], "y": [1.0]}), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="y"):
        predict_files(model, [tmp_path / "in.parquet"], tmp_path / "o.csv", Options(keep=()))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_column_that_is_not_there_cannot_be_kept(
    model: Model, rows: pa.Table, write: Any, tmp_path: Path, suffix: str
) -> None:
    source = write(rows, tmp_path / f"in.{suffix}")
    with pytest.raises(InputError, match="no column 'idd' to keep"):
        predict_files(model, [source], tmp_path / "o.csv", Options(keep=("idd",)))


def test_a_member_that_a_record_lacks_is_missing(model: Model, read: Any, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"x":1,"n":1,"name":"a","id":1}\n{"x":1,"n":1,"name":"a"}\n')
    for output in ("jsonl", "parquet"):
        predict_files(model, [tmp_path / "in.jsonl"], tmp_path / f"o.{output}", Options(keep=("id",)))
        assert [row["id"] for row in read(tmp_path / f"o.{output}")] == [1, None]


@pytest.mark.parametrize("output", ["jsonl", "parquet", "csv"])
def test_a_member_that_no_record_has_cannot_be_kept(model: Model, tmp_path: Path, output: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"x":1,"n":1,"name":"a","id":1}\n' * 3)
    with pytest.raises(InputError, match=r"in\.jsonl: no row has a member 'idd' to keep"):
        predict_files(
            model, [tmp_path / "in.jsonl"], tmp_path / f"o.{output}", Options(keep=("id", "idd"), batch_size=2)
        )
    (tmp_path / "none.jsonl").write_text("")
    assert predict_files(model, [tmp_path / "none.jsonl"], tmp_path / f"o.{output}", Options(keep=("idd",))).rows == 0


def test_an_answer_named_like_a_kept_column_gets_another_name(make_model: Any, read: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0], "prediction": ["old"], "prediction_prediction": [0]}), tmp_path / "in.parquet")
    model = make_model(Signature(inputs=X), lambda d, p: d["x"])
    predict_files(model, [tmp_path / "in.parquet"], tmp_path / "o.jsonl")
    assert read(tmp_path / "o.jsonl") == [
        {"x": 1.0, "prediction": "old", "prediction_prediction": 0, "prediction_prediction_prediction": 1.0}
    ]
    predict_files(model, [tmp_path / "in.parquet"], tmp_path / "o.csv", Options(keep=("x",)))
    assert (tmp_path / "o.csv").read_text() == "x,prediction\n1,1\n"


def test_an_answer_never_replaces_a_member_that_comes_later(make_model: Any, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"x":1}\n{"x":2}\n{"x":3,"prediction":9}\n')
    model = make_model(Signature(inputs=X), lambda d, p: d["x"])
    with pytest.raises(InputError, match="named like an answer"):
        predict_files(model, [tmp_path / "in.jsonl"], tmp_path / "o.jsonl", Options(batch_size=2))


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (lambda d, p: np.asarray(d["x"]), ["prediction"]),
        (lambda d, p: np.stack([d["x"], d["x"]], axis=1), ["prediction_0", "prediction_1"]),
        (lambda d, p: {"a": np.asarray(d["x"]), "b": np.asarray(d["x"])}, ["a", "b"]),
        (lambda d, p: [f"{x}" for x in d["x"]], ["prediction"]),
        (
            lambda d, p: {"a": np.stack([d["x"], d["x"]], axis=1), "a_1": np.asarray(d["x"])},
            ["a_0", "a_1", "a_1_prediction"],
        ),
    ],
)
def test_answers_are_named_by_their_shape(
    make_model: Any, read: Any, tmp_path: Path, answer: Any, names: list[str]
) -> None:
    (tmp_path / "in.csv").write_text("x\n1\n2\n3\n")
    model = make_model(Signature(inputs=X), answer)
    predict_files(model, [tmp_path / "in.csv"], tmp_path / "o.jsonl", Options(keep=(), batch_size=2))
    assert list(read(tmp_path / "o.jsonl")[0]) == names


def test_answers_of_three_dimensions_and_bytes(make_model: Any, read: Any, tmp_path: Path) -> None:
    outputs = Tensors(
        tensors=(
            Tensor(name="cube", dtype="float32", shape=(None, 2, 2)),
            Tensor(name="raw", dtype="binary", shape=(None,)),
            Tensor(name="pair", dtype="int64", shape=(None, 2)),
        )
    )

    def answer(data: Any, params: Any) -> Any:
        n = len(data["x"])
        return {
            "cube": np.arange(4 * n, dtype="float32").reshape(n, 2, 2),
            "raw": np.array([b"\xff"] * n, dtype=object),
            "pair": np.arange(2 * n).reshape(n, 2),
        }

    model = make_model(Signature(inputs=X, outputs=outputs), answer)
    (tmp_path / "in.csv").write_text("x\n1\n2\n")
    predict_files(model, [tmp_path / "in.csv"], tmp_path / "o.parquet", Options(keep=()))
    assert read(tmp_path / "o.parquet")[1] == {"cube": [[4, 5], [6, 7]], "raw": b"\xff", "pair_0": 2, "pair_1": 3}
    predict_files(model, [tmp_path / "in.csv"], tmp_path / "o.csv", Options(keep=()))
    assert (tmp_path / "o.csv").read_text().splitlines()[1] == '"[[0.0,1.0],[2.0,3.0]]",/w==,0,1'
    (tmp_path / "none.csv").write_text("x\n")
    predict_files(model, [tmp_path / "none.csv"], tmp_path / "none.parquet", Options(keep=()))
    assert pq.read_schema(tmp_path / "none.parquet") == pq.read_schema(tmp_path / "o.parquet")


def test_a_list_of_json_values_is_one_for_each_row(make_model: Any, read: Any, tmp_path: Path) -> None:
    model = make_model(
        Signature(inputs=X, outputs=Json()), lambda d, p: [{"a": [x, None]} if x > 1 else None for x in d["x"]]
    )
    (tmp_path / "in.csv").write_text("x\n1\n2\n")
    for suffix, expected in (
        ("jsonl", {"a": [2.0, None]}),
        ("csv", '{"a":[2.0,null]}'),
        ("parquet", '{"a":[2.0,null]}'),
    ):
        predict_files(model, [tmp_path / "in.csv"], tmp_path / f"o.{suffix}", Options(keep=()))
        assert [row["prediction"] for row in read(tmp_path / f"o.{suffix}")] == [
            "" if suffix == "csv" else None,
            expected,
        ]


@pytest.mark.parametrize(
    ("dtype", "answers", "expected"), [("float64", [None, None], 'y\n""\n""\n'), ("utf8", [None, ""], 'y\n\n""\n')]
)
def test_a_missing_answer_alone_in_its_row_is_a_blank_line_only_if_empty_text_is_none(
    make_model: Any, tmp_path: Path, dtype: str, answers: list[Any], expected: str
) -> None:
    outputs = Table(columns=(Column(name="y", type=dtype, nullable=True),))
    model = make_model(Signature(inputs=X, outputs=outputs), lambda d, p: {"y": answers})
    (tmp_path / "in.csv").write_text("x\n1\n2\n")
    predict_files(model, [tmp_path / "in.csv"], tmp_path / "o.csv", Options(keep=()))
    assert (tmp_path / "o.csv").read_text() == expected


class TestSeveralFilesIntoOne:
    """The first file decides the columns; later ones fit or are refused."""

    @pytest.fixture
    def score(self, make_model: Any, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
        model = make_model(Signature(inputs=X), lambda d, p: d["x"])

        def run(first: pa.Table, second: pa.Table, suffix: str = "parquet", **options: Any) -> list[dict[str, Any]]:
            pq.write_table(first, tmp_path / "a.parquet")
            pq.write_table(second, tmp_path / "b.parquet")
            target = tmp_path / f"o.{suffix}"
            predict_files(model, [tmp_path / "a.parquet", tmp_path / "b.parquet"], target, Options(**options))
            if suffix == "parquet":
                return pq.read_table(target).to_pylist()
            return [json.loads(line) for line in target.read_text().splitlines()] if suffix == "jsonl" else []

        return run

    def test_columns_may_come_in_another_order(self, score: Any) -> None:
        rows = score(pa.table({"id": [1], "x": [1.0]}), pa.table({"x": [2], "id": [2]}))
        assert rows == [{"id": 1, "x": 1.0, "prediction": 1.0}, {"id": 2, "x": 2.0, "prediction": 2.0}]

    def test_a_column_that_a_later_file_lacks_is_missing_there(self, score: Any) -> None:
        rows = score(pa.table({"id": [1], "x": [1.0]}), pa.table({"x": [2.0]}))
        assert [row["id"] for row in rows] == [1, None]

    def test_a_column_that_only_a_later_file_has_is_refused(self, score: Any) -> None:
        with pytest.raises(InputError, match=r"b\.parquet: has the column 'id', which .*a\.parquet"):
            score(pa.table({"x": [1.0]}), pa.table({"id": [1], "x": [2.0]}))
        assert score(pa.table({"x": [1.0]}), pa.table({"id": [1], "x": [2.0]}), keep=("x",))

    def test_types_widen_only_without_loss(self, score: Any) -> None:
        first = pa.table({"id": pa.array([1], pa.int64()), "x": [1.0]})
        rows = score(first, pa.table({"id": pa.array([7], pa.int8()), "x": [2.0]}))
        assert [row["id"] for row in rows] == [1, 7]

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (pa.array([1]), pa.array(["1"])),
            (pa.array([1]), pa.array([1.5])),
            (pa.array([1]), pa.array([True])),
            (pa.array([1.5]), pa.array([2**53 + 1])),
            (pa.array([1.5], pa.float32()), pa.array([0.1])),
            (pa.array([0], pa.timestamp("s", "UTC")), pa.array([0], pa.timestamp("s"))),
            (pa.array([0], pa.timestamp("ms")), pa.array([1], pa.timestamp("us"))),
            (pa.array([[1]]), pa.array([["a"]])),
            (pa.array(["a"]).dictionary_encode(), pa.array([1]).dictionary_encode()),
        ],
    )
    def test_another_type_is_refused(self, score: Any, one: pa.Array, other: pa.Array) -> None:
        with pytest.raises(InputError, match="the column 'id' has"):
            score(pa.table({"id": one, "x": [1.0]}), pa.table({"id": other, "x": [2.0]}))

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (pa.array([1.5]), pa.array([1.5], pa.float32())),
            (pa.array([1.5]), pa.array([2])),
            (pa.array([0], pa.timestamp("ms", "UTC")), pa.array([1], pa.timestamp("s", "Asia/Tokyo"))),
            (pa.array(["a"]), pa.array(["b"], pa.large_string())),
            (pa.array(["a"]), pa.nulls(1)),
        ],
    )
    def test_a_type_that_fits_is_taken(self, score: Any, one: pa.Array, other: pa.Array) -> None:
        rows = score(pa.table({"id": one, "x": [1.0]}), pa.table({"id": other, "x": [2.0]}))
        assert [row["id"] for row in rows] == [one[0].as_py(), other[0].as_py()]

    def test_dictionaries_and_their_values_are_alike(self, score: Any) -> None:
        plain, packed = pa.array(["a"]), pa.array(["b"]).dictionary_encode()
        rows = score(pa.table({"id": plain, "x": [1.0]}), pa.table({"id": packed, "x": [2.0]}))
        assert [row["id"] for row in rows] == ["a", "b"]

    def test_json_lines_take_anything(self, score: Any) -> None:
        rows = score(pa.table({"x": [1.0]}), pa.table({"x": [2.0]}), "jsonl")
        assert [row["x"] for row in rows] == [1.0, 2.0]


def test_dictionaries_grow_from_file_to_file(make_model: Any, tmp_path: Path) -> None:
    model = make_model(Signature(inputs=X), lambda d, p: d["x"])
    for name, values in (("a", ["u", "v", None]), ("b", ["w", "u"])):
        table = pa.table({"c": pa.array(values).dictionary_encode(), "x": [1.0] * len(values)})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    predict_files(model, [tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "o.arrow")
    found = pa.ipc.open_file((tmp_path / "o.arrow").read_bytes()).read_all()
    assert found["c"].to_pylist() == ["u", "v", None, "w", "u"]
    assert pa.types.is_dictionary(found.schema.field("c").type)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((None, None, "a", 1), "values of several types|int64 here, string before"),
        ((1, 2, 1.5, 3), "double here, int64 before"),
        ((1, 2, True, 3), "values of several types|bool here, int64 before"),
        ((1.5, 2, 2**53 + 1, 3), "values of several types|int64 here, double before"),
        ((1, 2, 2**70, 3), "not all int64|values of several types"),
        (({"a": 1}, {"a": 2}, {"a": 1, "b": 2}, None), "not all struct"),
        (([1], [2], [1.5], None), "not all list"),
        (([1], [2], [True], None), "not all list"),
    ],
)
def test_members_of_json_that_change_type_are_refused_in_tables(
    model: Model, tmp_path: Path, values: tuple[Any, ...], reason: str
) -> None:
    lines = [{"x": 1, "n": 1, "name": "a", "id": value} for value in values]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(InputError, match=f"the column 'id' has ({reason})"):
        predict_files(model, [tmp_path / "in.jsonl"], tmp_path / "o.parquet", Options(batch_size=1))
    predict_files(model, [tmp_path / "in.jsonl"], tmp_path / "o.jsonl")
    found = [json.loads(line)["id"] for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert repr(found) == repr(list(values))


@pytest.mark.parametrize(
    "values", [(None, "a", None), (1.5, 2, None), ([1], [], None), ({"a": [None]}, {"a": []}, None), (7, 2.0, 3)]
)
def test_members_of_json_that_fit_the_first_are_kept(
    model: Model, read: Any, tmp_path: Path, values: tuple[Any, ...]
) -> None:
    lines = [{"x": 1, "n": 1, "name": "a", "id": value} for value in values]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    predict_files(model, [tmp_path / "in.jsonl"], tmp_path / "o.parquet", Options(batch_size=1))
    assert [row["id"] for row in read(tmp_path / "o.parquet")] == list(values)


@pytest.mark.parametrize("values", [(1.5, True), ([1.5, True], None), ({"a": [1]}, {"a": [False]})])
def test_true_and_false_never_become_numbers_in_tables(model: Model, tmp_path: Path, values: tuple[Any, ...]) -> None:
    lines = [{"x": 1, "n": 1, "name": "a", "id": value} for value in values]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(InputError, match="the column 'id' has true or false beside numbers"):
        predict_files(model, [tmp_path / "in.jsonl"], tmp_path / "o.parquet")


def test_long_numbers_in_lists_are_floats_in_tables(model: Model, read: Any, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"x": 1, "n": 1, "name": "a", "id": [9007199254740993.0, {"a": 0.5}]}')
    with pytest.raises(InputError, match="values of several types"):
        predict_files(model, [tmp_path / "in.jsonl"], tmp_path / "no.parquet")
    (tmp_path / "in.jsonl").write_text('{"x": 1, "n": 1, "name": "a", "id": [{"a": 9007199254740993.0}]}')
    predict_files(model, [tmp_path / "in.jsonl"], tmp_path / "o.parquet")
    assert pq.read_schema(tmp_path / "o.parquet").field("id").type == pa.list_(pa.struct([("a", pa.float64())]))


def test_members_of_json_are_text_in_csv(model: Model, tmp_path: Path) -> None:
    lines = [{"x": 1, "n": 1, "name": "a", "id": i} for i in (None, True, "a", 1, [1], "", 2.5)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    predict_files(model, [tmp_path / "in.jsonl"], tmp_path / "o.csv")
    found = [line.split(",")[3] for line in (tmp_path / "o.csv").read_text().splitlines()]
    assert found == ["id", "", "true", "a", "1", "[1]", '""', "2.5"]


ODD = {
    "uuid": pa.array([bytes(15) + b"\x05", b"a" * 16, None], pa.uuid()),
    "flag": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None, 0], pa.int8())),
    "runs": pc.run_end_encode(pa.array(["r", "r", None])),
    "lists": pa.ListArray.from_arrays([0, 1, 2, 3], pc.run_end_encode(pa.array([1, 1, 2]))),
    "either": pa.UnionArray.from_sparse(pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, None]), pa.array(["x"] * 3)]),
    "span": pa.array([(1, 2, 3), None, (0, -1, 0)], pa.month_day_nano_interval()),
    "none": pa.array([{}, None, {}], pa.struct([])),
}
SHOWN = {
    "uuid": ["00000000-0000-0000-0000-000000000005", "61616161-6161-6161-6161-616161616161", None],
    "flag": [True, None, False],
    "runs": ["r", "r", None],
    "lists": [[1], [1], [2]],
    "either": [1, "x", None],
    "span": ["P1M2DT0.000000003S", None, "P-1D"],
    "none": [{}, None, {}],
}


@pytest.mark.parametrize("output", ["csv", "jsonl", "parquet", "arrow"])
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("bad", [False, True])
def test_columns_of_odd_types_are_written_or_refused_by_name(
    make_model: Any, read: Any, tmp_path: Path, output: str, name: str, bad: bool
) -> None:
    """With a row that does not fit, too, which takes rows out of such columns."""
    table = pa.table({"odd": ODD[name], "x": [1.0, 2.0, None if bad else 3.0]})
    with pa.ipc.new_file(tmp_path / "in.arrow", table.schema) as file:
        file.write_table(table)
    model = make_model(Signature(inputs=X), lambda data, params: data["x"])
    options = Options(on_error=tmp_path / "bad.jsonl", batch_size=2)
    target = tmp_path / f"out.{output}"
    if output == "parquet" and name in ("lists", "either", "span", "none"):
        with pytest.raises(OutputError, match=r"'odd' is of the type .* Parquet files do not have") as caught:
            predict_files(model, [tmp_path / "in.arrow"], target, options)
        assert caught.value.code == "type-not-parquet"
        assert not target.exists()
        return
    predict_files(model, [tmp_path / "in.arrow"], target, options)
    expected = SHOWN[name][: 2 if bad else 3]
    match output:
        case "csv":
            shown = ["" if v is None else v if isinstance(v, str) else json.dumps(v) for v in expected]
            assert [row["odd"] for row in read(target)] == shown
        case "jsonl":
            assert [row["odd"] for row in read(target)] == expected
        case _:
            found = pq.read_table(target) if output == "parquet" else pa.ipc.open_file(target).read_all()
            assert found["odd"].to_pylist() == ODD[name].to_pylist()[: len(expected)]
            assert found.schema.field("odd").type == (pa.string() if name == "runs" else ODD[name].type)
    if bad:
        assert json.loads((tmp_path / "bad.jsonl").read_text())["record"]["odd"] == SHOWN[name][2]


def test_rows_are_filtered_where_columns_of_odd_types_are_kept(make_model: Any, read: Any, tmp_path: Path) -> None:
    columns = {name: column for name, column in ODD.items() if name != "lists"}
    table = pa.table({**columns, "x": [1.0, 2.0, 3.0]})
    with pa.ipc.new_stream(tmp_path / "in.arrows", table.schema) as file:
        file.write_table(table)
    model = make_model(Signature(inputs=X), lambda data, params: data["x"])
    predict_files(model, [tmp_path / "in.arrows"], tmp_path / "out.jsonl", Options(where="runs = 'r' and x > 1"))
    expected = {name: values[1] for name, values in SHOWN.items() if name in columns}
    assert read(tmp_path / "out.jsonl") == [{**expected, "x": 2.0, "prediction": 2.0}]


def test_new_members_of_json_are_refused_in_tables(model: Model, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"x":1,"n":1,"name":"a"}\n{"x":1,"n":1,"name":"a","id":1}\n')
    with pytest.raises(InputError, match="has the column 'id'"):
        predict_files(model, [tmp_path / "in.jsonl"], tmp_path / "o.csv", Options(batch_size=1))


def test_answers_that_change_their_number_of_columns_are_refused(make_model: Any, tmp_path: Path) -> None:
    sizes = iter((1, 2))

    def answer(data: Any, params: Any) -> Any:
        return np.zeros((len(data["x"]), next(sizes)))

    (tmp_path / "in.csv").write_text("x\n1\n2\n")
    with pytest.raises(OutputError, match="2 columns here and 1 before"):
        predict_files(
            make_model(Signature(inputs=X), answer), [tmp_path / "in.csv"], tmp_path / "o.csv", Options(batch_size=1)
        )
