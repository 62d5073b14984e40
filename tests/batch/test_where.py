"""`--where`: the rows for which an expression holds, whatever the format, and no others."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpack.errors import InputError, ModelpackError, UsageError
from modelpack.model import Model
from modelpack.signature import Column, Signature, Table
from modelpack_server.batch import Options, predict_files
from modelpack_server.batch.where.bounds import Bounds, may_hold
from modelpack_server.batch.where.grammar import parse
from modelpack_server.batch.where.levels import Levels
from modelpack_server.batch.where.terms import Comparison, Joined, columns_of

Read = Callable[[Path], list[dict[str, Any]]]
Write = Callable[[pa.Table, Path], Path]

ROWS = pa.table(
    {
        "id": pa.array(range(8), pa.int64()),
        "x": pa.array([0.5, None, -1.0, 2.5, 7.0, 7.0, None, 1e9], pa.float64()),
        "n": pa.array([1, 2, None, 4, 2**53 + 1, 6, 2**53, 8], pa.int64()),
        "name": pa.array(["AA", "UA", None, "it's", "DL", "AA", "", "UA"], pa.string()),
        "month": pa.array([1, 2, 3, 4, 5, 6, 7, None], pa.int64()),
    }
)
TAKEN = [
    ("month >= 6", [5, 6]),
    ("not month >= 6", [0, 1, 2, 3, 4]),
    ("month is null", [7]),
    ("month is not null and x is null", [1, 6]),
    ("name in ('AA', 'UA')", [0, 1, 5, 7]),
    ("name not in ('AA', 'UA')", [3, 4, 6]),
    ("name = 'it''s'", [3]),
    ("name <> 'AA' and (month < 3 or x > 1e8)", [1, 7]),
    ("n = 9007199254740993", [4]),
    ("n > 9007199254740992", [4]),
    ("x <= 0.5", [0, 2]),
    ("not (x <= 0.5 or month = 5)", [3, 5]),
    ("month = 1 or name is null", [0, 2]),
    ('NOT NOT "month" == 4', [3]),
    ("id in (3, 5) and month in (6)", [5]),
]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "arrow", "arrows", "delta"])
def test_the_same_rows_are_taken_in_every_format(
    model: Model, read: Read, write: Write, tmp_path: Path, suffix: str
) -> None:
    if suffix == "delta":
        source = tmp_path / "in"
        write_deltalake(source, ROWS, partition_by=["month"])
    else:
        source = write(ROWS, tmp_path / f"in.{suffix}")
    for number, (text, expected) in enumerate(TAKEN):
        out = tmp_path / f"{number}.jsonl"
        predict_files(model, [source], out, Options(where=text, keep=("id",), batch_size=3))
        found = read(out) if expected else []
        assert sorted(int(row["id"]) for row in found) == expected, text
        assert {tuple(row) for row in found} <= {("id", "score", "label")}
        for row in found:
            assert row["score"] == (None if (x := ROWS["x"][int(row["id"])].as_py()) is None else 2 * x)


values = st.sampled_from([None, -1.0, 0.0, 1.5, 2.0, float("nan")])
literals = st.sampled_from(["-1", "0", "1.5", "2"])
tests = st.one_of(
    st.tuples(st.sampled_from("xy"), st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), literals).map(" ".join),
    st.tuples(st.sampled_from("xy"), st.sampled_from(["in", "not in"]), st.lists(literals, min_size=1, max_size=3)).map(
        lambda t: f"{t[0]} {t[1]} ({', '.join(t[2])})"
    ),
    st.tuples(st.sampled_from("xy"), st.sampled_from(["is null", "is not null"])).map(" ".join),
)
expressions = st.recursive(
    tests,
    lambda inner: st.one_of(
        inner.map(lambda text: f"not ({text})"),
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map(lambda t: f"({t[0]}){t[1]}({t[2]})"),
    ),
    max_leaves=5,
)


def holds(text: str, row: dict[str, Any]) -> bool:
    """Say whether SQLite, which knows the same logic, takes the row; NaN, which it does not have, is never drawn."""
    import sqlite3

    with sqlite3.connect(":memory:") as base:
        return bool(
            base.execute(f"select ({text}) is true from (select ? as x, ? as y)", (row["x"], row["y"])).fetchone()[0]
        )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=expressions, rows=st.lists(st.tuples(values, values), min_size=1, max_size=9))
def test_statistics_change_nothing_and_the_logic_is_that_of_sql(
    make_model: Callable[..., Model], tmp_path: Path, text: str, rows: list[tuple[float | None, float | None]]
) -> None:
    found = [{"id": number, "x": x, "y": y} for number, (x, y) in enumerate(rows)]
    schema = pa.schema([("id", pa.int64()), ("x", pa.float64()), ("y", pa.float64())])
    table = pa.Table.from_pylist(found, schema=schema)
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    pq.write_table(table, tmp_path / "bare.parquet", row_group_size=2, write_statistics=False)
    taken = []
    for name in ("in", "bare"):
        out = tmp_path / f"{name}-out.parquet"
        predict_files(_numbers(make_model), [tmp_path / f"{name}.parquet"], out, Options(where=text, overwrite=True))
        taken.append(pq.read_table(out)["id"].to_pylist())
    assert taken[0] == taken[1]
    plain = [row for row in found if row["x"] == row["x"] and row["y"] == row["y"]]
    assert [row["id"] for row in plain if holds(text, row)] == [i for i in taken[0] if found[i] in plain]


def _numbers(make_model: Callable[..., Model]) -> Model:
    signature = Signature(inputs=Table(columns=(Column(name="id", type="int64"),)))
    return make_model(signature, lambda columns, params: columns["id"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends too early"),
        ("month", "ends too early"),
        ("month >= ", "ends too early"),
        ("month >= 6 carrier = 'AA'", "needs 'and' or 'or' at character 12"),
        ("month = six", "needs a number, 'text', true or false at character 9"),
        ("month = 6 and (x > 1", "needs ')'"),
        ("__import__('os').system('true')", "needs a comparison at character 11"),
        ("month in ()", "needs a number"),
        ("month is 6", "needs 'null'"),
        ("month ; drop", "cannot be read at character 7"),
        ("month = 6x", "cannot be read"),
        ("(" * 60 + "a = 1" + ")" * 60, "nested too deeply"),
    ],
)
def test_what_is_not_of_the_language_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        Options(where=text)
    assert caught.value.code == "where-syntax"


def test_and_binds_closer_than_or_and_not_moves_inside() -> None:
    term = parse("a = 1 or not (b = 'x' and c is null)")
    assert term == Joined(
        how="or",
        parts=[
            Comparison(column="a", operator="=", values=(1,)),
            Joined(
                how="or",
                parts=[
                    Comparison(column="b", operator="=", values=("x",), negated=True),
                    Comparison(column="c", operator="null", negated=True),
                ],
            ),
        ],
    )
    assert columns_of(term) == ["a", "b", "c"]


TYPED = pa.table(
    {
        "x": pa.array([1.0, 2.0], pa.float64()),
        "n": pa.array([1, 2], pa.int64()),
        "name": pa.array(["a", "b"]).dictionary_encode(),
        "day": pa.array([dt.date(2024, 1, 1), dt.date(2024, 1, 2)]),
        "at": pa.array([dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 1, 2, tzinfo=dt.UTC)]),
        "local": pa.array([dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 2)]),
        "price": pa.array([Decimal("1.10"), Decimal("2.20")]),
        "small": pa.array([1, 2], pa.int8()),
        "narrow": pa.array([0.1, 0.2], pa.float32()),
        "flag": pa.array([False, True]),
        "list": pa.array([[1], None]),
    }
)


@pytest.mark.parametrize(
    "text",
    [
        "name = 'b'",
        "day > '2024-01-01'",
        "at >= '2024-01-01T19:00:00-05:00'",
        "local > '2024-01-01 12:00:00'",
        "price = 2.2",
        "small = 2.0",
        "narrow = 0.2",
        "flag = true",
        "list is null",
    ],
)
def test_values_are_compared_in_the_type_of_the_column(model: Model, read: Read, tmp_path: Path, text: str) -> None:
    pq.write_table(TYPED, tmp_path / "in.parquet", row_group_size=1)
    predict_files(model, [tmp_path / "in.parquet"], tmp_path / "out.jsonl", Options(where=text, keep=("n",)))
    assert [row["n"] for row in read(tmp_path / "out.jsonl")] == [2]


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("gone = 1", "where-column", "'gone' is not there"),
        ("name = 1", "where-type", "'name' is string, and --where compares it with 1"),
        ("small < 1000", "where-type", "'small' is int8"),
        ("n = 1.5", "where-type", "'n' is int64"),
        ("at > '2024-01-01'", "where-type", "'at' is timestamp"),
        ("local > '2024-01-01T00:00:00Z'", "where-type", "'local' is timestamp"),
        ("day = 'yesterday'", "where-type", "'day' is date32"),
        ("list = 1", "where-type", "'list' is list"),
        ("flag = 1", "where-type", "'flag' is bool"),
        ("price = 1.123", "where-type", "'price' is decimal"),
    ],
)
@pytest.mark.parametrize("form", ["parquet", "delta"])
def test_what_a_column_cannot_be_compared_with_is_refused_by_name(
    model: Model, tmp_path: Path, text: str, code: str, message: str, form: str
) -> None:
    source = tmp_path / "in.parquet"
    if form == "delta":
        source = tmp_path / "in"
        write_deltalake(source, TYPED.set_column(2, "name", TYPED["name"].cast(pa.string())))
    else:
        pq.write_table(TYPED, source)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        predict_files(model, [source], tmp_path / "out.jsonl", Options(where=text))
    assert caught.value.code == code
    assert not (tmp_path / "out.jsonl").exists()


NUMBERS = ["9007199254740992", "9007199254740993", "1.5", "", "9007199254740992.5", "99999999999999999999", "1.50",
           "-1e400", "0.1", "0.1000000000000000055", "2e0", "-0.0"]  # fmt: skip
EXACTLY = [
    ("k = 9007199254740993", [1]),
    ("k != 9007199254740993", [0, 2, 4, 5, 6, 7, 8, 9, 10, 11]),
    ("k in (9007199254740992, 9007199254740994)", [0]),
    ("k > 9007199254740992", [1, 4, 5]),
    ("k >= 9007199254740992.5", [1, 4, 5]),
    ("k > 99999999999999999998 and k < 100000000000000000000", [5]),
    ("k = 1.5 or k = 2", [2, 6, 10]),
    ("k = 0.1", [8]),
    ("k > 0.1 and k < 1", [9]),
    ("k < -5", [7]),
    ("k = 0", [11]),
    ("k is null", [3]),
]


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize(("text", "taken"), EXACTLY)
def test_numbers_that_the_signature_does_not_know_are_compared_exactly_whatever_stands_beside_them(
    make_model: Callable[..., Model], read: Read, tmp_path: Path, suffix: str, text: str, taken: list[int], size: int
) -> None:
    model = make_model(Signature(inputs=Table(columns=(Column(name="x", type="float64"),))), lambda d, p: d["x"])
    if suffix == "csv":
        lines = ["k,x", *(f"{number},{place}" for place, number in enumerate(NUMBERS))]
    else:
        # JSON has no number that large.
        numbers = [number.replace("-1e400", "-1e40") or "null" for number in NUMBERS]
        lines = [f'{{"k": {number}, "x": {place}}}' for place, number in enumerate(numbers)]
    (tmp_path / f"in.{suffix}").write_text("\n".join(lines) + "\n")
    options = Options(where=text, keep=("x",), batch_size=size)
    predict_files(model, [tmp_path / f"in.{suffix}"], tmp_path / "out.jsonl", options)
    assert [int(row["prediction"]) for row in read(tmp_path / "out.jsonl")] == taken


def test_nan_and_infinity_stand_where_floats_have_them() -> None:
    levels = Levels([10**400, Decimal("1e-400"), 0])
    texts = pa.array(["nan", "inf", "1e401", "1e400", "0", "1e-400", "1e-401", "1e-99999999999999999999", None, "-inf"])
    found = levels.texts(texts).to_pylist()
    assert math.isnan(found[0])
    assert found[1:] == [6, 6, 5, 1, 3, 2, 1, None, 0]
    assert [levels.place(value) for value in (0, Decimal("1e-400"), 10**400)] == [1, 3, 5]
    assert levels.cells([float("inf"), 10**400, -(10**400), 0.0]).to_pylist() == [6, 5, 0, 1]
    with pytest.raises(pa.ArrowInvalid):
        levels.texts(pa.array(["0x10"]))


def test_only_row_groups_and_files_that_may_hold_such_rows_are_read(model: Model, read: Read, tmp_path: Path) -> None:
    """Shown with files that are broken where they must not be read."""
    rows = pa.table({"x": [float(i) for i in range(4000)], "n": range(4000), "name": ["a"] * 4000})
    path = tmp_path / "in.parquet"
    pq.write_table(rows, path, row_group_size=1000, compression="none", use_dictionary=False)
    column = pq.read_metadata(path).row_group(0).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset : column.data_page_offset + 64] = b"\xff" * 64
    path.write_bytes(data)
    predict_files(model, [path], tmp_path / "out.jsonl", Options(where="n >= 3998", keep=("n",)))
    assert [row["n"] for row in read(tmp_path / "out.jsonl")] == [3998, 3999]

    table = tmp_path / "table"
    write_deltalake(
        table, rows.append_column("part", pa.array([i // 1000 for i in range(4000)])), partition_by=["part"]
    )
    for file in table.glob("part=[012]/*.parquet"):
        file.write_bytes(b"broken")
    summary = predict_files(model, [table], tmp_path / "table.jsonl", Options(where="part = 3", keep=("n",)))
    assert (summary.rows, summary.files) == (1000, 1)


def test_row_numbers_stay_those_of_the_file(model: Model, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"x": ["1", "2", "3", "4", "5"], "n": range(5), "name": ["a"] * 5}),
        tmp_path / "in.parquet",
        row_group_size=1,
    )
    with pytest.raises(InputError, match="row 4"):
        predict_files(model, [tmp_path / "in.parquet"], tmp_path / "out.jsonl", Options(where="n = 3"))


def test_a_cell_that_does_not_fit_is_refused_whether_or_not_the_filter_looks_at_it(
    model: Model, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("x,n,name\n1,1,a\nlarge,2,b\n3,3,c\n")
    bad = tmp_path / "bad.jsonl"
    summary = predict_files(model, [tmp_path / "in.csv"], tmp_path / "out.csv", Options(where="x > 2", on_error=bad))
    assert (summary.rows, summary.rejected) == (1, 1)
    assert json.loads(bad.read_text())["row"] == 2


def test_no_row_at_all_is_an_answer(model: Model, read: Read, write: Write, tmp_path: Path) -> None:
    for suffix in ("csv", "parquet"):
        source = write(ROWS, tmp_path / f"in.{suffix}")
        out = tmp_path / f"out.{suffix}"
        assert predict_files(model, [source], out, Options(where="month > 100")).rows == 0
        assert read(out) == []


def test_a_run_with_another_filter_is_another_run(package: Path, run: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0, 2.0, 3.0], "n": [1, 2, 3]}), tmp_path / "in.parquet")
    line = (package, "-i", "in.parquet", "-o", "out/", "--where")
    assert run(*line, "n > 1").returncode == 0
    assert json.loads((tmp_path / "out/_manifest.json").read_text())["where"] == "n > 1"
    assert pq.read_table(tmp_path / "out/in.parquet")["score"].to_pylist() == [4.0, 6.0]
    assert b"already" in run(*line, "n > 1").stderr
    other = run(*line, "n > 2")
    assert (other.returncode, b"output-exists" in other.stderr) == (2, True)
    wrong = run(*line, "n >")
    assert (wrong.returncode, b"where-syntax" in wrong.stderr) == (2, True)


def test_an_interrupted_run_does_not_go_on_with_another_filter(
    make_model: Callable[..., Model], tmp_path: Path, write: Write
) -> None:
    for name in ("a", "b"):
        write(ROWS, tmp_path / f"{name}.parquet")
    inputs = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    model = make_model()
    with pytest.raises(KeyboardInterrupt):
        predict_files(model, inputs, f"{tmp_path}/out/", Options(where="n > 1", check=stop))
    with pytest.raises(ModelpackError, match="--where is not the same"):
        predict_files(model, inputs, f"{tmp_path}/out/", Options(where="n > 2"))
    assert predict_files(model, inputs, f"{tmp_path}/out/", Options(where="n > 1")).resumed == 1


def test_bounds_that_are_not_known_rule_nothing_out() -> None:
    kind = pa.int64()
    assert may_hold(parse("a = 1"), lambda name: None)
    assert may_hold(parse("a = 1"), lambda name: Bounds(kind=kind))
    assert not may_hold(parse("a = 1"), lambda name: Bounds(kind=kind, least=2, most=3))
    assert not may_hold(parse("a is null"), lambda name: Bounds(kind=kind, nulls=False))
    assert not may_hold(parse("a != 2"), lambda name: Bounds(kind=kind, least=2, most=2))
    assert may_hold(parse("a != 2"), lambda name: Bounds(kind=pa.float64(), least=2.0, most=2.0))
