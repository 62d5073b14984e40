"""JSON Lines in and out: a row a line, as exact as JSON; what comes out is what batches write into such files.

Blank lines are no rows. Faults count rows from 0, as those of every other body do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelpack.errors import Fault, InputError
from modelpack.frame import Frame
from modelpack.signature import Signature, Tensors
from modelpack_server.codecs import Decoded, answers, cells, json_body, shapes

__all__ = ["BOM", "decode", "encode", "together"]

MAX_FAULTS = 100
BOM = b"\xef\xbb\xbf"


def decode(body: bytes, signature: Signature) -> Decoded:
    """Return the rows of a body: an object a line; for a model of tensors also whatever one row of ``instances`` is."""
    lines = [line for line in body.removeprefix(BOM).split(b"\n") if line.strip()]
    whole = json_body.wants_whole(signature)
    rows = together(lines, whole=whole)
    if rows is None:
        rows = _singly(lines, whole=whole, records=not isinstance(signature.inputs, Tensors))
    return Decoded(data=rows, wire="json", apart=True)


def encode(frame: Frame) -> bytes:
    """Return the answer as JSON Lines, its members called as in files that batches write."""
    table = answers.table_of(frame, shapes.LINES)
    return b"".join([cells.dump(record) + b"\n" for record in answers.records(table)])


def together(lines: Sequence[bytes], *, whole: bool) -> list[Any] | None:
    """Return the records of all lines parsed at once, which is faster, or None if they must be looked at singly.

    Each line stands in brackets of its own. If none has a bracket itself, then those match only if each line is
    balanced; and a string cannot run on into the next line, for a line end in a string is not JSON. So a line of text
    that is valid here is valid alone, and the other way round.
    """
    body = b"[[" + b"],\n[".join(lines) + b"]]"
    if body.count(b"[") != len(lines) + 1 or body.count(b"]") != len(lines) + 1:
        return None
    try:
        values = json_body.parse(body, whole=whole)
    except InputError:
        return None
    records = [value[0] for value in values if len(value) == 1 and type(value[0]) is dict]
    return records if len(records) == len(lines) else None


def _singly(lines: Sequence[bytes], *, whole: bool, records: bool) -> list[Any]:
    rows: list[Any] = []
    faults: list[Fault] = []
    for number, line in enumerate(lines):
        try:
            value = json_body.parse(line, whole=whole)
        except InputError as exc:
            faults.append(Fault(exc.code, f"[{number}]", exc.message.replace("the body", "the line"), row=number))
        else:
            rows.append(value)
            if records and not isinstance(value, dict):
                faults.append(Fault("json-not-object", f"[{number}]", "the line is not a JSON object", row=number))
        if len(faults) == MAX_FAULTS:
            break
    if faults:
        raise InputError.from_faults(faults)
    return rows
