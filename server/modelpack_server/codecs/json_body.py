"""JSON in and out, exactly: nothing a client wrote is rounded, dropped or overwritten on the way in.

orjson is strict and fast, and right for all but four things, for which the standard library's parser takes over:

* ``NaN``, ``Infinity``: not JSON, but MLflow's own client writes them, ``NaN`` for every missing value, of text too:
  it is read as null;
* integers beyond 64 bits, and -0: orjson makes a float of the one and a 0 of the other;
* numbers that are others once they are floats (``4503599627370496.3``, ``9007199254740993.0``, ``0.1`` with twenty
  places more): what a float column does not notice must not get into an integer or decimal column;
* an object with the same key twice: every parser keeps the last one and says nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import orjson

from modelpack import forms, render
from modelpack.coerce import Split, literals
from modelpack.coerce.literals import Number
from modelpack.errors import InputError, OutputError
from modelpack.frame import Frame
from modelpack.once import Once
from modelpack.signature import Signature, Table, Tensors
from modelpack_server.codecs import Decoded, json_floats, json_simd, json_text

__all__ = ["MAX_DEPTH", "Number", "Reader", "decode", "encode", "encode_parts", "parse", "wants_whole"]

# Deeper than any signature can ask for (a tensor has at most 32 dimensions), and shallow enough for every recursion.
MAX_DEPTH = 64

_CONSTANT = re.compile(rb"NaN|Infinity")
_FLOATS = frozenset({"any", "float16", "float32", "float64", "bool", "utf8", "binary", "date32"})
_NO_FLOATS = frozenset({int, bool, str, type(None)})
_EXPONENT = re.compile(rb"[0-9][eE]")
_KEY = re.compile(rb'"[ \t\r\n]*:')
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# Strings (an open one runs to the end) and everything else that is no bracket. Possessive: what could be given back
# is remembered byte by byte, many times as much as the body.
_NOT_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.?+)*+(?:"|\Z)|[^\[\]{}"]++', re.DOTALL)


def decode(body: bytes | memoryview, signature: Signature) -> Decoded:
    """Return the data and params of an ``/invocations`` body."""
    return _readers(signature)(bytes(body))[0]


class Reader:
    """:func:`decode` for one signature, with all worked out before that does not depend on the body.

    ``usual`` says of a body whether it is in the form most clients send all the time: rows of all columns, in the
    order of the signature, and nothing else.
    """

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self._whole = wants_whole(signature)
        self._floats = json_floats.reader(signature)
        self._straight = json_simd.reader(signature)
        columns = signature.inputs.columns if isinstance(signature.inputs, Table) else ()
        self._names = [column.name for column in columns]
        self._wholes = [place for place, column in enumerate(columns) if column.type not in _FLOATS]
        # A name may be written with an escape: then colons do not tell how many keys there are.
        self._simple = not any(":" in name for name in self._names)

    def __call__(self, body: bytes) -> tuple[Decoded, bool]:
        """Return the decoded body, and whether it is usual."""
        if len(body) >= json_simd.LARGE and (taken := self._straight(body)) is not None:
            return _array(taken)
        try:
            # Two things are left to orjson alone: what is no JSON, and what is nested in a thousand levels.
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            return self._long(parse(body, whole=self._whole)), False
        taken = self._floats(body, value)
        if taken is not None:
            return _array(taken)
        _check_depth(body)
        text = json_text.view(body)
        rows = self._rows(value)
        care = _needs_care(body, text, whole=False)
        if care or (self._whole and json_text.is_precise(body, text) and not self._is_whole(value, rows)):
            return self._long(_parse_slowly(body, whole=self._whole)), False
        if rows is not None and self._simple and json_text.colons(body, text) == 3:
            return Decoded(data=Split(self._names, rows), wire="json", at="dataframe_split"), True
        return self._long(_distinctly(body, text, value, whole=self._whole)), False

    def _rows(self, value: Any) -> list[Any] | None:
        """Return the rows of a usual body."""
        split = value.get("dataframe_split") if type(value) is dict and len(value) == 1 else None
        if type(split) is not dict or len(split) != 2 or split.get("columns") != self._names:
            return None
        rows = split.get("data")
        return rows if type(rows) is list else None

    def _is_whole(self, value: Any, rows: list[Any] | None) -> bool:
        """Say whether no float is where it matters if a number is whole: the others may be as precise as they like."""
        try:
            if rows is not None:
                cells = [row[place] for place in self._wholes for row in rows]
            elif type(value) is dict and len(value) == 1 and self._wholes:
                names = [self._names[place] for place in self._wholes]
                cells = [record.get(name) for name in names for record in value["dataframe_records"]]
            else:
                return False
        except (LookupError, TypeError, AttributeError):
            return False
        return set(map(type, cells)) <= _NO_FLOATS

    def _long(self, value: Any) -> Decoded:
        call = forms.parse(value, signature=self.signature)
        return Decoded(data=call.data, wire="json", at=call.at, params=call.params)


def _array(taken: json_floats.Taken) -> tuple[Decoded, bool]:
    data, form = taken
    return Decoded(data=data, wire="json", at=form), type(data) is Split


_readers = Once(Reader)


def encode(frame: Frame) -> bytes:
    """Return the reply MLflow's clients expect: ``{"predictions": ...}``, always valid JSON."""
    return _written({"predictions": _plain(frame)})


def encode_piece(frame: Frame) -> bytes:
    """Return a piece of an answer, as JSON without anything around it."""
    return _written(_plain(frame))


def encode_parts(frame: Frame, bounds: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return a reply for each of the ranges of rows, as :func:`encode` would write it."""
    plain = _plain(frame)
    if type(plain) is dict:
        parts = [{name: rows[start:stop] for name, rows in plain.items()} for start, stop in bounds]
    else:
        parts = [plain[start:stop] for start, stop in bounds]
    return [_written({"predictions": part}) for part in parts]


def _plain(frame: Frame) -> Any:
    try:
        return render.plain(frame)
    except RecursionError as exc:
        # It holds itself, or is deeper than any JSON that could be read again.
        raise _not_sayable() from exc


def _not_sayable() -> OutputError:
    return OutputError("the answer holds something JSON cannot say", code="output-not-json", path="predictions")


def _written(answer: Any) -> bytes:
    try:
        return orjson.dumps(answer)
    except TypeError:
        # Integers beyond 64 bits and lone surrogates: the standard library can write both.
        return _encode_slowly(answer)


def _encode_slowly(answer: Any) -> bytes:
    try:
        return json.dumps(answer, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise _not_sayable() from exc


def wants_whole(signature: Signature) -> bool:
    """Say whether the model takes something for which it matters if a number is whole: not so with floats alone."""
    if any(param.type not in _FLOATS for param in signature.params):
        return True
    match signature.inputs:
        case Table(columns=columns):
            return any(column.type not in _FLOATS for column in columns)
        case Tensors(tensors=tensors):
            return any(tensor.dtype not in _FLOATS for tensor in tensors)
    return True


def parse(body: bytes, *, whole: bool = True) -> Any:
    """Return the JSON value in ``body``.

    A number with a point or an exponent is the nearest float. With ``whole`` one that this float is not written as is
    the :class:`Number` that was written.

    Raises:
        InputError: not JSON, not UTF-8, nested too deeply, a key twice in one object, a number too large for a float.
    """
    _check_depth(body)
    text = json_text.view(body)
    if _needs_care(body, text, whole=whole):
        return _parse_slowly(body, whole=whole)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        if _CONSTANT.search(body) or _EXPONENT.search(body):
            return _parse_slowly(body, whole=whole)
        raise _not_json(exc.lineno, exc.colno) from exc
    return _distinctly(body, text, value, whole=whole)


def _distinctly(body: bytes, text: json_text.View, value: Any, *, whole: bool) -> Any:
    """Return what orjson has read, unless a key may be there twice."""
    return value if _keys_are_distinct(body, text, value) else _parse_slowly(body, whole=whole)


def _needs_care(body: bytes, text: json_text.View, *, whole: bool) -> bool:
    """Say whether a number in the body may be one that orjson changes."""
    if json_text.has_long_integer(body, text) or json_text.has_minus_zero(body, text):
        return True
    return whole and json_text.is_precise(body, text)


def _not_json(line: int, column: int) -> InputError:
    return InputError(
        f"the body is not JSON: the fault is at line {line}, column {column}",
        code="json-invalid",
        hint="JSON is UTF-8 without a byte order mark, with double quotes and no trailing commas.",
    )


def _parse_slowly(body: bytes, *, whole: bool) -> Any:
    try:
        value = literals.loads(body.decode("utf-8"), whole=whole)
        if _SURROGATE.search(body):
            # The standard library lets a lone half of a surrogate pair through; it cannot be written as UTF-8.
            json.dumps(value, ensure_ascii=False, default=str).encode("utf-8")
    except UnicodeError as exc:
        raise InputError("the body is not Unicode text in UTF-8", code="json-encoding") from exc
    except json.JSONDecodeError as exc:
        raise _not_json(exc.lineno, exc.colno) from exc
    return value


def _check_depth(body: bytes) -> None:
    """Refuse bodies nested deeper than MAX_DEPTH, before any recursive parser sees them.

    Only brackets are looked at. Taking away the innermost pairs MAX_DEPTH times leaves nothing of a body that is
    shallow enough; if something is left, brackets inside strings may be the reason, so the depth is then counted.
    """
    brackets = json_text.brackets(body)
    for _ in range(MAX_DEPTH):
        shorter = brackets.replace(b"[]", b"")
        if not shorter:
            return
        if len(shorter) == len(brackets):
            break
        brackets = shorter
    if _depth(body) > MAX_DEPTH:
        raise InputError(f"the body is nested deeper than {MAX_DEPTH} levels", code="json-depth")


def _depth(body: bytes) -> int:
    """Return how deep the brackets outside strings are nested."""
    depth = deepest = 0
    for bracket in _NOT_STRUCTURE.sub(b"", body):
        if bracket in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _keys_are_distinct(body: bytes, text: json_text.View, value: Any) -> bool:
    """Say whether no object in ``body`` has a key twice; False means "look closely".

    Each key in the text is followed by a colon, so as many keys in ``value`` as colons in the text says that none was
    overwritten. Colons inside strings make the text look as if it had more keys, never fewer.
    """
    colons = json_text.colons(body, text)
    found = _count_keys(value, colons)
    return found == colons or found == sum(1 for _ in _KEY.finditer(body))


def _count_keys(value: Any, enough: int) -> int:
    """Return how many keys the objects in ``value`` have; stops looking once there are ``enough``."""
    count, level = 0, [value]
    while level and count < enough:
        objects = [item for item in level if type(item) is dict]
        count += sum(map(len, objects))
        if count < enough:
            # Objects before lists, level by level: the rows of dataframe_split are not looked into.
            lists = (item for item in level if type(item) is list)
            level = [*chain.from_iterable(item.values() for item in objects), *chain.from_iterable(lists)]
    return count
