"""Compressed bodies are read to their end and no further than the limit."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack.errors import InputError
from modelpack_server.codecs.compression import decompress, known
from modelpack_server.endpoints.bodies import Bodies, Held, NoRoom
from modelpack_server.problems import HttpProblem


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data))


PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd}
BOTH = pytest.mark.parametrize("encoding", PACK)


@given(st.binary(), st.sampled_from(sorted(PACK)))
def test_what_was_compressed_comes_back(data: bytes, encoding: str) -> None:
    assert decompress(PACK[encoding](data), encoding, len(data)) == data


@BOTH
def test_parts_one_after_another_are_one_body(encoding: str) -> None:
    body = PACK[encoding](b"a" * 200_000) + PACK[encoding](b"") + PACK[encoding](b"b")
    assert decompress(body, encoding, 10**6) == b"a" * 200_000 + b"b"


@BOTH
def test_the_limit_is_exact(encoding: str) -> None:
    body = PACK[encoding](bytes(3_000_000))
    assert len(decompress(body, encoding, 3_000_000)) == 3_000_000
    for limit in (2_999_999, 1_000_000, 0):
        with pytest.raises(HttpProblem) as caught:
            decompress(body, encoding, limit)
        assert (caught.value.status, caught.value.code) == (413, "body-too-large")


def test_a_bomb_is_put_out_early() -> None:
    """Ten gigabytes in ten megabytes; within the limits of a test they could not be read."""
    body = gzip.compress(bytes(10_000_000)) * 1000
    with pytest.raises(HttpProblem, match="larger than 1000000 bytes"):
        decompress(body, "gzip", 1_000_000)


@BOTH
def test_what_it_becomes_is_counted_piece_by_piece(encoding: str) -> None:
    body, pieces = PACK[encoding](bytes(50_000_000)), []
    decompress(body, encoding, 10**9, pieces.append)
    assert sum(pieces) == 50_000_000
    assert max(pieces) <= 2**20


@BOTH
def test_it_goes_no_further_than_there_is_room(encoding: str) -> None:
    bodies = Bodies(3_000_000)
    one, other = Held(bodies), Held(bodies)
    other.add(1_000_000)
    with pytest.raises(NoRoom):
        decompress(PACK[encoding](bytes(50_000_000)), encoding, 10**9, one.add)
    assert 1_000_000 < bodies.held <= 3_000_000
    one.release()
    assert bodies.held == 1_000_000


@BOTH
def test_what_is_cut_off_or_followed_by_something_is_refused(encoding: str) -> None:
    whole = PACK[encoding](b"some text that is long enough " * 10)
    for body in (b"", whole[:-1], whole[:-9], whole[: len(whole) // 2], whole + b"x", whole + bytes(9), b"{}"):
        with pytest.raises(InputError) as caught:
            decompress(body, encoding, 10**6)
        assert caught.value.code == "content-encoding-invalid"


def test_names_are_read_in_any_case() -> None:
    assert [known(name) for name in ("", " identity", "GZIP", "x-gzip", "zstd")] == ["", "", "gzip", "x-gzip", "zstd"]
    assert decompress(b"as it is", "identity", 0) == b"as it is"


@pytest.mark.parametrize("name", ["br", "deflate", "gzip, gzip", "gzip;q=1", "*"])
def test_other_encodings_are_415(name: str) -> None:
    with pytest.raises(HttpProblem) as caught:
        known(name)
    assert (caught.value.status, caught.value.code) == (415, "content-encoding-unknown")
    assert caught.value.headers == {"Accept-Encoding": "gzip, zstd, identity"}


@BOTH
def test_a_compressed_request_is_answered(serve: Any, ages: Any, encoding: str) -> None:
    client = serve(ages, max_body=1000)
    headers = {"Content-Encoding": encoding}
    body = PACK[encoding](b'{"dataframe_records": [{"age": 21}]}')
    assert client.score(body, headers=headers).json() == {"predictions": [{"double": 42.0}]}
    reply = client.score(PACK[encoding](b" " * 1001), headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (413, "body-too-large")
    reply = client.score(body[:-1], headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (400, "content-encoding-invalid")
