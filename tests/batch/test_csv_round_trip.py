"""Any text survives CSV: what is written is read back the same, by us and by Python's own reader."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpack_server.batch import inputs
from modelpack_server.batch.chunks import Wanted
from modelpack_server.batch.readers import read
from modelpack_server.batch.writers.delimited import CsvWriter
from modelpack_server.codecs import cells as cells_of
from modelpack_server.codecs import csv_text

anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
cells = st.none() | anything | st.sampled_from(["", '"', '""', ",", "\n", "\r\n", "\r", " a ", 'x"y', "a,b"])
names = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=4), min_size=1, max_size=4, unique=True
)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Draw a table of text."""
    heads = draw(names)
    rows = draw(st.integers(0, 5))
    return pa.table(
        {name: pa.array(draw(st.lists(cells, min_size=rows, max_size=rows)), pa.string()) for name in heads}
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables(), size=st.integers(1, 6))
def test_any_text_survives(tmp_path: Path, table: pa.Table, size: int) -> None:
    raw = io.BytesIO()
    writer = CsvWriter(raw)
    for start in range(0, max(len(table), 1), 2):
        writer.write(csv_text.texts(table.slice(start, 2)))
    (tmp_path / "t.csv").write_bytes(raw.getvalue())
    expected = table.to_pylist()
    (source,) = inputs.find([tmp_path / "t.csv"])
    chunks = list(read(source, Wanted(inputs=None, keep=None), size))
    assert [row for chunk in chunks for row in chunk.data.to_pylist()] == expected
    assert [number for chunk in chunks for number in chunk.numbers.tolist()] == list(range(1, len(table) + 1))
    assert all(len(chunk) <= size for chunk in chunks)
    lines = list(csv.reader(io.StringIO(raw.getvalue().decode(), newline=""), strict=True))
    # In a table of one column a missing text is a blank line, of which Python makes a row without cells.
    alone = table.num_columns == 1
    assert lines[1:] == [
        [] if alone and [*row.values()] == [None] else [cell or "" for cell in row.values()] for row in expected
    ]


COLUMNS = {
    "text": (pa.array(["a", None, "", None], pa.string()), 'c\na\n\n""\n\n'),
    "bytes": (pa.array([b"a", None, b""], pa.binary()), 'c\nYQ==\n\n""\n'),
    "categories": (pa.array(["a", None, ""]).dictionary_encode(), 'c\na\n\n""\n'),
    "numbers": (pa.array([1.5, None, 2]), 'c\n1.5\n""\n2\n'),
    "truths": (pa.array([True, None]), 'c\ntrue\n""\n'),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_missing_and_empty_differ_in_a_single_column(name: str) -> None:
    """A line is blank only where ``""`` is a value: readers that skip blank lines lose no number."""
    column, expected = COLUMNS[name]
    raw = io.BytesIO()
    CsvWriter(raw).write(csv_text.texts(pa.table({"c": column})))
    assert raw.getvalue().decode() == expected


def test_a_single_column_of_json_has_no_blank_line() -> None:
    field = pa.field("c", pa.string(), metadata=cells_of.JSON)
    raw = io.BytesIO()
    CsvWriter(raw).write(csv_text.texts(pa.table([pa.array(['""', None])], schema=pa.schema([field]))))
    assert raw.getvalue() == b'c\n""""""\n""\n'


@pytest.mark.parametrize("name", ["text", "numbers"])
def test_libraries_read_a_single_column_as_the_docs_say(name: str) -> None:
    column, text = COLUMNS[name]
    values = column.to_pylist()
    frame = pd.read_csv(io.StringIO(text), skip_blank_lines=False)
    # For pandas an empty text is always a missing value.
    assert [None if pd.isna(cell) else cell for cell in frame["c"]] == [cell or None for cell in values]
    found = arrow_csv.read_csv(
        io.BytesIO(text.encode()),
        parse_options=arrow_csv.ParseOptions(ignore_empty_lines=False),
        convert_options=arrow_csv.ConvertOptions(
            strings_can_be_null=True, quoted_strings_can_be_null=name == "numbers"
        ),
    )
    assert found["c"].to_pylist() == values
