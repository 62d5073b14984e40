"""The four JSON forms of an ``/invocations`` body: read, and written.

Where MLflow ignores what it does not know (``signature_name``, a misspelt ``parms``), modelpack refuses it by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelpack.coerce import Split
from modelpack.coerce.faults import field
from modelpack.coerce.scalars import kind
from modelpack.coerce.written import json_value
from modelpack.errors import InputError
from modelpack.frame import Frame
from modelpack.signature import Signature

__all__ = ["FORMS", "Invocation", "build", "parse"]

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_LLM = frozenset({"messages", "prompt", "input"})
_SPLIT = frozenset({"columns", "index", "data"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Invocation:
    """A parsed body: ``data`` and ``at`` for :func:`modelpack.coerce.inputs` with wire ``json``, and the params."""

    data: Any
    params: Mapping[str, Any] | None
    at: str


def parse(body: object, *, signature: Signature) -> Invocation:
    """Return what an ``/invocations`` body holds, in whichever of the four forms.

    ``dataframe_split`` ({columns, index, data}; the index means nothing here), ``dataframe_records`` (a list of
    objects), ``instances`` (a list with one entry per row), ``inputs`` (an object of columns or tensors, or what
    ``instances`` takes), and with any of them ``params`` (an object).

    Raises:
        InputError: none of the forms or several, keys that do not belong, or a form that is not built as it must be.
    """
    if not isinstance(body, Mapping):
        raise _refuse("form-invalid", "", f"{kind(body)} where an object is expected")
    found = [form for form in FORMS if form in body]
    extra = [key for key in body if key not in FORMS and key != "params"]
    if extra and _LLM.intersection(extra) and not found:
        raise _refuse("form-invalid", _path(extra[0]), "chat and completion requests are not served here", hint=_ONE_OF)
    if extra:
        raise _refuse("form-invalid", _path(extra[0]), "a key that does not belong in an invocation", hint=_ONE_OF)
    if len(found) != 1:
        what = "none of the forms" if not found else f"more than one form ({' and '.join(found)})"
        raise _refuse("form-invalid", found[1] if found else "", f"the body holds {what}", hint=_ONE_OF)
    params = body.get("params")
    if params is not None and not isinstance(params, Mapping):
        raise _refuse("type-mismatch", "params", f"{kind(params)} where an object of params is expected")
    form = found[0]
    return Invocation(data=_data(form, body[form]), params=params, at=form)


_ONE_OF = f"Send exactly one of {', '.join(FORMS)}, and params if the model has any."


def _data(form: str, value: Any) -> Any:
    if form == "dataframe_split":
        return _split(value)
    if form == "dataframe_records":
        if not isinstance(value, list):
            raise _refuse("type-mismatch", form, f"{kind(value)} where a list of records is expected")
        for row, record in enumerate(value):
            if not isinstance(record, Mapping):
                raise _refuse("type-mismatch", f"{form}[{row}]", f"{kind(record)} where a record is expected")
    if form == "inputs" and value == {}:
        raise _refuse("form-invalid", form, "an object without a column or tensor does not say how many rows there are")
    if form == "instances" and not isinstance(value, list):
        raise _refuse("type-mismatch", form, f"{kind(value)} where a list with one entry per row is expected")
    return value


def _split(value: Any) -> Split:
    if not isinstance(value, Mapping):
        raise _refuse("type-mismatch", "dataframe_split", f"{kind(value)} where an object is expected")
    for key in value:
        if key not in _SPLIT:
            raise _refuse("form-invalid", "dataframe_split" + field(str(key)), "a key that does not belong here")
    if not isinstance(value.get("data"), list):
        raise _refuse("type-mismatch", "dataframe_split.data", f"{kind(value.get('data'))} where rows are expected")
    columns = value.get("columns")
    if columns is not None and not isinstance(columns, list):
        raise _refuse("type-mismatch", "dataframe_split.columns", f"{kind(columns)} where a list is expected")
    return Split(columns, value["data"])


def _path(key: Any) -> str:
    return field(str(key)).removeprefix(".")


def _refuse(code: str, path: str, message: str, hint: str = "") -> InputError:
    return InputError(message, code=code, path=path, hint=hint)


def build(frame: Frame) -> dict[str, Any]:
    """Return the body that :func:`parse` and coercion turn back into the same frame, exactly.

    A table is written as ``dataframe_split``, tensors as ``inputs``.

    Raises:
        InputError: a value has no JSON form, such as an infinity (``json-unwritable``).
    """
    if frame.columns is None:
        tensors = {name: _tensor(name, array) for name, array in (frame.tensors or {}).items()}
        return {"inputs": tensors}
    names = list(frame.columns)
    parts = [_column(name, frame) for name in names]
    rows = [list(row) for row in zip(*parts, strict=True)] if names else [[] for _ in range(frame.rows)]
    return {"dataframe_split": {"columns": names, "data": rows}}


def _column(name: str, frame: Frame) -> list[Any]:
    vector = (frame.columns or {})[name]
    out: list[Any] = []
    values = list(vector.data) if vector.data.dtype.kind in "mM" else vector.data.tolist()
    for row, value in enumerate(values):
        if vector.missing is not None and vector.missing[row]:
            out.append(None)
            continue
        out.append(_written(value, vector.type, f"{name}[{row}]"))
    return out


def _tensor(name: str, array: Any) -> Any:
    kind_of = {"O": "any", "f": "float64"}.get(array.dtype.kind)
    if kind_of is None:
        return array.tolist()
    if array.ndim == 0:
        return _leaf(array[()], kind_of, name)
    return [
        _tensor(f"{name}[{row}]", part) if array.ndim > 1 else _leaf(part, kind_of, f"{name}[{row}]")
        for row, part in enumerate(array)
    ]


def _leaf(value: Any, dtype: str, path: str) -> Any:
    return _written(value, "binary" if isinstance(value, bytes) else dtype, path)


def _written(value: Any, dtype: Any, path: str) -> Any:
    try:
        return json_value(value, dtype)
    except ValueError as exc:
        raise InputError(str(exc), code="json-unwritable", path=path) from None
