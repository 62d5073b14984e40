"""CSV in and out: RFC 4180 with a header row, every cell kept as the text it is until the signature says what it means.

An empty field is a missing value, a quoted empty field is the empty string.
"""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv

from modelpack.errors import Fault, InputError
from modelpack.frame import Frame
from modelpack.signature import Signature, Tensors
from modelpack_server.codecs import Decoded, answers, csv_text, shapes
from modelpack_server.codecs.typed import typed

__all__ = ["check_quotes", "decode", "encode"]

MAX_FAULTS = 100
_NUMBERS = frozenset({pa.float64(), pa.int64()})

# A field that is quoted as RFC 4180 says: at the start of a field, inner quotes doubled, to the end of the field.
# Possessive: what could be given back is remembered byte by byte, many times as much as the body.
_QUOTED = re.compile(rb'(?:(?<=[,\r\n])|\A(?:\xef\xbb\xbf)?)"(?:[^"]++|"")*+"(?=[,\r\n]|\Z)')
_BLANK = re.compile(rb"\A(\xef\xbb\xbf)?[\r\n]++")


def decode(body: bytes, signature: Signature) -> Decoded:
    """Return the rows of a CSV body as a table of text; rows of numbers without a header for a model of tensors."""
    _check_text(body)
    check_quotes(body)
    if isinstance(signature.inputs, Tensors):
        return Decoded(data=_matrix(_read(body, _width(body)), signature), wire="text")
    # Above the header there may be blank lines, as in files.
    body = _BLANK.sub(rb"\1", body)
    width = _width(body)
    table = _read(body, width)
    names = [column[0].as_py() or "" for column in table.columns]
    _check_names(names)
    return Decoded(data=typed(table.slice(1).rename_columns(names), signature), wire="text")


def _matrix(table: pa.Table, signature: Signature) -> Any:
    """Return rows without names: as one array if all are plain numbers, else as lists of text."""
    numbers = typed(table, signature)
    kinds = set(numbers.schema.types)
    if len(kinds) == 1 and kinds <= _NUMBERS and not any(column.null_count for column in numbers.columns):
        return np.column_stack([column.to_numpy() for column in numbers.columns])
    columns = [column.to_pylist() for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def encode(frame: Frame) -> bytes:
    """Return the answer as CSV with a header row, its columns and cells as in files that batches write."""
    table = answers.table_of(frame, shapes.CSV)
    head = csv_text.header(table.column_names)
    if not table.num_rows or not table.num_columns:
        return head
    return b"".join((head, csv_text.lines(csv_text.texts(table)), b"\n"))


def check_quotes(body: bytes) -> None:
    """Refuse stray quotes: readers disagree about what they mean, and an unclosed one swallows rows."""
    if b'"' in body and b'"' in _QUOTED.sub(b"", body):
        raise InputError(
            "the CSV has a quote that neither opens nor closes a field",
            code="csv-quote",
            hint="A field with quotes in it is written in quotes, the inner ones doubled.",
        )


def _check_text(body: bytes) -> None:
    if not body.isascii():
        try:
            str(body, "utf-8")
        except UnicodeDecodeError as exc:
            raise InputError("the body is not UTF-8", code="csv-encoding") from exc


def _width(body: bytes) -> int:
    """Return the number of fields in the first record."""
    try:
        first = next(csv.reader(io.TextIOWrapper(io.BytesIO(body), "utf-8-sig", newline=""), strict=True), None)
    except csv.Error as exc:
        raise InputError("the first row of the CSV cannot be read", code="csv-invalid") from exc
    if not first:
        raise InputError(
            "the CSV has no header row", code="csv-header", hint="The first row names the columns, in any order."
        )
    return len(first)


def _read(body: bytes, width: int) -> pa.Table:
    faults: list[Fault] = []

    def ragged(row: Any) -> str:
        if len(faults) < MAX_FAULTS:
            number = row.number - 2
            message = f"the row has {row.actual_columns} fields where the first row has {row.expected_columns}"
            faults.append(Fault("csv-ragged", f"[{number}]", message, row=number))
        return "skip"

    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(body),
            # One block and one thread: rows are numbered then, and no row is too long for a block.
            read_options=arrow_csv.ReadOptions(
                use_threads=False, block_size=min(len(body) + 1, 2**31 - 1), autogenerate_column_names=True
            ),
            # In a table of one column an empty line is a row whose value is missing.
            parse_options=arrow_csv.ParseOptions(
                newlines_in_values=True, ignore_empty_lines=width > 1, invalid_row_handler=ragged
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types={f"f{number}": pa.string() for number in range(width)},
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as exc:
        # Arrow quotes the row in its message; ours must not.
        raise InputError("the body is not CSV", code="csv-invalid") from exc
    if faults:
        raise InputError.from_faults(faults)
    if table.num_columns != width:
        raise InputError("the first row of the CSV cannot be read", code="csv-invalid")
    return table


def _check_names(names: list[str]) -> None:
    seen: dict[str, int] = {}
    for position, name in enumerate(names):
        if (first := seen.setdefault(name, position)) != position:
            raise InputError(
                f"the header names one column twice: fields {first + 1} and {position + 1}",
                code="csv-duplicate-column",
            )
