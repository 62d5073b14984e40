"""CSV is read cell by cell as text, and refused where two readers could disagree."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack import coerce
from modelpack.errors import InputError
from modelpack.signature import Column, Signature, Table, Tensor, Tensors
from modelpack_server.batch import inputs, readers
from modelpack_server.batch.chunks import Wanted
from modelpack_server.codecs import csv_body

TABLE = Signature(inputs=Table(columns=(Column(name="a", type="utf8"),)))
MATRIX = Signature(inputs=Tensors(tensors=(Tensor(name="x", dtype="float64", shape=(None, 2)),)))


def rows(body: bytes) -> list[dict[str, str | None]]:
    decoded = csv_body.decode(body, TABLE)
    assert decoded.wire == "text"
    assert decoded.params is None
    return list(decoded.data.to_pylist())


def refused(body: bytes, code: str, signature: Signature = TABLE) -> InputError:
    with pytest.raises(InputError) as caught:
        csv_body.decode(body, signature)
    assert caught.value.code == code
    return caught.value


def test_an_empty_field_is_missing_and_a_quoted_one_is_empty_text() -> None:
    assert rows(b'a,b\n1,\n"",2\n') == [{"a": "1", "b": None}, {"a": "", "b": "2"}]


def test_no_cell_is_interpreted() -> None:
    assert rows(b"a,b,c\n01234,NA, nan \ntrue,2020-01-01,null\n") == [
        {"a": "01234", "b": "NA", "c": " nan "},
        {"a": "true", "b": "2020-01-01", "c": "null"},
    ]


def test_quotes_commas_and_line_ends_inside_fields() -> None:
    assert rows(b'a,b\r\n"x, ""y""","l1\r\nl2"\r\n') == [{"a": 'x, "y"', "b": "l1\r\nl2"}]


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    assert rows(b"\xef\xbb\xbfa,b\n1,2\n") == [{"a": "1", "b": "2"}]
    assert rows(b'\xef\xbb\xbf"a",b\n1,2\n') == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_all_line_ends_are_read(end: bytes) -> None:
    assert rows(end.join([b"a,b", b"1,2", b"3,4"])) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


@pytest.mark.parametrize("above", [b"\n", b"\r\n\n", b"\xef\xbb\xbf\n"])
def test_blank_lines_above_the_header_are_skipped_as_in_files(above: bytes, tmp_path: Path) -> None:
    for body, expected in ((b"a,b\n1,2\n", [{"a": "1", "b": "2"}]), (b"a\n\n1\n", [{"a": None}, {"a": "1"}])):
        (tmp_path / "in.csv").write_bytes(above + body)
        (source,) = inputs.find([tmp_path / "in.csv"])
        (chunk,) = readers.read(source, Wanted(inputs=None, keep=None), 10)
        assert rows(above + body) == chunk.data.to_pylist() == expected


def test_an_empty_line_is_a_row_only_where_a_row_is_one_field() -> None:
    assert rows(b"a\n1\n\n2\n") == [{"a": "1"}, {"a": None}, {"a": "2"}]
    assert rows(b"a,b\n1,2\n\n3,4\n") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_a_header_alone_is_no_rows() -> None:
    decoded = csv_body.decode(b"a,b\n", TABLE)
    assert decoded.data.num_rows == 0
    assert decoded.data.column_names == ["a", "b"]


def test_ragged_rows_are_named() -> None:
    error = refused(b"a,b\n1,2\n1\n3,4\n1,2,3\n", "csv-ragged")
    assert [(f.row, f.path) for f in error.faults] == [(1, "[1]"), (3, "[3]")]
    assert error.message == "the row has 1 fields where the first row has 2"


def test_ragged_rows_are_named_up_to_a_limit() -> None:
    error = refused(b"a,b\n" + b"1\n" * 1000, "csv-ragged")
    assert len(error.faults) == csv_body.MAX_FAULTS


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "csv-header"),
        (b"\n", "csv-header"),
        (b"a,a\n1,2\n", "csv-duplicate-column"),
        (b"a,,\n1,2,3\n", "csv-duplicate-column"),
        (b"a\n\xff\n", "csv-encoding"),
        (b"\xff\n1\n", "csv-encoding"),
        (b'a\n"1\n2\n', "csv-quote"),
        (b'a,b\n"x"y,2\n', "csv-quote"),
        (b'a,b\n5" pipe,2\n', "csv-quote"),
        (b'a,b\n1, "2"\n', "csv-quote"),
        (b"x" * 200_000 + b"\n1\n", "csv-invalid"),
    ],
)
def test_what_is_ambiguous_is_refused(body: bytes, code: str) -> None:
    refused(body, code)


def test_many_names_are_compared_at_once() -> None:
    """Not each with all before it, which would take minutes."""
    names = [str(number) for number in range(300_000)]
    csv_body._check_names(names)
    with pytest.raises(InputError, match="fields 8 and 300001"):
        csv_body._check_names([*names, "7"])


def test_rows_of_numbers_need_no_header() -> None:
    decoded = csv_body.decode(b"1,2\n3,4\n", MATRIX)
    assert decoded.data.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    # What is no plain number stays the text it is.
    assert csv_body.decode(b"1,2\n3,inf\n", MATRIX).data == [["1", "2"], ["3", "inf"]]


CELL = st.none() | st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=5)


@given(st.lists(st.lists(CELL, min_size=2, max_size=2), max_size=5))
def test_what_was_written_is_read_back(table: list[list[str | None]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(["a", "b"])
    writer.writerows([["" if cell is None else cell for cell in row] for row in table])
    expected = [{"a": one or "", "b": two or ""} for one, two in table]
    assert rows(text.getvalue().encode()) == expected


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for signature in (TABLE, MATRIX):
        try:
            csv_body.decode(body, signature)
        except InputError as exc:
            assert exc.code.startswith("csv-")


def test_answers_of_one_column_of_text_are_read_back_as_they_were() -> None:
    io = Table(columns=(Column(name="t", type="utf8", nullable=True),))
    answer = coerce.outputs({"t": [None, "", "a", None]}, io)
    body = csv_body.encode(answer)
    assert body == b't\n\n""\na\n\n'
    assert rows(body) == [{"t": None}, {"t": ""}, {"t": "a"}, {"t": None}]


def test_a_row_of_another_width_that_is_no_text_is_refused_without_its_bytes() -> None:
    refused(b"a,b\n1,2\n\xff,2,3\n", "csv-encoding")
