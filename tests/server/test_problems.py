"""What a client is told: where and why, and never what the server knows beyond that."""

from __future__ import annotations

import json
import logging

import pytest

from modelpack.errors import Fault, FlavorError, InputError, ModelError, OutputError
from modelpack_server.problems import MAX_FAULTS, HttpProblem, respond


def test_a_fault_in_the_data_is_400_with_all_that_is_known() -> None:
    faults = [
        Fault("not-whole", "inputs.a[0]", "a fraction", row=0, column="a"),
        Fault("not-whole", "inputs.a[1]", "a fraction", row=1, column="a"),
    ]
    reply = respond(InputError.from_faults(faults, hint="Send integers."), "r1")
    assert reply.status_code == 400
    assert reply.media_type == "application/problem+json"
    assert json.loads(bytes(reply.body)) == {
        "title": "Bad Request",
        "status": 400,
        "detail": "inputs.a[0]: a fraction",
        "error_code": "BAD_REQUEST",
        "message": "a fraction",
        "code": "not-whole",
        "path": "inputs.a[0]",
        "row": 0,
        "column": "a",
        "hint": "Send integers.",
        "faults": [
            {"code": "not-whole", "path": "inputs.a[0]", "message": "a fraction", "row": 0, "column": "a"},
            {"code": "not-whole", "path": "inputs.a[1]", "message": "a fraction", "row": 1, "column": "a"},
        ],
    }


def test_only_the_first_faults_are_told() -> None:
    faults = [Fault("not-whole", f"[{row}]", "a fraction") for row in range(100)]
    assert len(json.loads(bytes(respond(InputError.from_faults(faults), "r").body))["faults"]) == MAX_FAULTS


def test_a_path_by_position_is_told_with_the_column() -> None:
    fault = Fault("not-whole", "dataframe_split.data[0][1]", "a fraction", row=0, column="age")
    body = json.loads(bytes(respond(InputError.from_faults([fault]), "r").body))
    assert body["detail"] == "dataframe_split.data[0][1] (column 'age'): a fraction"


def test_a_refusal_carries_its_headers() -> None:
    reply = respond(HttpProblem(415, "no", code="x", headers={"Accept": "application/json"}), "r1")
    assert reply.status_code == 415
    assert reply.headers["accept"] == "application/json"
    assert json.loads(bytes(reply.body)) == {
        "title": "Unsupported Media Type",
        "status": 415,
        "detail": "no",
        "error_code": "BAD_REQUEST",
        "message": "no",
        "code": "x",
    }


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as exc:
        return exc


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            raised(ModelError("the model raised with secret", code="model-raised"), KeyError("secret")),
            "model-raised",
            "the model raised KeyError",
        ),
        (ModelError("secret", code="model-raised"), "model-raised", "the model raised an exception"),
        (OutputError("wrong shape", code="shape-mismatch", path="score"), "shape-mismatch", "wrong shape"),
        (
            FlavorError("no secret/path here", code="flavor-unknown"),
            "flavor-unknown",
            "the server could not score this request",
        ),
        (raised(ValueError("secret")), "internal-error", "the server failed on this request"),
    ],
)
def test_our_own_failures_are_500_with_an_id_and_a_trace_in_the_log(
    error: Exception, code: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "modelpack.server")
    reply = respond(error, "req-7")
    body = json.loads(bytes(reply.body))
    assert (reply.status_code, body["code"], body["message"], body["id"]) == (500, code, message, "req-7")
    assert body["error_code"] == "INTERNAL_ERROR"
    assert body["hint"] == "The server's log has the trace under this id."
    assert "secret" not in bytes(reply.body).decode()
    assert "req-7" in caplog.text
    if not isinstance(error, FlavorError):
        assert "secret" not in caplog.text


def test_an_answer_that_does_not_fit_names_the_output() -> None:
    body = json.loads(bytes(respond(OutputError("wrong", code="x", path="predictions.score"), "r").body))
    assert body["path"] == "predictions.score"
