"""From checked data to tensors and back: which array is which input, of which dtype; answers as arrays by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modelpack import coerce, infer, render
from modelpack.errors import ModelpackError, OutputError, SaveError
from modelpack.frame import Frame
from modelpack.signature import Column, Signature, Table, Tensor, Tensors

__all__ = [
    "BATCH",
    "Feed",
    "answers",
    "as_floats",
    "blank",
    "feed_of",
    "flattened",
    "inputs_of",
    "read",
    "to_tensor",
    "wire",
]

BATCH = "batch"


@dataclass(frozen=True, kw_only=True, slots=True)
class Feed:
    """How data becomes a model's inputs.

    ``names`` are the inputs in order, ``dtypes`` torch's names of their types (None: as they come, floats as the
    model's). ``call``: "one" (the only input, by position), "names" (as keywords), "mapping" (all in one dict).
    ``columns``: a table's columns are the inputs, one each; otherwise a table is one matrix.
    """

    names: tuple[str, ...]
    dtypes: tuple[str | None, ...]
    call: str = "one"
    columns: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the feed as it stands in a package's config."""
        inputs = [{"name": name, "dtype": dtype} for name, dtype in zip(self.names, self.dtypes, strict=True)]
        return {"inputs": inputs, "call": self.call, "columns": self.columns}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Feed:
        """Read what :meth:`to_json` gave.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        inputs = value["inputs"]
        names = tuple(str(one["name"]) for one in inputs)
        dtypes = tuple(one["dtype"] for one in inputs)
        known = all(dtype is None or dtype in _DTYPES for dtype in dtypes)
        if not known or value["call"] not in ("one", "names", "mapping") or not isinstance(value["columns"], bool):
            raise ValueError("not a feed")
        return cls(names=names, dtypes=dtypes, call=value["call"], columns=value["columns"])

    def arrays(self, data: Frame) -> list[np.ndarray[Any, Any]]:
        """Return the arrays of the inputs, in order."""
        if data.columns is not None and (self.columns or len(self.names) > 1):
            return [data.columns[name].data for name in self.names]
        if data.columns is not None:
            return [render.to(data, "numpy")]
        tensors = dict(data.tensors or {})
        if len(self.names) == 1 and len(tensors) == 1:
            return list(tensors.values())
        return [tensors[name] for name in self.names]

    def tensors(self, data: Frame, floats: str | None, device: Any) -> list[Any]:
        """Return the tensors of the inputs, in order, on ``device``; ``floats`` is the model's own float type."""
        arrays = self.arrays(data)
        return [to_tensor(a, d, floats, device) for a, d in zip(arrays, self.dtypes, strict=True)]

    def arguments(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and keyword arguments of the model's call."""
        named = dict(zip(self.names, tensors, strict=True))
        if self.call == "names":
            return (), named
        return (tuple(tensors), {}) if self.call == "one" else ((named,), {})


_WORDS = "bool uint8 int8 int16 int32 int64 uint16 uint32 uint64 float16 bfloat16 float32 float64"
_DTYPES = frozenset(_WORDS.split())
# What numpy has no type for is fed as the next wider one.
_WIRE = {"bfloat16": "float32"}


def wire(dtype: str | None) -> str | None:
    """Return the name of the type that data for ``dtype`` is sent in."""
    return _WIRE.get(dtype or "", dtype)


def to_tensor(array: np.ndarray[Any, Any], dtype: str | None, floats: str | None, device: Any) -> Any:
    """Return the array as a tensor of ``dtype``; without one, floats become the model's own."""
    import torch

    if array.dtype == object:
        raise TypeError("a torch model takes numbers")
    wanted = dtype or (floats if array.dtype.kind == "f" else None)
    numpy = wire(wanted)
    if numpy is not None and array.dtype != np.dtype(numpy):
        array = array.astype(numpy)
    if not array.flags.writeable or not array.flags.c_contiguous:
        array = np.array(array, order="C")
    tensor = torch.from_numpy(array)
    if wanted is not None and numpy != wanted:
        tensor = tensor.to(getattr(torch, wanted))
    return tensor.to(device)


def read(example: Any) -> tuple[Frame, Table | Tensors]:
    """Return an example as checked data and as what it is by itself.

    Raises:
        SaveError: it is nothing that has a signature (``example-failed``).
    """
    try:
        io = infer.io(example)
        return (example if isinstance(example, Frame) else coerce.inputs(example, Signature(inputs=io))), io
    except ModelpackError as exc:
        raise SaveError(f"the example cannot be read: {exc.message}", code="example-failed", path="example") from exc


def feed_of(io: Table | Tensors, parameters: Sequence[inspect.Parameter], floats: str | None) -> Feed:
    """Return how data like ``io`` feeds a module whose ``forward`` has these parameters; floats are the model's own.

    A table feeds one input as a matrix, unless its columns are called like the inputs. One tensor is the first input;
    several are inputs by name, or one dict of tensors.

    Raises:
        SaveError: the data does not fit the parameters (``example-failed``).
    """
    names = [one.name for one in parameters]
    required = [one.name for one in parameters if one.default is one.empty]
    first = names[0] if names else "input"
    if isinstance(io, Table):
        given = [column.name for column in io.columns]
        if len(names) > 1 and set(required) <= set(given) <= set(names):
            order = tuple(name for name in names if name in given)
            types = {column.name: _fed(str(column.type), floats) for column in io.columns}
            return Feed(names=order, dtypes=tuple(types[name] for name in order), call="names", columns=True)
        return Feed(names=(first,), dtypes=(floats,))
    types = {tensor.name: _fed(tensor.dtype, floats) for tensor in io.tensors}
    if len(types) == 1 and (set(types) <= {"input", first}) and len(required) <= 1:
        return Feed(names=(first,), dtypes=tuple(types.values()))
    if set(required) <= set(types) <= set(names):
        order = tuple(name for name in names if name in types)
        return Feed(names=order, dtypes=tuple(types[name] for name in order), call="names")
    if len(required) <= 1 and len(types) > 1:
        return Feed(names=tuple(types), dtypes=tuple(types.values()), call="mapping")
    raise SaveError(
        f"the example has {', '.join(types)} where the model's forward takes {', '.join(names) or 'nothing'}",
        code="example-failed",
        path="example",
    )


def blank(parameters: Sequence[inspect.Parameter]) -> Feed:
    """Return the feed of a module of which no example is known: what its ``forward`` must be given."""
    names = [one.name for one in parameters if one.default is one.empty] or [one.name for one in parameters[:1]]
    names = names or ["input"]
    return Feed(names=tuple(names), dtypes=(None,) * len(names), call="names" if len(names) > 1 else "one")


def _fed(dtype: str, floats: str | None) -> str | None:
    return floats if dtype.startswith("float") and floats else dtype


def as_floats(feed: Feed, floats: str | None) -> Feed:
    """Return the feed with integers fed as floats."""
    return replace(feed, dtypes=tuple(floats if d and "int" in d and floats else d for d in feed.dtypes))


def inputs_of(io: Table | Tensors, feed: Feed, shapes: Sequence[Sequence[Any]]) -> Table | Tensors:
    """Return the signature's inputs: what ``io`` is to a model fed so."""
    if isinstance(io, Table):
        types = dict(zip(feed.names, feed.dtypes, strict=True)) if feed.columns else {}
        only = feed.dtypes[0]
        columns = [_typed(column, types[column.name] if feed.columns else only) for column in io.columns]
        return io.model_copy(update={"columns": tuple(columns)})
    nullable = {tensor.name: tensor.nullable for tensor in io.tensors}
    if len(io.tensors) == 1:
        nullable = {feed.names[0]: io.tensors[0].nullable}
    parts = zip(feed.names, feed.dtypes, shapes, strict=True)
    return Tensors(
        tensors=tuple(
            Tensor(
                name=name,
                dtype=wire(dtype),  # type: ignore[arg-type]
                shape=tuple(shape),
                nullable=nullable[name] and (dtype or "").startswith(("float", "bfloat")),
            )
            for name, dtype, shape in parts
        )
    )


def _typed(column: Column, dtype: str | None) -> Column:
    name = wire(dtype)
    return column if name is None or column.type == "bool" else column.model_copy(update={"type": name})


def flattened(answer: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the tensors of an answer with their names: keys and positions, joined by a dot."""
    import torch

    if isinstance(answer, torch.Tensor):
        yield name, answer
    elif isinstance(answer, Mapping):
        for key, value in answer.items():
            yield from flattened(value, f"{name}.{key}" if name else str(key))
    elif isinstance(answer, tuple | list):
        fields = getattr(answer, "_fields", None) or [str(i) for i in range(len(answer))]
        for key, value in zip(fields, answer, strict=True):
            yield from flattened(value, f"{name}.{key}" if name else (key if not key.isdigit() else f"output_{key}"))
    elif answer is not None:
        raise OutputError(
            f"the model's answer holds a {type(answer).__name__}", code="answer-unsupported", path=name or ""
        )


def answers(named: Sequence[tuple[str, Any]], names: Sequence[str | None] | None) -> Any:
    """Return tensors as arrays: one as such, several by name.

    ``names`` are other names, in order; a tensor whose name is None is left out.
    """
    if names is None and len(named) == 1 and not named[0][0]:
        return _array(named[0][1])
    keys = list(names) if names is not None else [name for name, _ in named]
    if len(keys) != len(named):
        raise OutputError(f"the model gave {len(named)} tensors where {len(keys)} are named", code="answer-unsupported")
    return {key: _array(tensor) for key, (_, tensor) in zip(keys, named, strict=True) if key is not None}


def _array(tensor: Any) -> np.ndarray[Any, Any]:
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype in (torch.bfloat16,) or str(tensor.dtype).startswith("torch.float8"):
        tensor = tensor.float()
    array: np.ndarray[Any, Any] = tensor.resolve_conj().resolve_neg().numpy()
    return array
