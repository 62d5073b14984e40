"""Logs hold what finds a fault and nothing of what was sent."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from modelpack.errors import ModelError, OutputError
from modelpack_server import logs
from modelpack_server.settings import Settings

SECRET = "secret"


def failure() -> Exception:
    try:
        try:
            float(SECRET)
        except ValueError as exc:
            raise ModelError(SECRET, code="model-raised") from exc
    except ModelError as exc:
        return exc


@pytest.fixture(autouse=True)
def untouched_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("modelpack", "uvicorn")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate


def test_a_trace_has_frames_and_types_but_no_foreign_text() -> None:
    text = logs.trace(failure())
    assert "secret" not in text
    assert text.count("Traceback (most recent call last):") == 2
    assert "ValueError: (text left out" in text
    assert "modelpack.errors.ModelError: (text left out" in text
    assert "in failure" in text


def test_our_own_messages_stay() -> None:
    assert "OutputError: predictions: too short" in logs.trace(OutputError("too short", code="x", path="predictions"))


def test_the_context_is_followed_and_a_circle_ends() -> None:
    error = KeyError("a")
    error.__context__ = IndexError("b")
    error.__context__.__context__ = error
    text = logs.trace(error)
    assert text.count("Traceback") == 2
    error.__suppress_context__ = True
    assert logs.trace(error).count("Traceback") == 1


def test_level_debug_shows_all() -> None:
    assert "could not convert string to float: 'secret'" in logs.trace(failure(), messages=True)


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings())
    logging.getLogger("modelpack.server").info("hello %s", "you")
    logging.getLogger("uvicorn.error").info("quiet")
    line = capsys.readouterr().err
    assert line.endswith("INFO    hello you\n")
    assert "quiet" not in line


def test_json_lines_with_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings(json_logs=True))
    try:
        float(SECRET)
    except ValueError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")
    record = json.loads(capsys.readouterr().err)
    assert record["level"] == "error"
    assert record["logger"] == "uvicorn.error"
    assert "ValueError: (text left out" in record["trace"]
    assert "'secret'" not in record["trace"]
    logging.getLogger("modelpack.server").warning("plain")
    assert "trace" not in json.loads(capsys.readouterr().err)


def test_plain_lines_leave_out_the_text_of_exceptions(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings())
    try:
        float(SECRET)
    except ValueError:
        logging.getLogger("modelpack.server").exception("oops")
    lines = capsys.readouterr().err
    assert "(text left out" in lines
    assert "'secret'" not in lines


def test_a_record_without_an_exception_has_no_trace() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "m", None, (None, None, None))
    assert json.loads(logs.JsonFormatter(messages=False).format(record))["trace"] == ""
    assert sys.exc_info() == (None, None, None)
