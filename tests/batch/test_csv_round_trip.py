"""Any text survives CSV: what is written is read back the same, by us and by Python's own reader."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpack_server.batch import inputs
from modelpack_server.batch.chunks import Wanted
from modelpack_server.batch.readers import read
from modelpack_server.batch.writers.delimited import CsvWriter

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
        writer.write(table.slice(start, 2))
    (tmp_path / "t.csv").write_bytes(raw.getvalue())
    expected = table.to_pylist()
    if table.num_columns == 1:
        # There a missing value would be a blank line, so it is written as the empty string.
        expected = [{name: cell or "" for name, cell in row.items()} for row in expected]
    (source,) = inputs.find([tmp_path / "t.csv"])
    chunks = list(read(source, Wanted(inputs=None, keep=None), size))
    assert [row for chunk in chunks for row in chunk.data.to_pylist()] == expected
    assert [number for chunk in chunks for number in chunk.numbers.tolist()] == list(range(1, len(table) + 1))
    assert all(len(chunk) <= size for chunk in chunks)
    lines = list(csv.reader(io.StringIO(raw.getvalue().decode(), newline=""), strict=True))
    assert lines[1:] == [[cell or "" for cell in row.values()] for row in table.to_pylist()]
