"""What an audited program says of itself: its inputs and answers as a signature."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from modelpack.audits import pt2
from modelpack.signature import Tensor, Tensors
from modelpack_flavors._torch.feeding import BATCH, Feed, wire

__all__ = ["count", "feed_of", "inputs_of", "named", "outputs_of"]

_SYMBOL = re.compile(r"Symbol\('(\w+)'(, \w+=True)*\)\Z")
_FLOATS = ("float", "bfloat")


def feed_of(contents: pt2.Contents) -> Feed:
    """Return how data feeds a program of which no more is known than what stands in it."""
    users = [one for one in contents.program.inputs if one.kind == "user"]
    return Feed(names=tuple(one.name for one in users), dtypes=tuple(one.dtype for one in users))


def count(contents: pt2.Contents) -> int:
    """Return how many tensors a program answers with."""
    return sum(one.value is not None for one in contents.program.outputs)


def named(feed: Feed, shapes: Sequence[Sequence[Any]]) -> Sequence[tuple[str, Sequence[Any]]]:
    """Return the inputs' shapes by name."""
    return list(zip(feed.names, shapes, strict=True))


def inputs_of(contents: pt2.Contents) -> Tensors:
    """Return the inputs of a program; the first dimension that is free is called that of the batch."""
    users = [one for one in contents.program.inputs if one.kind == "user"]
    first = next((symbol for one in users if one.shape and (symbol := _symbol(one.shape[0]))), None)

    def dim(size: int | str) -> int | str | None:
        symbol = _symbol(size)
        return size if isinstance(size, int) else BATCH if symbol and symbol == first else symbol

    return Tensors(
        tensors=tuple(_tensor(one.name, one.dtype, [dim(size) for size in one.shape], nan=False) for one in users)
    )


def outputs_of(
    contents: pt2.Contents, shapes: Sequence[tuple[str, Sequence[Any]]], names: Sequence[str | None] | None
) -> Tensors | None:
    """Return the answers of a program whose rows are the batch's, None if some are not; ``shapes`` are the inputs'.

    A dimension that is as free as one of the inputs has its name.
    """
    known: dict[str, str] = {}
    users = [one for one in contents.program.inputs if one.kind == "user"]
    for user, (_, shape) in zip(users, shapes, strict=True):
        for size, dim in zip(user.shape, shape, strict=True):
            symbol = _symbol(size)
            if symbol and isinstance(dim, str):
                known[symbol] = dim
    answers = [one for one in contents.program.outputs if one.value is not None]
    found = []
    for name, one in zip(names or ["prediction"], answers, strict=True):
        if name is None:
            continue
        dims = [size if isinstance(size, int) else known.get(_symbol(size) or "") for size in one.shape or ()]
        if not dims or dims[0] != BATCH or wire(one.dtype) not in _WIRE_TYPES:
            return None
        found.append(_tensor(name, one.dtype, dims, nan=True))
    return Tensors(tensors=tuple(found))


_WIRE_TYPES: Mapping[Any, None] = dict.fromkeys(
    ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
)


def _tensor(name: str, dtype: str, shape: Sequence[int | str | None], *, nan: bool) -> Tensor:
    kind: Any = wire(dtype)
    return Tensor(name=name, dtype=kind, shape=tuple(shape), nullable=nan and dtype.startswith(_FLOATS))


def _symbol(size: int | str) -> str | None:
    """Return the name of a size that is free and no more than that."""
    found = _SYMBOL.match(size) if isinstance(size, str) else None
    return found[1] if found else None
