"""npz in and out: arrays by name in a zip archive, as numpy writes them; tensors by name, or the columns of a table."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any

import numpy as np

from modelpack.errors import InputError
from modelpack.frame import Frame
from modelpack.signature import Signature, Tensors
from modelpack_server.codecs import Decoded, npy_body, shapes

__all__ = ["decode", "encode"]

# A body may grow to this many times its size, or to the floor.
MAX_EXPANSION = 10
FLOOR = 256 * 1024 * 1024
# Each member of an archive is an object before any is looked at.
MAX_MEMBERS = 10_000
_SUFFIX = ".npy"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What zipfile raises for archives that are not right, or encrypted, or of a method that is not there.
_FAULTS = (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, NotImplementedError, EOFError)


def decode(body: bytes, signature: Signature) -> Decoded:
    """Return the arrays of an npz body by name; a single one without a name is the single tensor."""
    if body.count(b"PK\1\2") > MAX_MEMBERS:
        raise _too_large()
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            found = {name: npy_body.parse(memoryview(data)) for name, data in _members(archive, len(body))}
    except InputError:
        raise
    except (*_FAULTS, OverflowError, MemoryError) as exc:
        raise InputError("the body is not an npz archive that can be read", code="npz-invalid") from exc
    inputs = signature.inputs
    # numpy calls what was given without a name arr_0.
    if list(found) == ["arr_0"] and isinstance(inputs, Tensors) and len(inputs.tensors) == 1:
        found = {inputs.tensors[0].name: found["arr_0"]}
    return Decoded(data=found, wire="python")


def _members(archive: zipfile.ZipFile, size: int) -> list[tuple[str, bytes]]:
    limit = max(size * MAX_EXPANSION, FLOOR)
    members = archive.infolist()
    # A member takes no more than what it claims: zipfile reads no further, and checks its sum.
    if sum(member.file_size for member in members) > limit:
        raise _too_large()
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise InputError("the npz archive has two arrays of one name", code="npz-duplicate-name")
    if not all(name.endswith(_SUFFIX) for name in names) or any(m.compress_type not in _METHODS for m in members):
        raise zipfile.BadZipFile
    return [(member.filename.removesuffix(_SUFFIX), _content(archive, member)) for member in members]


def _too_large() -> InputError:
    return InputError("the npz archive is too large once decoded", code="npz-size", hint="Send fewer rows at a time.")


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as file:
        data = file.read(member.file_size + 1)
    if len(data) != member.file_size:
        raise zipfile.BadZipFile
    return data


def encode(frame: Frame) -> bytes:
    """Return an answer as an npz archive: tensors by name, or columns whose missing values are NaN and NaT."""
    return write(shapes.arrays(frame, shapes.NPZ))


def write(arrays: dict[str, np.ndarray[Any, Any]]) -> bytes:
    """Return arrays as an npz archive, not compressed; the same arrays are always the same bytes."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, array in arrays.items():
            # A fixed date, the first that a zip archive can say.
            archive.writestr(zipfile.ZipInfo(name + _SUFFIX), npy_body.write(array))
    return sink.getvalue()
