"""The signature of data: ``modelpack.infer_signature`` (the work is in :mod:`modelpack.coerce.guess`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelpack.coerce.cells import cell
from modelpack.coerce.guess import answer, io
from modelpack.coerce.kinds import of_values
from modelpack.coerce.written import json_value
from modelpack.errors import SignatureError
from modelpack.signature import Param, Signature

__all__ = ["answer", "io", "param", "signature"]


def signature(inputs: Any, outputs: Any = None, params: Mapping[str, Any] | None = None) -> Signature:
    """Return the signature that example inputs, outputs and params show; it takes the data it came from.

    ``inputs``: a DataFrame, Series, dict of columns or arrays, list of records, array, sparse matrix or Arrow table.
    A missing value in a column makes it nullable. ``params``: default values by name.

    Raises:
        SignatureError: some of it has no signature (columns without names, dtypes without a type).
    """
    return Signature(
        inputs=None if inputs is None else io(inputs),
        outputs=None if outputs is None else answer(outputs),
        params=tuple(param(name, value) for name, value in (params or {}).items()),
    )


def param(name: str, default: Any) -> Param:
    """Return the param whose type is that of its default; a param without a default value (None) takes anything."""
    kind, missing = of_values([default])
    if missing:
        return Param(name=name, type="any", nullable=True)
    try:
        return Param(name=name, type=kind, default=json_value(cell(default, kind, "python"), kind))
    except ValueError as exc:
        raise SignatureError(f"param {name!r}: {exc}", code="param-invalid") from None
