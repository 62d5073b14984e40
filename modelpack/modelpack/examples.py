"""Examples: a request and the answer recorded for it, both as the very bodies HTTP carries (spec/07-examples.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelpack import coerce, document, forms, render
from modelpack.fieldpath import join
from modelpack.frame import Frame
from modelpack.manifest import Example, Tolerance
from modelpack.model import Model

__all__ = ["MAX_ROWS", "Outcome", "check", "request", "request_bytes", "response_bytes"]

# The signature is inferred from all rows of the example; this many are kept in the package.
MAX_ROWS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one example came out: the places in which the answer differs from the recorded one."""

    name: str
    rows: int
    differences: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the answer is the recorded one."""
        return not self.differences


def request_bytes(frame: Frame) -> bytes:
    """Return the example's request: an ``/invocations`` body that parses back to the same frame."""
    return document.dump(forms.build(frame))


def response_bytes(answer: Frame) -> bytes:
    """Return the example's answer: the body that ``/invocations`` would reply."""
    return document.dump({"predictions": render.plain(answer)})


def request(model: Model, example: Example) -> tuple[Frame, dict[str, Any]]:
    """Return the data and the params of the example's request, coerced.

    Raises:
        InputError: it does not fit the signature.
    """
    body = document.parse(model.package.files().read(example.input), max_integer=2**64 - 1)
    invocation = forms.parse(body, signature=model.signature)
    frame = coerce.inputs(invocation.data, model.signature, wire="json", at=invocation.at)
    return frame, coerce.params(invocation.params, model.signature, wire="json")


def check(model: Model, example: Example) -> Outcome:
    """Score the example's request and compare the answer with the recorded one.

    Raises:
        InputError, ModelError, OutputError: the request cannot be scored any more.
    """
    frame, params = request(model, example)
    answer = model.score(frame, params)
    differences: tuple[str, ...] = ()
    if example.output is not None:
        wanted = document.parse(model.package.files().read(example.output), max_integer=2**64 - 1)["predictions"]
        got = document.parse(document.dump(render.plain(answer)), max_integer=2**64 - 1)
        differences = tuple(_differences(wanted, got, example.tolerance, "predictions"))
    return Outcome(name=example.name, rows=frame.rows, differences=differences)


def _differences(wanted: Any, got: Any, tolerance: Tolerance, path: str) -> Iterator[str]:
    match wanted, got:
        case list(), list() if len(wanted) == len(got):
            for i, (one, other) in enumerate(zip(wanted, got, strict=True)):
                yield from _differences(one, other, tolerance, join(path, i))
        case dict(), dict() if wanted.keys() == got.keys():
            for key in wanted:
                yield from _differences(wanted[key], got[key], tolerance, join(path, key))
        case bool(), _:
            if wanted is not got:
                yield f"{path}: recorded {wanted}, now {_short(got)}"
        case ((int() | float()), (int() | float())) if not isinstance(got, bool):
            if not _close(wanted, got, tolerance):
                yield f"{path}: recorded {wanted}, now {got}"
        case _:
            if type(wanted) is not type(got) or wanted != got:
                yield f"{path}: recorded {_short(wanted)}, now {_short(got)}"


def _close(wanted: float, got: float, tolerance: Tolerance) -> bool:
    if isinstance(wanted, int) and isinstance(got, int):
        return wanted == got
    return math.isclose(wanted, got, rel_tol=0, abs_tol=tolerance.atol + tolerance.rtol * abs(wanted))


def _short(value: Any) -> str:
    match value:
        case list():
            return f"a list of {len(value)}"
        case Mapping():
            return f"an object with {', '.join(map(str, value))}"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
