"""JSON bodies are read exactly or refused."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack.errors import InputError, OutputError
from modelpack_server.codecs import json_body

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


def refused(body: bytes, code: str) -> None:
    with pytest.raises(InputError) as caught:
        json_body.parse(body)
    assert caught.value.code == code


@given(JSON)
def test_what_the_standard_library_wrote_is_read_back(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1, separators=(" ,", " : "))):
        try:
            body = text.encode()
        except UnicodeEncodeError:
            continue
        got = json_body.parse(body, whole=False)
        assert got == value
        assert repr(got) == repr(value).replace("-0,", "0,")


@given(st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True))
def test_any_number_is_read_exactly_or_as_the_nearest_float(text: str) -> None:
    try:
        (got,) = json_body.parse(f"[{text}]".encode())
    except InputError as exc:
        assert exc.code in ("json-number", "json-invalid")
        assert math.isinf(float(text))
        return
    exact = Decimal(text)
    assert got == (exact if isinstance(got, int | Decimal) else float(text))
    (near,) = json_body.parse(f"[{text}]".encode(), whole=False)
    assert near == (exact if isinstance(near, int) else float(text))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        json_body.parse(body)
    except InputError as exc:
        assert exc.code.startswith("json-")


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**30, 12345678901234567890123])
def test_integers_of_any_size_stay_exact(number: int) -> None:
    assert json_body.parse(f'{{"inputs": [{number}]}}'.encode()) == {"inputs": [number]}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9007199254740993.0", 9007199254740993),
        ("-9007199254740993.000", -9007199254740993),
        ("100000000000000000000001.0", 100000000000000000000001),
    ],
)
def test_whole_numbers_with_a_point_stay_exact(text: str, number: int) -> None:
    (got,) = json_body.parse(f"[{text}]".encode())
    assert (got, type(got)) == (number, json_body.Number)


@pytest.mark.parametrize("text", ["9007199254740992.0", "9007199254740993.5", "1e23", "1234567890123456789e3", "1e+22"])
def test_other_numbers_with_a_point_or_an_exponent_are_floats(text: str) -> None:
    (got,) = json_body.parse(f"[{text}]".encode(), whole=False)
    assert (got, type(got)) == (float(text), float)


def test_a_fraction_that_no_float_is_written_as_stays_exact() -> None:
    text = "0.1234567890123456789012345"
    assert json_body.parse(f"[{text}]".encode()) == [Decimal(text)]
    assert json_body.parse(f"[{text}]".encode(), whole=False) == [0.12345678901234568]


@pytest.mark.parametrize("text", ["0.1", "17179869184.3", "1e-07", "1E5", "2.50", "0.30000000000000004"])
def test_a_fraction_that_a_float_is_written_as_is_this_float(text: str) -> None:
    (got,) = json_body.parse(f'["{"1" * 16}", {text}]'.encode())[1:]
    assert (got, type(got)) == (float(text), float)


def test_nan_and_infinity_are_read_as_mlflows_client_writes_them() -> None:
    assert json_body.parse(b'{"a": [NaN, Infinity, -Infinity]}') == {"a": [None, math.inf, -math.inf]}


def test_the_word_nan_in_a_string_is_a_string() -> None:
    assert json_body.parse(b'["NaN", "Infinity"]') == ["NaN", "Infinity"]


@pytest.mark.parametrize("extra", ["", ', "n": NaN', ', "n": 12345678901234567890123', ', "t": "a:b"'])
@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2%s}',
        '{"a": 1, "a" :2%s}',
        '{"a"\n:1, "a"\t: 2%s}',
        '{"x": {"a": 1, "a": 1}%s}',
        '{"x": [[{"a": 1}], [{"b": 1, "\\u0062": 2}]]%s}',
    ],
)
def test_a_key_twice_is_refused(text: str, extra: str) -> None:
    refused((text % extra).encode(), "json-duplicate-key")


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "x:y", "b": {"a": "\\":"}}',
        '{"a:b": 1, "a": ":::"}',
        '[{"a": "12:30:00"}, {"a": "12:31:00"}]',
        '{"dataframe_split": {"columns": ["a"], "data": [["00:00"], [{"x": 1}]]}}',
        "{}",
        "[]",
        '""',
        "0",
    ],
)
def test_colons_in_strings_are_no_keys(text: str) -> None:
    assert json_body.parse(text.encode()) == json.loads(text)


def test_nesting_is_limited_whatever_the_brackets() -> None:
    fine, deep = json_body.MAX_DEPTH, json_body.MAX_DEPTH + 1
    assert json_body.parse(b"[" * fine + b"]" * fine)
    assert json_body.parse(b'{"a":' * fine + b"1" + b"}" * fine)
    refused(b"[" * deep + b"]" * deep, "json-depth")
    refused(b'{"a":' * deep + b"1" + b"}" * deep, "json-depth")
    refused(b"[" * 100_000, "json-depth")
    refused(b'[{"a":' * 50 + b"NaN" + b"}]" * 50, "json-depth")


def test_brackets_in_strings_are_not_depth() -> None:
    body = json.dumps(["[" * 1000, '"{' * 100, "\\[" * 100] * 3).encode()
    assert json_body.parse(body) == json.loads(body)


def test_many_rows_are_not_depth() -> None:
    assert len(json_body.parse(json.dumps([[i, {"a": i}] for i in range(5000)]).encode())) == 5000


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "json-invalid"),
        (b"{", "json-invalid"),
        (b"[1,]", "json-invalid"),
        (b"[01]", "json-invalid"),
        (b"['a']", "json-invalid"),
        (b"[1] x", "json-invalid"),
        (b"\xef\xbb\xbf[]", "json-invalid"),
        (b"\xef\xbb\xbf[NaN]", "json-invalid"),
        (b"[NaN, ]", "json-invalid"),
        (b"[nan]", "json-invalid"),
        (b"[-NaN]", "json-invalid"),
        (b'["\xff"]', "json-invalid"),
        (b'["\xff", NaN]', "json-encoding"),
        (b'["\\ud800"]', "json-invalid"),
        (b'["\\ud800", NaN]', "json-encoding"),
        (b'{"\\uDFFF": NaN}', "json-encoding"),
        (b"[1e999]", "json-number"),
        (b"[1e999, NaN]", "json-number"),
        (b"[" + b"1" * 401 + b".0]", "json-number"),
        (b"[" + b"1" * 401 + b"]", "json-number"),
        (b"[" + b"1" * 9000 + b"]", "json-number"),
    ],
)
def test_what_is_no_json_is_refused(body: bytes, code: str) -> None:
    refused(body, code)


def test_a_pair_of_surrogates_is_a_character_on_both_ways() -> None:
    assert json_body.parse(b'["\\ud83d\\ude00"]') == ["😀"]
    assert json_body.parse(b'["\\ud83d\\ude00", Infinity]') == ["😀", math.inf]


def test_messages_give_the_place_and_not_the_text() -> None:
    with pytest.raises(InputError, match="line 2, column 7") as caught:
        json_body.parse(b'{"a":\n   12 secret}')
    assert "secret" not in str(caught.value)


class TestEncode:
    """Answers are JSON, whatever the model gives."""

    def encode(self, value: object, monkeypatch: pytest.MonkeyPatch) -> bytes:
        monkeypatch.setattr(json_body.render, "plain", lambda frame: value)
        return json_body.encode(None)  # type: ignore[arg-type]

    def test_integers_beyond_64_bits_are_written_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.encode([10**30], monkeypatch) == b'{"predictions":[1000000000000000000000000000000]}'

    @pytest.mark.parametrize("value", [object(), [10**30, math.nan], [object(), 10**30]])
    def test_what_json_cannot_say_is_refused(self, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(OutputError, match="predictions"):
            self.encode(value, monkeypatch)
