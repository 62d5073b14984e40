"""Bodies that come in pieces: the same whatever the pieces, and read no further than they may be."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelpack import coerce
from modelpack.signature import Column, Signature, Table
from modelpack_server.app import assemble
from modelpack_server.codecs import encoder
from modelpack_server.endpoints import invoke
from modelpack_server.facts import Facts
from modelpack_server.settings import Settings

ARROW = "application/vnd.apache.arrow.stream"
NUMBER = Table(columns=(Column(name="x", type="float64"),))
FACTS = Facts(name="m", version="1", digest="sha256:" + "ab" * 32, flavor="onnx", trust="data", manifest={})
VALUES = np.arange(300_000, dtype=np.float64)


class Same:
    """A model that answers with what it got."""

    signature = Signature(inputs=NUMBER, outputs=NUMBER)

    def score(self, frame: Any, params: Any) -> Any:
        return frame


def arrow() -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"x": VALUES})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def post(pieces: list[bytes], *, length: int | None, media: str = ARROW, end: bool = True, **options: Any) -> list[Any]:
    """Return what the app sends for a body in these pieces; without ``end`` the client leaves after them."""
    app = assemble(Same(), FACTS, Settings(**options))
    sent: list[Any] = []
    headers = [(b"content-type", media.encode()), (b"accept", media.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    coming = [
        {"type": "http.request", "body": piece, "more_body": place < len(pieces) - 1 or not end}
        for place, piece in enumerate(pieces)
    ]

    async def receive() -> Any:
        if coming:
            return coming.pop(0)
        if end:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/invocations", "query_string": b"", "headers": headers}
    try:
        asyncio.run(asyncio.wait_for(app(scope, receive, send), 30))
    finally:
        app.state.invocations.close()
    return sent


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


@pytest.mark.parametrize("size", [10**9, 250_000, 999_983])
@pytest.mark.parametrize("known", [True, False])
def test_the_pieces_do_not_matter(size: int, known: bool) -> None:
    body = arrow()
    assert len(body) > invoke.LARGE
    start, *parts = post(cut(body, size), length=len(body) if known else None)
    assert start["status"] == 200
    # Of unknown length it is answered batch by batch.
    answer = b"".join(part["body"] for part in parts)
    if known:
        assert answer == encoder(ARROW)(coerce.inputs({"x": VALUES}, Same.signature))
    assert pa.ipc.open_stream(answer).read_all().equals(pa.table({"x": VALUES}))


@pytest.mark.parametrize("media", [ARROW, "application/json"])
def test_more_than_the_limit_is_refused_whatever_was_announced(media: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invoke, "LINGER_SECONDS", 0.05)  # the client of this test stays, and sends nothing more
    pieces = [b"x" * 1_000_000] * 4
    for length in (None, 3_000_000):
        start = post(pieces, length=length, media=media, max_body=3_500_000)[0]
        assert start["status"] == 413


def test_a_client_that_leaves_in_the_middle_gets_nothing() -> None:
    body = arrow()
    assert post(cut(body, 500_000)[:2], length=len(body), end=False) == []
