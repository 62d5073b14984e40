"""npy in and out: one array as numpy writes it; a tensor, or a table of one numeric type as a matrix.

The header is parsed here, within bounds and as a literal: nothing is unpickled, and the array is a view of the body.
"""

from __future__ import annotations

import ast
import io
import math
import re
import struct
import sys
from typing import Any

import numpy as np

from modelpack.errors import InputError
from modelpack.frame import Frame
from modelpack.signature import Signature
from modelpack_server.codecs import Decoded, shapes

__all__ = ["decode", "encode", "parse", "write"]

_MAGIC = b"\x93NUMPY"
# The lengths of the header's length, by version of the format.
_LENGTHS = {(1, 0): "<H", (2, 0): "<I", (3, 0): "<I"}
# A header of numbers is 118 bytes long; numpy itself reads no more than this.
MAX_HEADER = 10_000
MAX_RANK = 32
# bool, integers, floats, datetime64 and timedelta64 of a unit, text and bytes of a width.
_DTYPE = re.compile(r"\|b1|[<>|][iu][1248]|[<>]f[248]|[<>][mM]8\[(?:s|ms|us|ns|D)\]|[<>|][US][1-9]\d{0,8}")


def decode(body: bytes | memoryview, signature: Signature) -> Decoded:
    """Return the array of an npy body."""
    return Decoded(data=parse(memoryview(body)), wire="python")


def encode(frame: Frame) -> bytes:
    """Return an answer of one tensor, or a table of one numeric type, as an npy file."""
    return write(shapes.matrix(frame))


def write(array: np.ndarray[Any, Any]) -> bytes:
    """Return an array as an npy file."""
    array = np.asarray(array, order="C")
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    return b"".join((head.getvalue(), array.tobytes()))


def parse(body: memoryview) -> np.ndarray[Any, Any]:
    """Return the array of an npy file, a view of its bytes.

    Raises:
        InputError: not an npy file, of another size than its header says, or of a type that is not read.
    """
    if bytes(body[:6]) != _MAGIC or len(body) < 12:
        raise _invalid("it does not begin as one")
    form = _LENGTHS.get((body[6], body[7]))
    if form is None:
        raise _invalid("its version is not one that is read")
    (length,) = struct.unpack_from(form, body, 8)
    start = 8 + struct.calcsize(form) + length
    if length > MAX_HEADER or start > len(body):
        raise _invalid("its header is too long")
    dtype, fortran, shape = _header(bytes(body[start - length : start]))
    data = body[start:]
    if dtype.itemsize * math.prod(shape) != len(data):
        raise _invalid("it has another size than its header says")
    try:
        array: np.ndarray[Any, Any] = np.frombuffer(data, dtype) if len(data) else np.empty(0, dtype)
        array = array.reshape(shape, order="F" if fortran else "C")
    except (ValueError, OverflowError) as exc:
        raise _invalid("its shape is one that no array has") from exc
    if dtype.kind == "U" and len(data) and np.frombuffer(data, dtype.str[0] + "u4").max() > sys.maxunicode:
        raise _invalid("its text is not Unicode")
    return array


def _header(text: bytes) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    try:
        found = ast.literal_eval(text.decode("utf-8").strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError) as exc:
        raise _invalid("its header cannot be read") from exc
    if type(found) is not dict or set(found) != {"descr", "fortran_order", "shape"}:
        raise _invalid("its header cannot be read")
    descr, fortran, shape = found["descr"], found["fortran_order"], found["shape"]
    if type(descr) is not str or not _DTYPE.fullmatch(descr):
        raise InputError(
            "the npy array is of a type that is not read",
            code="npy-type",
            hint="Send bool, integers, floats, text, bytes, datetime64 or timedelta64, not objects or records.",
        )
    if type(fortran) is not bool or type(shape) is not tuple or len(shape) > MAX_RANK:
        raise _invalid("its header cannot be read")
    if any(type(size) is not int or not 0 <= size < 2**48 for size in shape):
        raise _invalid("its header cannot be read")
    try:
        return np.dtype(descr), fortran, shape
    except (ValueError, TypeError, OverflowError) as exc:
        raise _invalid("its values are too wide") from exc


def _invalid(why: str) -> InputError:
    return InputError(f"the body is not an npy file that can be read: {why}", code="npy-invalid")
