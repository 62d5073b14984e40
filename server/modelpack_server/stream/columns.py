"""Which columns an output that exists keeps of its source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from modelpack.signature import IO
from modelpack_server.codecs import answers

__all__ = ["kept"]


def kept(source: Sequence[str], output: Sequence[str], outputs: IO | None) -> list[str]:
    """Return those columns of the source that the output keeps, by their names.

    A column that the source has got since, and that is called like an answer, is none of them.
    """
    found = answers.empty(outputs)
    names, size = set(output) & set(source), max(0, len(output) - found.num_columns)
    if not found.num_columns:
        # What the answers are called is not known, but there is one, and it comes last.
        names -= set(output[-1:]) if len(names) == len(output) else set()
    elif list(output[size:]) == _renamed(found, output[:size]):
        names &= set(output[:size])  # as streams make it: what is kept, then the answers
    else:
        # Somebody else has made it. A kept column that is called like an answer has had the answer called otherwise.
        others = zip(found.column_names, _renamed(found, names), strict=True)
        names -= {name for name, other in others if other not in output}
    return [name for name in source if name in names]


def _renamed(found: pa.Table, taken: Iterable[str]) -> list[str]:
    names: list[str] = answers.rename(found, taken, same=str.lower).column_names
    return names
