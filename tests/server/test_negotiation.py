"""Content-Type and Accept are read as RFC 9110 says."""

from __future__ import annotations

import pytest

from modelpack_server.codecs import DECODERS
from modelpack_server.codecs.negotiation import accepts, content_type
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
