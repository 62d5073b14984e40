"""Every row of the tables in spec/06-coercion.md, against the code."""

from __future__ import annotations

import datetime as dt
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelpack import coerce, render
from modelpack.dtypes import (
    DecimalType,
    DictionaryType,
    DurationType,
    Element,
    Item,
    ListType,
    MapType,
    StructField,
    StructType,
    TimestampType,
    describe,
)
from modelpack.errors import InputError
from modelpack.signature import Column, Signature, Table

CHAPTER = Path(__file__).parents[2] / "spec" / "06-coercion.md"
COMPOSITES: tuple[Item, ...] = (
    TimestampType(unit="us"),
    TimestampType(unit="ns"),
    TimestampType(unit="s"),
    TimestampType(unit="s", tz="UTC"),
    DurationType(unit="ms"),
    DecimalType(precision=6, scale=2),
    ListType(items=Element(type="int8")),
    ListType(items=Element(type="int8", nullable=True)),
    ListType(items=Element(type="int8"), length=2),
    StructType(fields=(StructField(name="a", type="int8"), StructField(name="b", type="utf8", optional=True))),
    MapType(values=Element(type="int8")),
    DictionaryType(categories=("a", "b")),
)
TYPES = {describe(one): one for one in COMPOSITES}
NAMES = {"np": np, "pd": pd, "dt": dt, "Decimal": Decimal}


def rows() -> list[Any]:
    found = []
    for wire, table in re.findall(r"<!-- table: coercion (\w+) -->\n((?:\|.*\n)+)", CHAPTER.read_text("utf-8")):
        for line in table.splitlines()[2:]:
            dtype, sent, result = (cell.strip() for cell in line.split("|")[1:-1])
            found.append(pytest.param(wire, dtype.strip("`"), unquoted(sent), result, id=f"{wire}-{dtype}-{sent}"))
    return found


def unquoted(cell: str) -> str:
    return cell[1:-1] if cell.startswith("`") else cell


@pytest.mark.parametrize(("wire", "name", "sent", "result"), rows())
def test_a_row_is_what_the_code_does(wire: Any, name: str, sent: str, result: str) -> None:
    nullable = name.endswith("?")
    name = name.removesuffix("?")
    column = Column(name="x", type=TYPES.get(name, name), nullable=nullable)
    signature = Signature(inputs=Table(columns=(column,)))
    values = {"json": json.loads, "text": str, "python": lambda text: eval(text, dict(NAMES))}
    data = {"x": [values[wire](sent)]}
    if result.startswith("`"):
        frame = coerce.inputs(data, signature, wire=wire)
        value = render.plain(frame)[0]["x"]
        expected = json.loads(unquoted(result))
        assert (expected, type(expected)) == (value, type(value))
    else:
        with pytest.raises(InputError) as caught:
            coerce.inputs(data, signature, wire=wire)
        assert result == caught.value.code
        assert caught.value.path.startswith("x[0]")


def test_the_tables_are_found() -> None:
    assert len(rows()) > 150
