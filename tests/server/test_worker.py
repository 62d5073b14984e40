"""What a worker does before it listens."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from modelpack_server.facts import Facts
from modelpack_server.worker import warm

FACTS = Facts(name="m", version="1", digest="sha256:00", flavor="python", trust="code", manifest={})


def test_the_example_is_scored_before_the_first_request(ages: Any) -> None:
    warm(ages, replace(FACTS, example={"inputs": {"age": [1.0]}, "params": {"factor": 2}}))
    assert ages.calls == 1


def test_without_an_example_nothing_is(ages: Any) -> None:
    warm(ages, FACTS)
    assert ages.calls == 0


def test_an_example_that_fails_is_only_told(ages: Any, caplog: pytest.LogCaptureFixture) -> None:
    def fail(rows: Any, params: Any) -> Any:
        raise ValueError("m4rk3r")

    ages.function = fail
    caplog.set_level(logging.INFO, "modelpack.server")
    warm(ages, replace(FACTS, example={"inputs": {"age": [1.0]}}))
    assert "the package's own example cannot be scored: model-raised" in caplog.text
    assert "m4rk3r" not in caplog.text
