"""What is told of a body from its bytes is the same in small and in large bodies, and never less than the truth."""

from __future__ import annotations

import json
import re
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelpack.signature import Column, Signature, Table
from modelpack_server.codecs import json_body, json_text

NUMBER = st.one_of(
    st.from_regex(r"-?(0|[1-9][0-9]{0,22})(\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(["-0", "-0.0", "-0e5", "-0E5", "1e-05", "1e-0", "0", "9" * 18, "9" * 19, "0." + "9" * 25]),
)
# Around the place where a large body is cut.
BODIES = st.lists(NUMBER | st.sampled_from(['"a:b"', "[]", '{"a": -0}', "null"]), max_size=12).map(
    lambda parts: f"[{', '.join(parts)}]".encode()
)


@settings(max_examples=400, deadline=None)
@given(body=BODIES, cut=st.integers(1, 40))
@example(body=b"[1, -0]", cut=5)
@example(body=b"-0", cut=1)
@example(body=b"9" * 30, cut=9)
@example(body=b"[1.5, " + b"9" * 30 + b"]", cut=9)
@example(body=b"[1." + b"9" * 30 + b"]", cut=9)
@example(body=b"[1.5e-05]", cut=7)
def test_large_bodies_are_told_like_small_ones(body: bytes, cut: int) -> None:
    text = np.frombuffer(body, np.uint8)
    with mock.patch.object(json_text, "_CHUNK", cut):
        for told in (json_text.colons, json_text.has_minus_zero, json_text.has_long_integer):
            assert told(body, text) == told(body, None)
        assert json_text.is_precise(body, text) >= json_text.is_precise(body, None)


@settings(max_examples=200, deadline=None)
@given(numbers=st.lists(NUMBER, max_size=12), cut=st.integers(1, 40), large=st.booleans())
def test_nothing_is_overlooked(numbers: list[str], cut: int, large: bool) -> None:
    body = f"[{', '.join(numbers)}]".encode()
    text = np.frombuffer(body, np.uint8) if large else None
    with mock.patch.object(json_text, "_CHUNK", cut):
        assert json_text.has_minus_zero(body, text) or "-0" not in numbers
        assert json_text.has_long_integer(body, text) or not any(re.fullmatch(r"-?[0-9]{19,}", n) for n in numbers)
        precise = any("e" in n.lower() or len(re.sub("[^0-9]", "", n)) >= 16 for n in numbers)
        assert json_text.is_precise(body, text) or not precise


def test_only_large_bodies_are_looked_at_all_at_once() -> None:
    assert json_text.view(b"[]") is None
    assert json_text.view(b"[" + b"1, " * 5000 + b"1]") is not None


INTEGERS = Signature(inputs=Table(columns=(Column(name="n", type="int64"), Column(name="x", type="float64"))))


@pytest.mark.parametrize("repeat", [1, 400])
@pytest.mark.parametrize(
    ("cell", "same"),
    [("3", True), ("9007199254740993", True), ("null", True), ("3.0", True), ("9007199254740993.0", False)],
)
@pytest.mark.parametrize("form", ["split", "records"])
def test_precise_floats_beside_integers(cell: str, same: bool, form: str, repeat: int) -> None:
    """The long way is only gone where an integer column holds a number with a point, and then it counts."""
    x = "0.12345678901234567"
    row = f"[{cell}, {x}]" if form == "split" else f'{{"n": {cell}, "x": {x}}}'
    rows = f"[{', '.join([row] * repeat)}]"
    split = f'{{"dataframe_split": {{"columns": ["n", "x"], "data": {rows}}}}}'
    text = split if form == "split" else f'{{"dataframe_records": {rows}}}'
    body = text.encode()
    calls = []
    slowly = json_body._parse_slowly
    with mock.patch.object(json_body, "_parse_slowly", lambda *a, **k: calls.append(1) or slowly(*a, **k)):
        data = json_body.decode(body, INTEGERS).data
    got = data.data[-1][0] if form == "split" else data[-1]["n"]

    assert (repr(got) == repr(json.loads(cell))) is same
    assert bool(calls) is ("." in cell)
