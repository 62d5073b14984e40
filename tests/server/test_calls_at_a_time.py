"""How many calls of a model run at a time: code that came with a package need not be made for more than one."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from modelpack_server.facts import Facts

BODY = {"dataframe_split": {"columns": ["age"], "data": [[1.0]]}}


class Together:
    """A function that waits for a second call of it for a moment, and says whether one came."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)

    def __call__(self, rows: Any, params: Any) -> Any:
        try:
            self.barrier.wait(timeout=0.5)
        except threading.BrokenBarrierError:
            self.barrier.reset()
            return [{"double": 1.0}]
        return [{"double": 2.0}]


@pytest.mark.parametrize(
    ("trust", "settings", "together"),
    [("code", {}, False), ("code", {"threads": 2}, True), ("data", {}, True), ("data", {"threads": 1}, False)],
)
def test_calls_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
    serve: Callable[..., Any],
    ages: Any,
    facts: Facts,
    trust: str,
    settings: dict[str, int],
    together: bool,
) -> None:
    monkeypatch.setattr("modelpack_server.settings.usable_cores", lambda: 2)
    ages.function = Together()
    client = serve(ages, facts=dataclasses.replace(facts, trust=trust), batching="off", **settings)

    async def ask() -> list[Any]:
        transport = httpx.ASGITransport(app=client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://model") as http:
            replies = await asyncio.gather(*(http.post("/invocations", json=BODY) for _ in range(2)))
        return [reply.json()["predictions"][0]["double"] for reply in replies]

    assert asyncio.run(ask()) == [2.0 if together else 1.0] * 2
