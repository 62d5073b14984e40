"""Structs of Thrift's compact protocol are read, or refused wherever they end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack.audits.thrift import Compact


def struct(data: bytes) -> object:
    return Compact(memoryview(data), 0, len(data)).struct()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\0", {}),
        (b"\x11\x12\0", {1: True, 2: False}),
        (b"\x13\x05\x15\x05\0", {1: 5, 2: -3}),
        (b"\x06\x28\x80\x01\0", {20: 64}),
        (b"\x17abcdefgh\x18\x02hi\0", {1: b"abcdefgh", 2: b"hi"}),
        (b"\x1c\x15\x02\0\x19\x25\x02\x04\0", {1: {1: 1}, 2: [1, 2]}),
        (b"\x19\xf1\x10" + b"\x01" * 16 + b"\0", {1: [1] * 16}),
    ],
)
def test_values_are_read_by_the_number_of_their_field(data: bytes, found: object) -> None:
    assert struct(data) == found


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cut off"),
        (b"\x15", "cut off"),
        (b"\x17abc", "cut off"),
        (b"\x18\x7fabc", "cut off"),
        (b"\x19\xf5\xff\xff\xff\x7f", "list that is cut off"),
        (b"\x15" + b"\xff" * 12, "too long"),
        (b"\x15\x02\x05\x02\x02\0", "there twice"),
        (b"\x1b\0\0", "a kind that is not read"),
        (b"\x1c" * 40, "nested too deeply"),
        (b"\x19" + b"\x19" * 40, "nested too deeply"),
        (b"\x13\x01" * 65 + b"\0", "too many fields"),
    ],
)
def test_everything_else_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        struct(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        assert isinstance(struct(data), dict)
    except ValueError as exc:
        assert str(exc)
