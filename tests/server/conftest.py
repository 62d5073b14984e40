"""A model that is no more than a function, and a client that needs no socket."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest

from modelpack import coerce, render
from modelpack.dtypes import DictionaryType, TimestampType
from modelpack.errors import ModelError, ModelpackError
from modelpack.flavor import Form
from modelpack.frame import Frame
from modelpack.signature import Column, Param, Signature, Table
from modelpack_server import runner
from modelpack_server.app import assemble
from modelpack_server.facts import Facts
from modelpack_server.settings import Settings


class FunctionModel:
    """A signature and a function: the least that can be served."""

    def __init__(
        self, signature: Signature, function: Callable[[Any, Mapping[str, Any]], Any], *, form: Form = "records"
    ) -> None:
        self.signature = signature
        self.function = function
        self.form: Form = form
        self.calls = 0

    def score(self, frame: Frame, params: Mapping[str, Any]) -> Frame:
        self.calls += 1
        data = render.to(frame, self.form)
        try:
            answer = self.function(data, params)
        except ModelpackError:
            raise
        except Exception as exc:
            raise ModelError(f"the model raised {type(exc).__name__}", code="model-raised") from exc
        changed = any(p.changes_outputs and params[p.name] != p.default for p in self.signature.params)
        return coerce.outputs(answer, None if changed else self.signature.outputs, rows=frame.rows)


class Client:
    """Sends requests straight to an ASGI app."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def score(self, body: Any, **options: Any) -> httpx.Response:
        """POST JSON data (or bytes that claim to be JSON) to /invocations."""
        if isinstance(body, bytes):
            headers = {"Content-Type": "application/json", **options.pop("headers", {})}
            return self.request("POST", "/invocations", content=body, headers=headers, **options)
        return self.request("POST", "/invocations", json=body, **options)

    def send(self, body: bytes, media: str, **options: Any) -> httpx.Response:
        headers = {"Content-Type": media, **options.pop("headers", {})}
        return self.request("POST", "/invocations", content=body, headers=headers, **options)


FACTS = Facts(
    name="echo",
    version="1.2.3",
    digest="sha256:" + "ab" * 32,
    flavor="python",
    trust="code",
    manifest={"modelpack": "1.0", "name": "echo", "signature": {}},
    description="Says what it was told.",
    example={"dataframe_split": {"columns": ["age"], "data": [[1]]}},
)


class Running:
    """A server on a real socket, in a thread of this process."""

    def __init__(self, model: Any, facts: Any, settings: Settings) -> None:
        self.app = assemble(model, facts, settings)
        self.socket = runner.bind(settings)
        ready = threading.Event()
        self.server = runner.Server(self.app, settings, on_ready=ready.set)
        self.thread = threading.Thread(target=self.server.serve_on, args=(self.socket,))
        self.thread.start()
        assert ready.wait(30)
        self.address = self.socket.getsockname()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=30)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def run() -> Iterator[Callable[..., Running]]:
    """Return a function that serves a model on a real socket: ``run(model, threads=…)``."""
    started = []

    def start(model: Any, **settings: Any) -> Running:
        started.append(Running(model, FACTS, Settings(port=0, **settings)))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def facts() -> Facts:
    """Return what is known of a model that is no package."""
    return FACTS


@pytest.fixture
def serve() -> Iterator[Callable[..., Client]]:
    """Return a function that serves a model: ``serve(model, max_body=…)``."""
    apps = []

    def start(model: Any, *, facts: Facts = FACTS, **settings: Any) -> Client:
        app = assemble(model, facts, Settings(**settings))
        apps.append(app)
        return Client(app)

    yield start
    for app in apps:
        app.state.invocations.close()


# One column of each type of the table of silent corruptions, each required and not nullable unless its name says so.
COLUMNS = (
    Column(name="int32", type="int32"),
    Column(name="int64", type="int64"),
    Column(name="flag", type="bool"),
    Column(name="float32", type="float32"),
    Column(name="float64", type="float64"),
    Column(name="text", type="utf8"),
    Column(name="maybe", type="utf8", nullable=True),
    Column(name="blob", type="binary"),
    Column(name="moment", type=TimestampType(unit="us", tz="UTC")),
    Column(name="kind", type=DictionaryType(categories=("a", "b"))),
)
ROW = {
    "int32": 1,
    "int64": 2**60 + 1,
    "flag": True,
    "float32": 0.5,
    "float64": 0.1,
    "text": "x",
    "maybe": None,
    "blob": "YWI=",
    "moment": "2020-01-01T00:00:00Z",
    "kind": "a",
}
PARAMS = (
    Param(name="factor", type="float64", default=1.0),
    Param(name="label", type="utf8", default=None, nullable=True),
)


@pytest.fixture
def typed() -> FunctionModel:
    """Return a model that gives back the rows it got, one column of each type."""
    table = Table(columns=COLUMNS)
    return FunctionModel(Signature(inputs=table, outputs=table, params=PARAMS), lambda rows, params: rows)


@pytest.fixture
def ages() -> FunctionModel:
    """Return a model of one nullable float column that doubles it."""
    inputs = Table(columns=(Column(name="age", type="float64", nullable=True),))
    outputs = Table(columns=(Column(name="double", type="float64", nullable=True),))

    def double(rows: Any, params: Mapping[str, Any]) -> Any:
        return [{"double": None if row["age"] is None else 2 * row["age"] * params["factor"]} for row in rows]

    return FunctionModel(Signature(inputs=inputs, outputs=outputs, params=PARAMS), double)


@pytest.fixture
def model() -> type[FunctionModel]:
    """Return the class of models that are a signature and a function."""
    return FunctionModel


@pytest.fixture
def row() -> dict[str, Any]:
    """Return a row, as JSON writes it, that the typed model takes."""
    return dict(ROW)
