"""Bodies are scanned in little memory and one pass, whatever is in them: the patterns say what plain loops say."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack.errors import InputError
from modelpack_server.codecs import csv_body, json_body, json_text

LENGTH = 300_000
LONG = {
    "letters": b"a" * LENGTH,
    "escapes": b'\\"' * (LENGTH // 2),
    "both": b'abc\\"' * (LENGTH // 5),
    "quotes": b'""' * (LENGTH // 2),
}


def peak_of(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["letters", "escapes", "both"])
@pytest.mark.parametrize("end", [b'"]', b""])
def test_one_long_text_in_json_takes_no_more_memory_than_itself(kind: str, end: bytes) -> None:
    body = b'["' + LONG[kind] + end
    assert peak_of(lambda: json_body._depth(body)) < 4 * len(body)


@pytest.mark.parametrize("kind", ["letters", "quotes"])
def test_one_long_field_in_csv_takes_no_more_memory_than_itself(kind: str) -> None:
    body = b'a\n"' + LONG[kind] + b'"\n'
    assert peak_of(lambda: csv_body.check_quotes(body)) < 4 * len(body)


def test_colons_behind_quotes_are_counted_without_a_list_of_them() -> None:
    body = b'["' + b'\\":' * LENGTH + b'"]'
    text = json_text.view(body)
    assert peak_of(lambda: json_body._keys_are_distinct(body, text, ["x"])) < 4 * len(body)


def test_a_text_that_ends_in_half_an_escape_is_read_once() -> None:
    """Not once from each of its quotes, which would take minutes."""
    with pytest.raises(InputError, match="not JSON"):
        json_body.parse(b'["' + b'\\"' * 200_000 + b"\\")


@given(st.lists(st.sampled_from([b'"', b"\\", b"[", b"{", b"]", b"}", b"a", b"\n", b","]), max_size=20).map(b"".join))
def test_the_depth_of_brackets_outside_of_texts(body: bytes) -> None:
    depth = deepest = 0
    inside = escaped = False
    for letter in body.decode():
        if inside:
            inside = escaped or letter != '"'
            escaped = letter == "\\" and not escaped
        elif letter == '"':
            inside = True
        else:
            depth += (letter in "[{") - (letter in "]}")
            deepest = max(deepest, depth)
    assert json_body._depth(body) == deepest


@given(st.lists(st.sampled_from([b'"', b'""', b"a", b",", b"\n", b"\r\n"]), max_size=14).map(b"".join))
def test_quotes_that_neither_open_nor_close_a_field_are_found(body: bytes) -> None:
    try:
        csv_body.check_quotes(body)
        stray = False
    except InputError:
        stray = True
    assert stray == has_stray_quote(body)


def has_stray_quote(body: bytes) -> bool:
    """Read field by field: one that begins with a quote ends with one, the quotes inside are doubled."""
    place, start = 0, True
    while place < len(body):
        letter = body[place : place + 1]
        if letter != b'"':
            place, start = place + 1, letter in b",\r\n"
            continue
        if not start:
            return True
        place += 1
        while (two := body[place : place + 2]) == b'""' or two[:1] not in (b'"', b""):
            place += 2 if two == b'""' else 1
        place += 1
        if place > len(body) or body[place : place + 1] not in (b"", b",", b"\r", b"\n"):
            return True
        start = False
    return False
