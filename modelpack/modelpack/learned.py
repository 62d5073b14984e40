"""What an example teaches when a model is saved: its signature, and the answer to be recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from modelpack import coerce, infer, render
from modelpack.dtypes import DictionaryType
from modelpack.errors import SaveError
from modelpack.flavor import Saved
from modelpack.frame import Frame
from modelpack.signature import IO, Column, Json, Signature, Table, Tensor, Tensors

__all__ = ["Learned", "learn"]

_Part = TypeVar("_Part", Column, Tensor)


@dataclass(frozen=True, kw_only=True, slots=True)
class Learned:
    """The signature of a saved model, and, if there was an example, the example and its answer, coerced."""

    signature: Signature
    frame: Frame | None = None
    answer: Frame | None = None


def learn(saved: Saved, example: Any, given: Signature | None) -> Learned:
    """Return the signature (the caller's, else the example's, else the flavor's), the example, and its answer.

    Raises:
        SaveError: the model raises on the example (``example-failed``).
        InputError, OutputError, SignatureError: example, answer and signature do not fit together.
    """
    own = saved.signature or Signature()
    params = given.params if given and given.params else tuple(saved.params) or own.params
    inputs = (
        (given.inputs if given else None)
        or (saved.inputs if example is not None else None)
        or (
            _with_nulls(_with_categories(infer.io(example), own.inputs), saved.nulls)
            if example is not None
            else own.inputs
        )
    )
    outputs = (given.outputs if given else None) or saved.outputs
    signature = Signature(inputs=inputs, outputs=outputs, params=params)
    coerce.check_defaults(signature)
    if example is None:
        return Learned(signature=_with_outputs(signature, outputs or own.outputs))
    frame = coerce.inputs(example, signature, at="example")
    values = coerce.params(None, signature)
    data = render.to(frame, saved.predictor.form)
    try:
        raw = saved.predictor.predict(data, values)
    except Exception as exc:
        raise SaveError(
            f"the model raised {type(exc).__name__} on the example: {exc}",
            code="example-failed",
            path="example",
            hint="Give an example that the model can score, or none.",
        ) from exc
    io = outputs or _answer_io(raw, frame.rows)
    answer = coerce.outputs(raw, io, rows=frame.rows)
    return Learned(signature=_with_outputs(signature, io), frame=frame, answer=answer)


def _with_outputs(signature: Signature, outputs: IO | None) -> Signature:
    return Signature(inputs=signature.inputs, outputs=outputs, params=signature.params)


def _with_nulls(io: Table | Tensors, nulls: bool | Mapping[str, bool] | None) -> Table | Tensors:
    """Let the model say where values may be missing; the example decides where the model does not say."""
    if nulls is None:
        return io

    def says(name: str, now: bool) -> bool:
        return nulls if isinstance(nulls, bool) else nulls.get(name, now)

    if isinstance(io, Table):
        return Table(
            kind="table",
            columns=tuple(_copy(c, nullable=says(c.name, c.nullable)) for c in io.columns),
            extra_columns=io.extra_columns,
        )
    return Tensors(
        kind="tensors",
        tensors=tuple(_copy(t, nullable=t.dtype.startswith("float") and says(t.name, t.nullable)) for t in io.tensors),
    )


def _with_categories(io: Table | Tensors, own: Table | Tensors | None) -> Table | Tensors:
    """Take the categories of a column from the model where it knows them: an example may have only some."""
    if not isinstance(io, Table) or not isinstance(own, Table):
        return io
    known = {c.name: c.type.categories for c in own.columns if isinstance(c.type, DictionaryType)}

    def typed(column: Column) -> Column:
        kind, categories = column.type, known.get(column.name)
        if not isinstance(kind, DictionaryType) or not set(kind.categories or ()) <= set(categories or ()):
            return column
        return column.model_copy(update={"type": kind.model_copy(update={"categories": categories})})

    return Table(kind="table", columns=tuple(map(typed, io.columns)), extra_columns=io.extra_columns)


def _answer_io(raw: Any, rows: int) -> IO:
    """Return the outputs' signature: what the answer looks like, and NaN allowed, since an answer is the model's own.

    An answer that is not one row for each row of the input is JSON: nothing can be said of its shape.
    """
    io = infer.answer(raw)
    if isinstance(io, Json) or coerce.outputs(raw, io).rows != rows:
        return Json(kind="json")
    return _with_nulls(io, True)


def _copy(part: _Part, *, nullable: bool) -> _Part:
    return part.model_copy(update={"nullable": nullable})
