"""Whether a model scores each row by itself, so that requests may be scored together without changing an answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from modelpack import coerce
from modelpack.errors import ModelpackError
from modelpack.frame import Frame, Vector
from modelpack_server.codecs import json_body
from modelpack_server.invocation.merging import by_rows
from modelpack_server.invocation.work import Scorer

__all__ = ["gathers", "scores_rows_alone"]

# Kernels choose other orders of addition for other numbers of rows. A model that looks at its neighbours differs by far
# more than that.
RTOL, ATOL = 1e-2, 1e-3

log = logging.getLogger("modelpack.server")


def gathers(
    model: Scorer, *, wish: str, trust: str, tags: Mapping[str, str], example: Mapping[str, Any] | None
) -> bool:
    """Say whether requests to the model are gathered.

    ``wish`` is the server's setting: "on", "off", or "auto". With "auto" the package's tag ``batching`` decides, and
    without one: models of code, whose functions may look at several rows at once, are left alone, and all others must
    give each row of their example what it gets alone.
    """
    if not by_rows(model.signature) or wish == "off":
        return False
    said = tags.get("batching", "auto") if wish == "auto" else wish
    if said in ("on", "off"):
        return said == "on"
    if trust == "code":
        return False
    if example is None or scores_rows_alone(model, example):
        return True
    log.warning("rows scored together get other answers than alone: requests are not gathered")
    return False


def scores_rows_alone(model: Scorer, example: Mapping[str, Any]) -> bool:
    """Say whether the rows of an ``/invocations`` body get the same answers together as one by one."""
    try:
        decoded = json_body.decode(json.dumps(example).encode(), model.signature)
        frame = coerce.inputs(decoded.data, model.signature, wire="json", at=decoded.at)
        params = coerce.params(decoded.params, model.signature, wire="json")
        if frame.rows < 2:
            return True
        together = model.score(frame, params)
        alone = [model.score(frame.slice(row, row + 1), params) for row in range(frame.rows)]
    except ModelpackError:
        return False
    return all(_same(together.slice(row, row + 1), one) for row, one in enumerate(alone))


def _same(one: Frame, other: Frame) -> bool:
    if list(one) != list(other) or one.rows != other.rows:
        return False
    if one.columns is not None and other.columns is not None:
        return all(_equal(_values(one.columns[name]), _values(other.columns[name])) for name in one)
    tensors, others = one.tensors or {}, other.tensors or {}
    return all(_equal(tensors[name], others[name]) for name in one)


def _values(vector: Vector) -> Any:
    if vector.missing is None or vector.data.dtype.kind in "fmMO":
        return vector.data
    values = vector.data.astype(object)
    values[vector.missing] = None
    return values


def _equal(one: Any, other: Any) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind == "f":
        return bool(np.allclose(one, other, rtol=RTOL, atol=ATOL, equal_nan=True))
    if one.dtype.kind in "mM":
        return bool(np.array_equal(one, other, equal_nan=True))
    return bool(np.array_equal(one, other))
