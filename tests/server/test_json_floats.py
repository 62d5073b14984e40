"""A body that is made into one array gives what it gives cell by cell, or the same error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelpack import coerce, forms
from modelpack.coerce import blocks, tables, whole
from modelpack.errors import InputError
from modelpack.frame import Frame
from modelpack.signature import Column, Signature, Table, Tensor, Tensors
from modelpack_server.codecs import Decoded, json_body, json_simd
from modelpack_server.invocation import key
from modelpack_server.invocation.merging import merge

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-3, 3).map(str),
    st.sampled_from(["-0", "-0.0", "-0e1", "0.0", "-0 ", "1E2", "-1e-400", "0.00012573022109338915", "0.1e1"]),
    st.sampled_from([2048, 2049, 65519, 2**24, 2**24 + 1, 2**53, 2**53 + 1, 2**63, 2**64 + 1, 10**30]).map(str),
)
ODD = st.sampled_from(
    [
        "null",
        "true",
        "false",
        '"1.5"',
        '""',
        "[1]",
        "[]",
        "{}",
        '{"a": 1}',
        "NaN",
        "-Infinity",
        "1e400",
        "01",
        ".5",
        "x",
    ]
)
CELLS = st.one_of(NUMBERS, NUMBERS, NUMBERS, NUMBERS, ODD)
GAP = st.sampled_from(["", " ", "\n\t"])


def rows(cells: st.SearchStrategy[str], width: int) -> st.SearchStrategy[str]:
    """Return rows as JSON, most of them of the right width."""
    right = st.lists(cells, min_size=width, max_size=width)
    row = st.one_of(right, right, right, st.lists(cells, max_size=width + 1))
    return st.lists(st.one_of(row.map(listed), row.map(listed), row.map(listed), ODD), max_size=3).map(listed)


def listed(parts: list[str]) -> str:
    return f"[{', '.join(parts)}]"


# Mostly plain, so that the array is what is looked at.
DATA = st.one_of(
    st.lists(st.lists(NUMBERS, min_size=2, max_size=2).map(listed), min_size=1, max_size=4).map(listed),
    rows(CELLS, 2),
)


@pytest.fixture(scope="module", autouse=True, params=["orjson", "simdjson"])
def _parser(request: pytest.FixtureRequest) -> Iterator[None]:
    """Read all bodies, however small, first by the one or by the other."""
    with mock.patch.object(json_simd, "LARGE", 0 if request.param == "simdjson" else sys.maxsize):
        yield


@contextmanager
def cell_by_cell() -> Iterator[None]:
    """Take away all that looks at more than one cell at a time."""

    def nothing(*_: Any) -> None:
        return None

    with (
        mock.patch.object(blocks, "read", nothing),
        mock.patch.object(tables, "_floats", nothing),
        mock.patch.object(whole, "typed", nothing),
    ):
        yield


def read_long(body: bytes, signature: Signature) -> Decoded:
    value = json_body.parse(body, whole=json_body.wants_whole(signature))
    call = forms.parse(value, signature=signature)
    return Decoded(data=call.data, wire="json", at=call.at, params=call.params)


def coerced(decoded: Decoded, signature: Signature) -> Any:
    frame = coerce.inputs(decoded.data, signature, wire="json", at=decoded.at)
    return shown(frame), decoded.params or None


def shown(frame: Frame) -> Any:
    """Return all there is in a frame, bit by bit."""
    if frame.columns is None:
        return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in (frame.tensors or {}).items()}
    return frame.rows, [
        (name, v.type, v.data.dtype.str, v.data.tobytes(), None if v.missing is None else v.missing.tolist())
        for name, v in frame.columns.items()
    ]


def told(exc: InputError) -> Any:
    return exc.code, exc.message, exc.path, [(f.code, f.path, f.message, f.row, f.column) for f in exc.faults]


def short(body: bytes, signature: Signature) -> Any:
    try:
        return coerced(json_body.Reader(signature)(body)[0], signature)
    except InputError as exc:
        return told(exc)


def long(body: bytes, signature: Signature) -> Any:
    try:
        with cell_by_cell():
            return coerced(read_long(body, signature), signature)
    except InputError as exc:
        return told(exc)


def table(dtype: Any, *, nullable: bool = False, names: tuple[str, str] = ("a", "b")) -> Signature:
    first = Column(name=names[0], type=dtype, nullable=nullable)
    return Signature(inputs=Table(columns=(first, Column(name=names[1], type=dtype))))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@settings(max_examples=150, deadline=None)
@given(data=DATA, nullable=st.booleans(), gap=GAP)
@example(data="[[-0, 1]]", nullable=False, gap="")
@example(data="[[-0, 1], [0, -0.5]]", nullable=False, gap="")
@example(data="[[1.5, true]]", nullable=False, gap="")
@example(data="[[1.5, 9007199254740993]]", nullable=False, gap="")
@example(data="[[null, 1]]", nullable=True, gap=" ")
def test_rows_of_a_table(dtype: str, data: str, nullable: bool, gap: str) -> None:
    signature = table(dtype, nullable=nullable)
    body = f'{gap}{{"dataframe_split":{gap}{{"columns": ["a",{gap}"b"], "data": {data}{gap}}}}}{gap}'.encode()

    assert short(body, signature) == long(body, signature)


@pytest.mark.parametrize(
    "text",
    [
        '{"dataframe_split": {"columns": ["a", "b"], "columns": ["a", "b"], "data": [[1.5, 2]]}}',
        '{"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]], "data": [[1.5, 2]]}}',
        '{"dataframe_split": {"columns": ["a", "b"], "\\u0064ata": [[1, 2]], "data": [[1.5, 2]]}}',
        '{"dataframe_split": {"data": [[1, 2]], "columns": ["a", "b"], "data": [[1.5, 2]]}}',
        '{"dataframe_split": 1, "dataframe_split": {"columns": ["a", "b"], "data": [[1.5, 2]]}}',
        '{"dataframe_split": {"data": [[1.5, true]], "columns": ["a", "b"]}}',
        '{"dataframe_split": {"data": [[1.5, 2]], "columns": ["a", "b"]}}',
        '{"dataframe_split": {"columns": ["\\u0061", "b"], "data": [[1.5, 2]]}}',
        '{"dataframe_split": {"columns": ["b", "a"], "data": [[1.5, 2]]}}',
        '{"dataframe_split": {"columns": ["a", "b"], "data": [[1.5, 2]], "index": [7]}}',
        '{"dataframe_split": {"columns": ["a", "b"], "data": [[1.5, 2]]}, "params": {}}',
        '{"dataframe_split": {"columns": ["a", "b"], "data": [[1.5, 2]]}, "params": {"x": 1}}',
        '{"params": {}, "dataframe_split": {"columns": ["a", "b"], "data": [[1.5, 2]]}}',
        '{"dataframe_split": {"columns": ["a", "b"], "data": [[1.5, 2]]}} x',
        '{"dataframe_split": {"columns": ["a", "b"], "data": {"1": [1.5, 2]}}}',
        '{"dataframe_split": {"columns": ["a", "b"], "data": [{}, [1.5, 2]]}}',
        '{"dataframe_split": {"columns": ["a", "b"], "data": []}}',
        '{"dataframe_split": {"columns": ["a", "b"]}}',
        '{"dataframe_split": [[1.5, 2]]}',
        '{"inputs": {"a": [1.5, -0], "b": [2, 2]}}',
        '{"instances": [[1.5, 2]]}',
        "[" * 65 + "]" * 65,
        "[" * 2000 + "]" * 2000,
        '{"dataframe_split": {"columns": ["a", "b"], "data": ' + "[" * 70 + "1" + "]" * 70 + "}}",
        '\ufeff{"dataframe_split": {"columns": ["a", "b"], "data": [[1.5, 2]]}}',
        "[[1.5, 2]]",
        "1",
    ],
)
def test_other_bodies_for_a_table(text: str) -> None:
    signature = table("float64")

    assert short(text.encode(), signature) == long(text.encode(), signature)


@pytest.mark.parametrize("names", [("a:b", "c"), ('a"b', "c"), ("u", "l"), ("true", "null"), ("a\\", "-0")])
@pytest.mark.parametrize("again", ["", '"columns": ["x"], ', '"data": [[1, 2]], ', '"data": [[1, 2]], "data": 0, '])
@pytest.mark.parametrize("row", ["[1.5, 0]", "[1.5, -0]", "[true, 1]", "[9007199254740993, 1]"])
@pytest.mark.parametrize("escaped", [False, True])
def test_names_hide_nothing(names: tuple[str, str], again: str, row: str, escaped: bool) -> None:
    signature = table("float64", names=names)
    head = "".join(f"\\u{ord(letter):04x}" for letter in names[0]) if escaped else json.dumps(names[0])[1:-1]
    columns = f'["{head}", {json.dumps(names[1])}]'
    body = f'{{"dataframe_split": {{{again}"columns": {columns}, "data": [{row}]}}}}'.encode()

    assert short(body, signature) == long(body, signature)


TENSORS = [
    Tensor(name="x", dtype="float32", shape=("n", 2)),
    Tensor(name="x", dtype="float64", shape=("n", None, 2), nullable=True),
    Tensor(name="x", dtype="float32", shape=(None,)),
    Tensor(name="x", dtype="float64", shape=("n", "n")),
]


@pytest.mark.parametrize("tensor", TENSORS)
@pytest.mark.parametrize(
    "form", ['{"inputs": %s}', '{"instances": %s}', '{"inputs": {"x": %s}}', '{"inputs": {"y": %s}}']
)
@settings(max_examples=60, deadline=None)
@given(
    data=st.one_of(
        DATA,
        st.lists(DATA, min_size=1, max_size=2).map(listed),
        st.lists(NUMBERS, max_size=3).map(listed),
        st.lists(CELLS, max_size=3).map(listed),
    )
)
@example(data="[[1, 2], [3, -0]]")
@example(data="[[[1, 2], [3, 4]]]")
@example(data="[[[1, 2]], [[3]]]")
@example(data="[1.5, 2]")
def test_tensors(tensor: Tensor, form: str, data: str) -> None:
    signature = Signature(inputs=Tensors(tensors=(tensor,)))
    body = (form % data).encode()

    assert short(body, signature) == long(body, signature)


@pytest.mark.parametrize(
    "text",
    [
        '{"inputs": [[1, 2]], "inputs": [[1.5, 2]]}',
        '{"inputs": {"x": [[1, 2]], "x": [[1.5, 2]]}}',
        '{"inputs": {"x": [[1, 2]]}, "inputs": {"x": [[1.5, 2]]}}',
        '{"inputs": {"x": [[1.5, 2]], "y": 1}}',
        '{"inputs": {"\\u0078": [[1.5, 2]]}}',
        '{"instances": {"x": [[1.5, 2]]}}',
        '{"instances": [{"x": [1.5, 2]}]}',
        '{"inputs": [[1.5, 2]], "params": {}}',
        '{"params": null, "inputs": [[1.5, 2]]}',
        '{"other": [[1.5, 2]]}',
        '{"inputs": [[1.5, 2], "u"]}',
        '{"inputs": 1.5}',
        '\ufeff{"inputs": [[1.5, 2]]}',
        "[[1.5, 2]]",
    ],
)
def test_other_bodies_for_a_tensor(text: str) -> None:
    signature = Signature(inputs=Tensors(tensors=TENSORS[:1]))

    assert short(text.encode(), signature) == long(text.encode(), signature)


@pytest.mark.parametrize("name", ["x\0", "\0", "x\0y"])
@pytest.mark.parametrize("said", ["x\0", "\0", "x\0y", "x"])
def test_a_tensor_may_have_any_name(name: str, said: str) -> None:
    signature = Signature(inputs=Tensors(tensors=(Tensor(name=name, dtype="float32", shape=("n", 2)),)))
    body = orjson.dumps({"inputs": {said: [[1.5, 2]]}})

    assert short(body, signature) == long(body, signature)


def test_usual_bodies_are_arrays() -> None:
    """The comparisons above would be of no use if nothing were made into an array."""
    split = b'{"dataframe_split": {"columns": ["a", "b"], "data": [[-1.5, 0], [0.25, 3]]}}'
    decoded, usual = json_body.Reader(table("float64"))(split)
    assert usual
    assert np.array_equal(decoded.data.data, [[-1.5, 0], [0.25, 3]])

    for body in (b'{"inputs": [[1.5, 2]]}', b'{"instances": [[1.5, 2]]}', b'{"inputs": {"x": [[1.5, 2]]}}'):
        decoded, usual = json_body.Reader(Signature(inputs=Tensors(tensors=TENSORS[:1])))(body)
        assert not usual
        assert np.array_equal(decoded.data, [[1.5, 2]])


@pytest.mark.parametrize("size", [json_simd.KEPT // 2, json_simd.KEPT * 2])
def test_large_bodies_are_read_alike(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(1).normal(size=(size // 40, 2)).tolist()
    body, odd = (
        orjson.dumps({"dataframe_split": {"columns": ["a", "b"], "data": data}}) for data in (rows, [*rows, [1, True]])
    )
    read = json_body.Reader(table("float64"))

    assert np.array_equal(read(body)[0].data.data, rows)
    assert read(odd)[0].data.data[-1][1] is True
    monkeypatch.setattr(json_simd, "simdjson", None)
    assert np.array_equal(json_body.Reader(table("float64"))(body)[0].data.data, rows)


def test_bodies_are_read_in_many_threads() -> None:
    bodies = [orjson.dumps({"inputs": [[float(i), -float(i)]] * 500}) for i in range(1, 9)]
    read = json_body.Reader(Signature(inputs=Tensors(tensors=TENSORS[:1])))

    with ThreadPoolExecutor(8) as threads:
        found = [decoded[0].data for decoded in threads.map(read, bodies * 20)]

    assert all(np.array_equal(data, [[i, -i]] * 500) for data, i in zip(found, [*range(1, 9)] * 20, strict=True))


def test_what_an_array_is_made_of_can_be_changed_by_the_model() -> None:
    signature = table("float64")
    decoded = json_body.decode(b'{"dataframe_split": {"columns": ["a", "b"], "data": [[1.5, 0]]}}', signature)
    frame = coerce.inputs(decoded.data, signature, wire="json", at=decoded.at)

    assert all(vector.data.flags.writeable for vector in (frame.columns or {}).values())


@pytest.mark.parametrize("second", [[[3.5, 4.0]], [[3.5, None]], [[3.5, 2**60]], [[3.5, 4.0], [5.5, 6.0]]])
@pytest.mark.parametrize("turned", [False, True])
def test_arrays_and_lists_are_joined(second: list[Any], turned: bool) -> None:
    signature = table("float64", nullable=True, names=("b", "a"))
    sent = [[[1.5, 2.0]], second]
    parts = [decoded(values, signature) for values in (reversed(sent) if turned else sent)]
    together = merge([part.data for part in parts])

    joined = [row for values in (reversed(sent) if turned else sent) for row in values]
    want = coerce_or_told(decoded(joined, signature).data, signature)
    assert coerce_or_told(together, signature) == want


def decoded(values: list[Any], signature: Signature) -> Decoded:
    body = orjson.dumps({"dataframe_split": {"columns": ["b", "a"], "data": values}})
    return json_body.Reader(signature)(body)[0]


def coerce_or_told(data: Any, signature: Signature) -> Any:
    try:
        return shown(coerce.inputs(data, signature, wire="json", at="dataframe_split"))
    except InputError as exc:
        return told(exc)


def test_tensors_of_one_shape_are_gathered() -> None:
    read = json_body.Reader(Signature(inputs=Tensors(tensors=TENSORS[:1])))
    one, two = read(b'{"inputs": [[1.5, 2]]}')[0], read(b'{"inputs": [[1, -0]]}')[0]

    assert isinstance(one.data, np.ndarray)
    assert isinstance(two.data, list)
    assert key(one, None) == key(two, None) is not None
    assert merge([one.data, two.data]) == [[1.5, 2.0], [1, -0.0]]
    assert np.array_equal(merge([one.data, one.data]), [[1.5, 2.0], [1.5, 2.0]])
