"""Which Arrow types a Delta table stores, and as what; compared with what delta-rs makes of them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from modelpack.errors import OutputError
from modelpack_server.delta.commit import Target, fit
from modelpack_server.delta.kinds import alike, storable, stored, widens

ZONE = dt.timezone(dt.timedelta(hours=2))
MOMENT = dt.datetime(2024, 5, 6, 7, 8, 9, 123456)
VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "bool": (pa.bool_(), [True, None]),
    "int8": (pa.int8(), [-128, 127]),
    "uint8": (pa.uint8(), [0, 255]),
    "uint16": (pa.uint16(), [0, 65535]),
    "uint32": (pa.uint32(), [0, 2**32 - 1]),
    "uint64": (pa.uint64(), [0, 2**64 - 1]),
    "float16": (pa.float16(), [0.5, None]),
    "float32": (pa.float32(), [0.1, float("inf")]),
    "large": (pa.large_string(), ["a", None]),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), ["a", "b"]),
    "binary": (pa.binary(2), [b"ab", None]),
    "date32": (pa.date32(), [MOMENT.date(), None]),
    "date64": (pa.date64(), [MOMENT.date(), None]),
    "naive": (pa.timestamp("us"), [MOMENT, None]),
    "zoned": (pa.timestamp("ms", "Europe/Rome"), [MOMENT.replace(microsecond=0, tzinfo=ZONE), None]),
    "seconds": (pa.timestamp("s"), [MOMENT.replace(microsecond=0), None]),
    "decimal": (pa.decimal128(10, 2), [Decimal("1.25"), None]),
    "list": (pa.list_(pa.uint8()), [[1, 2, None], None]),
    "fixed": (pa.list_(pa.float64(), 2), [[0.5, 1.5], None]),
    "map": (pa.map_(pa.string(), pa.int64()), [[("a", 1)], None]),
    "struct": (pa.struct([("a", pa.uint8()), ("b", pa.string())]), [{"a": 255, "b": None}, None]),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_are_the_same_when_they_come_back(tmp_path: Path, name: str) -> None:
    kind, values = VALUES[name]
    table = pa.table({"column": pa.array(values, kind)})
    target = Target(tmp_path / "table", family="test")
    opened = target.create(storable(table))
    with target.part() as part:
        part.write(fit(table, pa.schema(opened.schema().to_arrow()), target.root))
    target.commit(opened, [part], {"test": 1}, {})
    found = DeltaTable(target.root)
    assert found.to_pyarrow_table()["column"].to_pylist() == table["column"].to_pylist()
    assert found.get_add_actions(flatten=True).column("num_records").to_pylist() == [2]


@pytest.mark.parametrize(
    "kind",
    [
        pa.duration("s"),
        pa.time32("s"),
        pa.decimal256(50, 2),
        pa.list_(pa.duration("s")),
        pa.map_(pa.string(), pa.time64("us")),
        pa.struct([("a", pa.duration("s"))]),
    ],
    ids=str,
)
def test_types_that_delta_has_not_are_refused(kind: pa.DataType) -> None:
    assert stored(kind) is None
    with pytest.raises(OutputError, match="the column 'odd' is of the type") as caught:
        storable(pa.table({"odd": pa.nulls(1, kind)}))
    assert caught.value.code == "type-not-delta"


@pytest.mark.parametrize(
    ("column", "field", "code"),
    [
        (pa.array([1.5]), pa.field("a", pa.int64()), "output-columns"),
        (pa.array([None], pa.int64()), pa.field("a", pa.int64(), nullable=False), "output-columns"),
        (pa.array([1], pa.timestamp("ns")), pa.field("a", pa.timestamp("us")), "not-exact"),
    ],
)
def test_what_does_not_fit_a_table_is_refused(column: pa.Array, field: pa.Field, code: str) -> None:
    with pytest.raises(OutputError) as caught:
        fit(pa.table({"a": column}), pa.schema([field]), Path("table"))
    assert caught.value.code == code
    assert caught.value.path == "table"


@pytest.mark.parametrize("names", [("id", "id"), ("id", "Id")])
def test_columns_that_are_one_in_a_delta_table_are_refused(names: tuple[str, str]) -> None:
    table = pa.table([[1], [2]], names=names)
    with pytest.raises(OutputError, match=f"two columns '{names[0]}' and '{names[1]}', which are one") as caught:
        storable(table)
    assert caught.value.code == "columns-repeated"
    with pytest.raises(OutputError, match="two columns"):
        fit(
            table, pa.schema([("id", pa.int64())] if names[0] == names[1] else [(n, pa.int64()) for n in names]), Path()
        )


def sure(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


NESTED = {
    "list": (pa.list_(sure("element", pa.string())), pa.list_(pa.string()), [["a"], [], None], [["a", None]]),
    "fixed": (pa.list_(sure("element", pa.float64())), pa.list_(pa.float64(), 2), [[0.5, 1], None], [[None, 1.0]]),
    "struct": (pa.struct([sure("a", pa.int64())]), pa.struct([("a", pa.int64())]), [{"a": 1}, None], [{"a": None}]),
    "map": (
        pa.map_(pa.string(), sure("value", pa.int64())), pa.map_(pa.string(), pa.int64()),
        [[("a", 1)], None], [[("a", None)]],
    ),
    "deep": (
        pa.list_(pa.field("element", pa.struct([sure("a", pa.list_(sure("element", pa.string())))]))),
        pa.list_(pa.struct([("a", pa.list_(pa.string()))])),
        [[{"a": ["x"]}, None], None], [[{"a": ["x", None]}]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NESTED)
def test_what_may_be_missing_inside_of_values_is_up_to_the_values(name: str, tmp_path: Path) -> None:
    """The table takes no missing values inside, and where the rows come from there could be some."""
    wanted, kind, whole, gaps = NESTED[name]
    target = Target(tmp_path / "table", family="test")
    opened = target.create(pa.schema([("column", wanted)]))
    schema = pa.schema(opened.schema().to_arrow())

    with target.part() as part:
        part.write(fit(pa.table({"column": pa.array(whole, kind)}), schema, tmp_path))
    target.commit(opened, [part], {"t": 1}, {})

    assert DeltaTable(tmp_path / "table").to_pyarrow_table()["column"].to_pylist() == whole
    part_of_more = pa.table({"column": pa.array(gaps + whole, kind)}).slice(1)
    assert fit(part_of_more, schema, tmp_path)["column"].to_pylist() == whole
    with pytest.raises(OutputError, match="takes no missing values in 'column', and there is one") as caught:
        fit(pa.table({"column": pa.array(gaps, kind)}), schema, tmp_path)
    assert caught.value.code == "output-columns"


DECIMAL = pa.decimal128


@pytest.mark.parametrize(
    ("old", "new", "may"),
    [
        (pa.int8(), pa.int64(), True),
        (pa.int64(), pa.int32(), False),
        (pa.int32(), pa.float64(), True),
        (pa.int64(), pa.float64(), False),
        (pa.float32(), pa.float64(), True),
        (pa.float64(), pa.float32(), False),
        (pa.int32(), DECIMAL(10, 0), True),
        (pa.int64(), DECIMAL(19, 0), False),
        (pa.float64(), DECIMAL(38, 0), False),
        (DECIMAL(10, 2), DECIMAL(12, 4), True),
        (DECIMAL(10, 2), DECIMAL(12, 5), False),
        (pa.date32(), pa.timestamp("us"), True),
        (pa.date32(), pa.timestamp("us", "UTC"), False),
        (pa.string(), pa.int64(), False),
        (pa.int64(), pa.string(), False),
        (pa.bool_(), pa.int64(), False),
        (pa.list_(pa.int32()), pa.list_(pa.field("element", pa.int64(), nullable=False)), True),
        (pa.list_(pa.string()), pa.list_(pa.int64()), False),
        (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int16()), True),
        (pa.struct({"a": pa.int8()}), pa.struct({"b": pa.string(), "a": pa.int16()}), True),
        (pa.struct({"a": pa.int8(), "b": pa.string()}), pa.struct({"a": pa.int8()}), False),
    ],
)
def test_types_that_widen_and_files_that_have_them(old: pa.DataType, new: pa.DataType, may: bool) -> None:
    assert widens(old, new) == may
    if may:
        assert alike(old, new)


@pytest.mark.parametrize(
    ("found", "kind", "same"),
    [
        (pa.dictionary(pa.int8(), pa.large_string()), pa.string(), True),
        (pa.binary(), pa.string(), True),
        (pa.binary(2), pa.binary(), True),
        (pa.null(), pa.int64(), True),
        (pa.int64(), pa.int8(), True),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), True),
        (pa.uuid(), pa.binary(), True),
        (pa.large_list(pa.int8()), pa.list_(pa.int64()), True),
        (pa.map_(pa.large_string(), pa.int8()), pa.map_(pa.string(), pa.int8()), True),
        (pa.struct({"a": pa.int8(), "gone": pa.string()}), pa.struct({"a": pa.int16()}), True),
        (pa.struct({"a": pa.string()}), pa.struct({"a": pa.int16()}), False),
        (pa.string(), pa.int64(), False),
        (pa.float64(), pa.int64(), False),
        (pa.int64(), pa.string(), False),
        (pa.string(), pa.timestamp("us"), False),
    ],
)
def test_files_have_a_column_as_it_is_or_are_refused(found: pa.DataType, kind: pa.DataType, same: bool) -> None:
    assert alike(found, kind) == same
