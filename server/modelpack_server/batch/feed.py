"""From the rows of a file to what the model takes: the same coercion as everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from modelpack import coerce
from modelpack.coerce.columns import physical
from modelpack.dtypes import Item
from modelpack.errors import Fault, InputError
from modelpack.frame import Frame, Vector
from modelpack.signature import Signature, Table, Tensors
from modelpack_server.batch import kept_text
from modelpack_server.batch.chunks import Chunk, Wanted
from modelpack_server.batch.options import Options
from modelpack_server.batch.rejects import MAX_FAULTS
from modelpack_server.batch.sifting import sieve
from modelpack_server.batch.where.grammar import parse
from modelpack_server.codecs import arrow_tensors, lines_apart
from modelpack_server.codecs.json_body import wants_whole
from modelpack_server.codecs.typed import typed

__all__ = ["Fed", "Group", "apart", "feed", "wanted", "with_optional"]

# The rows that fit, their numbers in the chunk (None: all), and what is wrong with the others.
Fed = tuple[Frame, np.ndarray[Any, Any] | None, list[Fault]]
# Rows that go to the model together, as it takes them, and their numbers in the chunk.
Group = tuple[Frame, lines_apart.Places]


def wanted(signature: Signature, options: Options) -> Wanted:
    """Return the columns that must be read."""
    inputs = signature.inputs
    # A table that rejects extra columns must see them; tensors are made of all columns.
    named = isinstance(inputs, Table) and inputs.extra_columns == "ignore"
    names = [column.name for column in inputs.columns] if named and isinstance(inputs, Table) else None
    written_again = options.keep is None or names is None or not set(options.keep) <= set(names)
    return Wanted(
        inputs=names,
        keep=options.keep,
        whole=written_again or wants_whole(signature) or options.where is not None,
        sieve=sieve(parse(options.where), signature) if options.where else None,
    )


def feed(chunk: Chunk, signature: Signature, keep: Sequence[str] | None, *, tolerant: bool) -> Fed:
    """Coerce the rows of a chunk to the signature; ``tolerant`` sorts out those that do not fit.

    Rows do not fit either that have text to ``keep`` that cannot be written.

    Raises:
        InputError: rows that do not fit, or (tolerant or not) a whole that does not: a column is missing.
    """
    unwritable = kept_text.faults(chunk, keep)
    if not unwritable:
        return _fed(chunk, signature, keep, tolerant=tolerant)
    frame, rows, wrong = _fed(chunk, signature, keep, tolerant=True)
    told = {(fault.row, fault.column) for fault in wrong}
    faults = [*wrong, *(fault for fault in unwritable if (fault.row, fault.column) not in told)]
    faults.sort(key=lambda fault: fault.row or 0)
    if not tolerant:
        raise InputError.from_faults(faults[:MAX_FAULTS])
    found = np.arange(len(chunk)) if rows is None else rows
    written = ~np.isin(found, [fault.row for fault in unwritable if fault.row is not None])
    return frame.take(np.flatnonzero(written)), found[written], faults


def _fed(chunk: Chunk, signature: Signature, keep: Sequence[str] | None, *, tolerant: bool) -> Fed:
    if (frame := _tensors(chunk, signature)) is not None:
        return frame, None, []
    data, wire = _shaped(chunk, signature, keep), chunk.wire
    if not len(chunk):
        _check_columns(chunk, signature)
    if wire == "text" and isinstance(data, pa.Table):
        data = typed(data, signature)
    if not tolerant:
        return coerce.inputs(data, signature, wire=wire), None, []
    frame, rows, faults = coerce.tolerant(data, signature, wire=wire)
    return frame, (None if len(rows) == len(chunk) else rows), faults


def apart(
    chunk: Chunk,
    groups: Sequence[lines_apart.Places],
    signature: Signature,
    keep: Sequence[str] | None,
    *,
    tolerant: bool,
) -> tuple[list[Group], list[Fault]]:
    """Coerce the rows of a chunk group by group, as :func:`feed` does; return those that fit, and all faults.

    Raises:
        InputError: rows that do not fit, unless ``tolerant``.
    """
    found: list[Group] = []
    faults: list[Fault] = []
    for places in groups:
        part = replace(chunk, data=lines_apart.part(chunk.data, places), numbers=chunk.numbers[places], lines=None)
        try:
            frame, rows, wrong = feed(part, signature, keep, tolerant=tolerant)
        except InputError as exc:
            if any(fault.row is None for fault in exc.faults):
                raise
            wrong = list(exc.faults)
        else:
            if frame.rows:
                found.append((frame, places if rows is None else places[rows]))
        faults += lines_apart.told(wrong, places)
    faults.sort(key=lambda fault: fault.row or 0)
    if faults and not tolerant:
        raise InputError.from_faults(faults[:MAX_FAULTS])
    return found, faults


def with_optional(frame: Frame, signature: Signature) -> Frame:
    """Return what the model saw with the optional columns that it did not see, all missing: they have types too."""
    inputs, columns = signature.inputs, frame.columns
    if not isinstance(inputs, Table) or columns is None or all(column.name in columns for column in inputs.columns):
        return frame
    whole = {column.name: columns.get(column.name) or _blank(column.type, frame.rows) for column in inputs.columns}
    return Frame(rows=frame.rows, columns=whole)


def _blank(dtype: Item, rows: int) -> Vector:
    physical_dtype, filler = physical(dtype)
    return Vector(type=dtype, data=np.full(rows, filler, physical_dtype), missing=np.ones(rows, dtype=bool))


def _tensors(chunk: Chunk, signature: Signature) -> Frame | None:
    """Return the columns of an Arrow table that are called like the tensors, if all of them fit as they are."""
    inputs, data = signature.inputs, chunk.data
    if not isinstance(inputs, Tensors) or chunk.wire != "python" or not isinstance(data, pa.Table) or not len(chunk):
        return None
    names = [tensor.name for tensor in inputs.tensors]
    if not set(names) <= set(data.column_names):
        return None
    columns = arrow_tensors.tensors(data.select(names), inputs)
    if not isinstance(columns, dict):
        return None
    try:
        # Memory of Arrow is only lent; a model may write into what it is given.
        return coerce.inputs({name: _owned(column) for name, column in columns.items()}, signature)
    except InputError:
        # Which rows do not fit is told by looking at them one by one.
        return None


def _owned(column: Any) -> Any:
    return column.copy() if isinstance(column, np.ndarray) and not column.flags.writeable else column


def _check_columns(chunk: Chunk, signature: Signature) -> None:
    """Miss columns in a file without rows too, where coercion has nothing to look at."""
    if not isinstance(signature.inputs, Table) or isinstance(chunk.data, list):
        return
    for column in signature.inputs.columns:
        if column.name not in chunk.data.column_names and not column.optional:
            message = f"column {column.name!r} is missing"
            raise InputError.from_faults([Fault("column-missing", "", message, column=column.name)])


def _shaped(chunk: Chunk, signature: Signature, keep: Sequence[str] | None) -> Any:
    """Return the data in a form that coercion knows: for tensors only the columns they are made of."""
    if not isinstance(signature.inputs, Tensors):
        return chunk.data
    names = [tensor.name for tensor in signature.inputs.tensors]
    if isinstance(chunk.data, list):
        return [{name: record[name] for name in names if name in record} for record in chunk.data]
    if set(names) <= set(chunk.data.column_names):
        return chunk.data.select(names).to_pylist()
    return _features(chunk.data, signature.inputs, keep)


def _features(table: pa.Table, inputs: Tensors, keep: Sequence[str] | None) -> pa.Table:
    """Return the columns that are the tensor's second dimension: all, or, if those are too many, all not kept."""
    shape = inputs.tensors[0].shape
    width = shape[1] if len(shape) == 2 else None
    if keep and isinstance(width, int) and table.num_columns > width:
        return table.select([name for name in table.column_names if name not in set(keep)])
    return table
