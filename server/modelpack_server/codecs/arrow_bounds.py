"""How much memory Arrow data may take: measured from what it claims, before anything of that size is made.

Four things in Arrow data are larger than the bytes they came in: compressed buffers, columns of no width (a million
nulls take no byte), values of a dictionary that many rows share, views that many rows share.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelpack.errors import InputError
from modelpack_server.codecs.arrow_messages import DICTIONARY, at, field

__all__ = ["MAX_EXPANSION", "check_messages", "check_names", "check_table", "dense", "limit_of"]

# A body may grow to this many times its size, or to the floor.
MAX_EXPANSION = 10
FLOOR = 256 * 1024 * 1024
# Batches of no rows at all take time all the same.
MAX_MESSAGES = 100_000


def limit_of(size: int) -> int:
    """Return how many bytes the data of a body of ``size`` bytes may take."""
    return max(size * MAX_EXPANSION, FLOOR)


def too_large() -> InputError:
    """Return the refusal of data that would take too much memory."""
    return InputError(
        "the Arrow data is too large once decoded", code="arrow-size", hint="Send fewer rows at a time, uncompressed."
    )


def check_messages(body: pa.Buffer, limit: int) -> int:
    """Check what the compressed buffers of a stream claim to become; return where the stream ends."""
    source = pa.BufferReader(body)
    reader = pa.ipc.MessageReader.open_stream(source)
    size = 0
    for _ in range(MAX_MESSAGES):
        try:
            message = reader.read_next_message()
        except StopIteration:
            return int(source.tell())
        if message.type != "schema":
            size += _claimed(message)
            if size > limit:
                raise too_large()
    raise too_large()


def _claimed(message: Any) -> int:
    """Return the bytes that the compressed buffers of a message claim to become, 0 if none is compressed.

    The layout is Message.fbs of the Arrow format.

    Raises:
        ValueError: an offset leads outside of the message.
    """
    try:
        return _uncompressed(message)
    except (struct.error, IndexError) as exc:
        raise ValueError("an Arrow message that is damaged") from exc


def _uncompressed(message: Any) -> int:
    meta = memoryview(message.metadata)
    root = at(meta, 0)
    kind, header = field(meta, root, 1), field(meta, root, 2)
    if not kind or not header:
        return 0
    batch = at(meta, header)
    if meta[kind] == DICTIONARY:
        data = field(meta, batch, 1)
        if not data:
            return 0
        batch = at(meta, data)
    version, extra = field(meta, root, 0), field(meta, root, 4)
    # Before version 5 of the metadata a message said in its custom metadata that it is compressed.
    early = extra and (not version or meta[version] < _VERSION_5)
    if not field(meta, batch, 3) and not early:
        return 0
    return _buffers(meta, field(meta, batch, 2), memoryview(message.body))


_VERSION_5 = 4


def _buffers(meta: memoryview, place: int, body: memoryview) -> int:
    if not place:
        return 0
    vector = at(meta, place)
    (count,) = struct.unpack_from("<I", meta, vector)
    places = np.frombuffer(meta, "<i8", 2 * count, vector + 4).reshape(-1, 2)
    total = 0
    for offset, length in places.tolist():
        if length >= 8:
            (size,) = struct.unpack_from("<q", body, offset)
            total += max(size, 0)
    return total


def check_table(table: pa.Table, limit: int) -> None:
    """Refuse two columns of one name, types that are not read, and what would be too large as values."""
    if len(set(table.column_names)) < table.num_columns:
        raise InputError("the Arrow data has two columns of one name", code="arrow-duplicate-column")
    size = 0
    for column in table.columns:
        if not _plain(column.type):
            size += sum(dense(chunk) for chunk in column.chunks)
            if size > limit:
                raise too_large()


def check_names(schema: pa.Schema) -> None:
    """Look at every name of a schema, of fields in fields and of time zones too.

    Raises:
        ValueError: one is not UTF-8.
    """
    kinds = [field.type for field in schema if field.name is not None]
    while kinds:
        kind = kinds.pop()
        if isinstance(kind, pa.BaseExtensionType):
            kinds.append(kind.storage_type)
        elif pa.types.is_dictionary(kind):
            kinds.append(kind.value_type)
        elif pa.types.is_timestamp(kind):
            str(kind.tz)
        else:
            inner = [kind.field(place) for place in range(kind.num_fields)]
            kinds.extend(field.type for field in inner if field.name is not None)


def _plain(kind: pa.DataType) -> bool:
    """Say whether the values of a column take no more memory than the bytes they came in."""
    types = pa.types
    return bool(
        (types.is_primitive(kind) and not types.is_null(kind))
        or types.is_decimal(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


def dense(array: pa.Array) -> int:
    """Return roughly how many bytes the values of an array take, each on its own."""
    kind, types = array.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return dense(array.storage)
    if _plain(kind):
        return int(array.nbytes)
    if types.is_dictionary(kind):
        return _shared(array)
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return 16 * len(array) + _viewed(array)
    if types.is_struct(kind):
        return 8 * len(array) + sum(dense(part) for part in array.flatten())
    if types.is_map(kind):
        return 8 * len(array) + dense(array.keys) + dense(array.items)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return 8 * len(array) + dense(array.flatten())
    if types.is_null(kind):
        return 8 * len(array)
    if types.is_fixed_size_binary(kind):
        return (8 + int(kind.byte_width)) * len(array)
    raise InputError(
        "the Arrow data has a column of a type that is not read",
        code="arrow-type",
        hint="Send lists, structs, maps, dictionaries and plain values.",
    )


def _shared(array: pa.DictionaryArray) -> int:
    """Return what the values of a dictionary take when each row has its own."""
    values = array.dictionary
    if not len(values):
        return 8 * len(array)
    if not _plain(values.type):
        return 8 * len(array) + len(array) * dense(values)
    if pa.types.is_primitive(values.type) or pa.types.is_decimal(values.type):
        return 16 * len(array)
    lengths = pc.fill_null(pc.binary_length(values), 0).cast(pa.int64())
    return 8 * len(array) + int(pc.sum(pc.take(lengths, array.indices)).as_py() or 0)


def _viewed(array: pa.Array) -> int:
    views = np.frombuffer(array.buffers()[1], "<i4").reshape(-1, 4)[array.offset : array.offset + len(array)]
    return int(views[:, 0].clip(0).sum(dtype=np.int64))
