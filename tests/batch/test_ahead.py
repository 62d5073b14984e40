"""Reading ahead changes nothing but when things happen."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from modelpack_server.batch.ahead import ahead


def test_everything_comes_in_order() -> None:
    assert list(ahead(iter(range(100)), 2)) == list(range(100))
    assert list(ahead(iter(()), 2)) == []


def test_an_error_comes_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2)
        raise ValueError("as asked")

    found: list[int] = []
    with pytest.raises(ValueError, match="as asked"):
        found.extend(ahead(items(), 5))
    got = ahead(items(), 5)
    assert [next(got), next(got)] == [1, 2]
    got.close()


def test_no_more_than_asked_for_is_made_before() -> None:
    made: list[int] = []
    last = threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 2:
                last.set()
            yield number

    got = ahead(items(), 2)
    assert next(got) == 0
    assert last.wait(30)
    assert made == [0, 1, 2]
    got.close()
    assert len(made) == 3


def test_closing_ends_the_thread_and_closes_what_was_read() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(True)

    got = ahead(items(), 2)
    assert next(got) == 0
    got.close()
    assert closed == [True]
    assert not [thread for thread in threading.enumerate() if thread.name == "modelpack-ahead"]
