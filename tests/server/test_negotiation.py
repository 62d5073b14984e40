"""Content-Type and Accept are read as RFC 9110 says."""

from __future__ import annotations

import pytest

from modelpack_server.codecs import DECODERS
from modelpack_server.codecs.negotiation import accepts, choose, content_type
from modelpack_server.problems import HttpProblem

JSON = "application/json"


@pytest.mark.parametrize(
    ("header", "media"),
    [
        ("application/json", JSON),
        ("Application/JSON", JSON),
        ("application/json; charset=utf-8", JSON),
        ('application/json;CHARSET="UTF-8"', JSON),
        ("application/json; charset=utf8 ;", JSON),
        ("text/csv", "text/csv"),
        ("text/csv; header=present; charset=utf-8", "text/csv"),
        ("application/vnd.apache.parquet", "application/vnd.apache.parquet"),
    ],
)
def test_known_types_are_read_in_any_case(header: str, media: str) -> None:
    assert content_type(header, DECODERS) == media


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "content-type-missing"),
        ("  ", "content-type-missing"),
        ("text/plain", "content-type-unknown"),
        ("application/x-www-form-urlencoded", "content-type-unknown"),
        ("application/json, text/csv", "content-type-unknown"),
        ("application/json; charset=latin-1", "charset-unknown"),
        ("text/csv; header=absent", "content-type-parameter"),
        ("application/json; profile=x", "content-type-parameter"),
    ],
)
def test_others_are_refused_and_told_what_is_read(header: str | None, code: str) -> None:
    with pytest.raises(HttpProblem) as caught:
        content_type(header, DECODERS)
    assert (caught.value.status, caught.value.code) == (415, code)
    assert caught.value.headers["Accept"] == ", ".join(sorted(DECODERS))


@pytest.mark.parametrize(
    ("header", "answer"),
    [
        (None, True),
        ("", True),
        ("*/*", True),
        ("application/*", True),
        ("Application/Json", True),
        ("text/html, */*;q=0.1", True),
        ("text/html", False),
        ("text/*", False),
        ("application/json;q=0", False),
        ("*/*, application/json;q=0.0", False),
        ("*/*;q=0, application/json", True),
        ("application/json;q=x", False),
        ("application/json;charset=utf-8;q=0.5", True),
    ],
)
def test_the_most_specific_range_decides(header: str | None, answer: bool) -> None:
    assert accepts(header, JSON) is answer


POSSIBLE = (JSON, "application/vnd.apache.arrow.stream", "text/csv")
ARROW, CSV = POSSIBLE[1:]


@pytest.mark.parametrize(
    ("header", "media"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("*/*, text/html", JSON),
        (ARROW, ARROW),
        ("Text/CSV", CSV),
        ("text/*", CSV),
        ("application/*", JSON),
        (f"{ARROW}, {JSON}", JSON),
        (f"{ARROW}, */*;q=0.9", ARROW),
        (f"{JSON};q=0.5, {CSV};q=0.6", CSV),
        (f"*/*, {JSON};q=0", ARROW),
        (f"*/*;q=0.1, application/*;q=0, {CSV};q=0.05", CSV),
        (f"{JSON};q=2, {CSV};q=0.1", CSV),
        (f"{JSON};q=nan, {CSV};q=0.1", CSV),
        (f"{JSON};q=0.1, {JSON};q=1, {CSV};q=0.5", CSV),
    ],
)
def test_the_sender_gets_what_it_likes_best(header: str | None, media: str) -> None:
    assert choose(header, POSSIBLE) == media


@pytest.mark.parametrize("header", ["text/html", "image/*", "*/*;q=0", f"{JSON};q=0", "nonsense", ",", ";"])
def test_a_sender_that_takes_nothing_is_told_what_there_is(header: str) -> None:
    with pytest.raises(HttpProblem) as caught:
        choose(header, POSSIBLE)
    assert (caught.value.status, caught.value.code) == (406, "not-acceptable")
    assert caught.value.hint == f"Accept {', '.join(POSSIBLE)}."
