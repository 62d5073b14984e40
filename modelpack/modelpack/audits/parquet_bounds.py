"""How much memory a Parquet file may take: measured page by page before anything is decompressed.

What the footer says about sizes is not what a reader obeys: pages have headers of their own, and a few bytes of them
can claim gigabytes. So the headers of all pages are walked, and all pages together must keep within the limit.
Numbers of fields are those of parquet.thrift.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from modelpack.audits.thrift import Compact

__all__ = ["Leaf", "Page", "Weight", "chunks", "pages", "weigh"]

# Kinds of pages, and the encoding in which a value may share what stands before it (PageType, Encoding).
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_PREFIXED = 7
# Physical types whose values are as long as they say (Type).
_BYTES, _FIXED = 6, 7
_REPEATED = 2
# What is walked here takes time: a footer of ten thousand columns is within this, and so are a hundred million values.
MAX_FOOTER = 4 * 1024 * 1024
MAX_PAGES = 100_000


class Weight(NamedTuple):
    """How many bytes columns can take once read.

    ``plain``: as what they are. ``kept``: with texts as indices into their dictionaries, row by row. ``longest``: the
    longest row that shares parts of others. ``texts``: the paths of the columns that can have dictionaries.
    """

    plain: int
    kept: int
    longest: int
    texts: list[str]


class Leaf(NamedTuple):
    """A column as it is stored: its path, physical type, width if that is fixed, and whether a row has several."""

    path: tuple[str, ...]
    type: int
    width: int
    repeated: bool


class Chunk(NamedTuple):
    """Where the pages of a column in one row group are."""

    leaf: Leaf
    start: int
    stop: int


class Page(NamedTuple):
    """What the header of a page says: its kind, the bytes it becomes, its number of values and their encoding."""

    kind: int
    size: int
    values: int
    encoding: Any


class _Load(NamedTuple):
    """What a chunk takes at least, and what values in a dictionary or with shared beginnings add to that."""

    kept: int
    repeated: int
    prefixed: int
    longest: int
    pages: int


def weigh(body: memoryview, names: set[str]) -> Weight:
    """Return what the named columns can take once read.

    Raises:
        ValueError: the footer or a page header cannot be read, or a page lies outside of the body.
    """
    kept = longest = 0
    repeated: dict[str, int] = {}
    prefixed: dict[str, int] = {}
    seen = 0
    for chunk in chunks(body):
        if chunk.leaf.path[0] not in names:
            continue
        load = _load(body, chunk, MAX_PAGES - seen)
        seen += load.pages
        kept, longest = kept + load.kept, longest + load.longest
        path = ".".join(chunk.leaf.path)
        if chunk.leaf.type == _BYTES:
            repeated[path] = repeated.get(path, 0) + load.repeated
        if load.prefixed:
            prefixed[path] = prefixed.get(path, 0) + load.prefixed
    plain = kept + sum(repeated.values()) + sum(prefixed.values())
    # Arrow makes no dictionary of values that share their beginnings.
    kept += sum(repeated.get(path, 0) for path in prefixed)
    return Weight(plain, kept, longest, sorted(set(repeated) - set(prefixed)))


def _load(body: memoryview, chunk: Chunk, most: int) -> _Load:
    """Weigh one chunk of at most so many pages; levels, offsets and indices take up to 20 bytes a value."""
    count = stored = values = dictionary = prefixed = longest = 0
    for page in pages(body, chunk):
        count += 1
        if count > most:
            raise ValueError("more pages than are read")
        stored += page.size
        if page.kind == _DICTIONARY:
            dictionary = max(dictionary, page.size)
            continue
        values += page.values
        if page.encoding == _PREFIXED:
            prefixed += page.values * page.size
            longest = max(longest, page.size)
    kept = stored + values * (20 + (chunk.leaf.width if chunk.leaf.type == _FIXED else 0))
    if chunk.leaf.repeated:
        # How many values a row has is not known before it is read.
        kept += prefixed
    return _Load(kept, values * dictionary, prefixed, longest, count)


def chunks(body: memoryview) -> Iterator[Chunk]:
    """Yield where the footer says that the columns of each row group are.

    Raises:
        ValueError: the footer cannot be read.
    """
    if len(body) < 12 or bytes(body[-4:]) != b"PAR1":
        raise ValueError("no Parquet footer")
    (length,) = struct.unpack_from("<I", body, len(body) - 8)
    if length > min(len(body) - 12, MAX_FOOTER):
        raise ValueError("a Parquet footer that is cut off, or larger than is read")
    footer = Compact(body, len(body) - 8 - length, len(body) - 8).struct()
    leaves = list(_leaves(_typed(footer.get(2), list)))
    for group in _typed(footer.get(4), list):
        columns = _typed(_typed(group, dict).get(1), list)
        for leaf, column in zip(leaves, columns, strict=True):
            meta = _typed(_typed(column, dict).get(3), dict)
            if group.get(3) == 0 and meta.get(5) == 0:
                # No rows and no values: nothing is read, and where it would be may be written as 0.
                continue
            start, size = _typed(meta.get(9), int), _typed(meta.get(7), int)
            first = meta.get(11)
            # The dictionary is before the data if there is one.
            start = first if type(first) is int and 0 < first < start else start
            if not 0 <= start <= start + size <= len(body):
                raise ValueError("a column chunk outside of the file")
            yield Chunk(leaf, start, start + size)


def _leaves(schema: list[Any]) -> Iterator[Leaf]:
    """Yield the columns of a schema, which is a tree written down depth first; the root has no name of its own."""
    # For each level: how many children are still to come, the path, and whether it is repeated.
    open_: list[tuple[int, tuple[str, ...], bool]] = []
    for place, element in enumerate(schema):
        element = _typed(element, dict)
        while open_ and not open_[-1][0]:
            open_.pop()
        path: tuple[str, ...] = ()
        repeated = False
        if place:
            if not open_:
                raise ValueError("a schema with more elements than its groups have")
            left, above, repeated = open_[-1]
            open_[-1] = (left - 1, above, repeated)
            path = (*above, _typed(element.get(4), bytes).decode("utf-8"))
            repeated = repeated or element.get(3) == _REPEATED
        if 1 in element and place:
            yield Leaf(path, _typed(element[1], int), max(0, _typed(element.get(2, 0), int)), repeated)
        else:
            open_.append((_typed(element.get(5, 0), int), path, repeated))


def pages(body: memoryview, chunk: Chunk) -> Iterator[Page]:
    """Yield the headers of the pages of a column chunk.

    Raises:
        ValueError: a header cannot be read.
    """
    at = chunk.start
    while at < chunk.stop:
        header = Compact(body, at, chunk.stop)
        fields = header.struct()
        kind, size, stored = (_typed(fields.get(field), int) for field in (1, 2, 3))
        about = fields.get({_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}.get(kind, 0), {1: 0})
        values = _typed(_typed(about, dict).get(1), int)
        if min(size, stored, values) < 0:
            raise ValueError("a page header with a negative size")
        at = header.at + stored
        yield Page(kind, size, values, about.get(4 if kind == _DATA_V2 else 2))


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError("a field that is missing, or of another kind")
    return value
