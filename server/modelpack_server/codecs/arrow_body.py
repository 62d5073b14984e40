"""Arrow IPC in and out: a stream or a file of record batches; columns keep their own types and, in place, their memory.

A column of fixed-size lists of numbers is a tensor, a view of the bytes that came. Everything is validated before it
is looked at: offsets, indices, UTF-8. What a few bytes can make large is measured first.
"""

from __future__ import annotations

import pyarrow as pa

from modelpack.errors import InputError
from modelpack.frame import Frame
from modelpack.signature import Signature
from modelpack_server.codecs import Decoded, answers, shapes
from modelpack_server.codecs.arrow_bounds import check_messages, check_names, check_table, limit_of
from modelpack_server.codecs.arrow_tensors import tensors

__all__ = ["decode", "decode_file", "encode"]

# What an Arrow file has around a stream.
_HEAD, _TAIL = b"ARROW1\0\0", b"ARROW1"


def decode(body: bytes | memoryview, signature: Signature) -> Decoded:
    """Return the rows of an Arrow IPC stream."""
    return _read(pa.py_buffer(body), signature, whole=True)


def decode_file(body: bytes, signature: Signature) -> Decoded:
    """Return the rows of an Arrow IPC file (Feather V2): the stream that is in it."""
    if len(body) < 18 or not body.startswith(_HEAD) or not body.endswith(_TAIL):
        raise InputError("the body is not an Arrow file that can be read", code="arrow-invalid")
    return _read(pa.py_buffer(body)[len(_HEAD) :], signature, whole=False)


def _read(body: pa.Buffer, signature: Signature, *, whole: bool) -> Decoded:
    limit = limit_of(body.size)
    try:
        end = check_messages(body, limit)
        if whole and end != body.size:
            raise InputError("something follows the end of the Arrow stream", code="arrow-invalid")
        with pa.ipc.open_stream(body) as reader:
            check_names(reader.schema)
            table = reader.read_all()
        table.validate(full=True)
        check_table(table, limit)
        return Decoded(data=tensors(table, signature.inputs), wire="python")
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as exc:
        # Arrow may quote the data in its message; ours must not.
        raise InputError("the body is not Arrow IPC that can be read", code="arrow-invalid") from exc


def encode(frame: Frame) -> bytes:
    """Return the answer as an Arrow IPC stream of one table, its columns called as in files that batches write."""
    table = answers.table_of(frame, shapes.ARROW)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body
