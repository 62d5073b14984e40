"""How much memory a Parquet file may take: measured page by page before anything is decompressed.

What the footer says about sizes is not what a reader obeys: pages have headers of their own, and a few bytes of them
can claim gigabytes. So the headers of all pages are walked, and each page must keep within what may be read in all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["Page", "Weight", "pages", "weigh"]

# Kinds of pages, and the encoding in which a value may share what stands before it (PageType, Encoding of the format).
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_PREFIXED = 7
# Page headers have a handful of fields, and structs in structs.
_MAX_FIELDS = 64
_MAX_DEPTH = 8


class Weight(NamedTuple):
    """How many bytes columns can take once read.

    ``plain``: as what they are. ``kept``: with texts as indices into their dictionaries, row by row. ``longest``: the
    longest row that shares parts of others. ``texts``: the paths of the columns that can have dictionaries.
    """

    plain: int
    kept: int
    longest: int
    texts: list[str]


class Page(NamedTuple):
    """What the header of a page says: its kind, the bytes it becomes, its number of values and their encoding."""

    kind: int
    size: int
    values: int
    encoding: int


def weigh(body: memoryview, meta: Any, names: set[str]) -> Weight:
    """Return what the named columns can take once read.

    Raises:
        ValueError: a page header cannot be read, or a page lies outside of the body.
    """
    kept = longest = 0
    repeated: dict[str, int] = {}
    prefixed: dict[str, int] = {}
    for number in range(meta.num_row_groups):
        group = meta.row_group(number)
        for place in range(group.num_columns):
            chunk = group.column(place)
            path = chunk.path_in_schema
            if not _is_named(path, names):
                continue
            found = _chunk(body, chunk, meta.schema.column(place))
            kept, longest = kept + found.kept, longest + found.longest
            if chunk.physical_type == "BYTE_ARRAY":
                repeated[path] = repeated.get(path, 0) + found.repeated
            if found.prefixed:
                prefixed[path] = prefixed.get(path, 0) + found.prefixed
    plain = kept + sum(repeated.values()) + sum(prefixed.values())
    # Arrow makes no dictionary of values that share their beginnings.
    kept += sum(repeated.get(path, 0) for path in prefixed)
    return Weight(plain, kept, longest, sorted(set(repeated) - set(prefixed)))


def _is_named(path: str, names: set[str]) -> bool:
    """Say whether a column, or one that it is a part of, is among the names; these may have points themselves."""
    if path in names:
        return True
    parts = path.split(".")
    return any(".".join(parts[:count]) in names for count in range(1, len(parts)))


class _Chunk(NamedTuple):
    """What one column of a row group takes at least, and what is added by values in a dictionary or with prefixes."""

    kept: int
    repeated: int
    prefixed: int
    longest: int


def _chunk(body: memoryview, chunk: Any, column: Any) -> _Chunk:
    """Weigh one column of a row group; levels, offsets and indices take up to 20 bytes a value."""
    stored = values = dictionary = prefixed = longest = 0
    for page in pages(body, chunk):
        stored += page.size
        if page.kind == _DICTIONARY:
            dictionary = max(dictionary, page.size)
            continue
        values += page.values
        if page.encoding == _PREFIXED:
            prefixed += page.values * page.size
            longest = max(longest, page.size)
    fixed = max(0, column.length) if chunk.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0
    kept = stored + values * (20 + fixed)
    if prefixed and column.max_repetition_level:
        # How many values a row has is not known before it is read.
        kept += prefixed
    return _Chunk(kept, values * dictionary, prefixed, longest)


def pages(body: memoryview, chunk: Any) -> Iterator[Page]:
    """Yield the headers of the pages of a column chunk.

    Raises:
        ValueError: a header cannot be read, or a page lies outside of the body.
    """
    starts = [chunk.data_page_offset, chunk.dictionary_page_offset]
    at = min(start for start in starts if start)
    end = at + chunk.total_compressed_size
    if not 0 <= at <= end <= len(body):
        raise ValueError("a column chunk outside of the file")
    while at < end:
        header = _Compact(body, at, end)
        fields = header.struct()
        kind, size, stored = (fields.get(field) for field in (1, 2, 3))
        if not all(type(value) is int and value >= 0 for value in (kind, size, stored)):
            raise ValueError("a page header that lacks a size")
        about = fields.get({_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}.get(kind, 0), {})
        values, encoding = about.get(1, 0), about.get(4 if kind == _DATA_V2 else 2, 0)
        if not (type(values) is int and values >= 0):
            raise ValueError("a page header with a wrong number of values")
        at = header.at + stored
        yield Page(kind, size, values, encoding)


class _Compact:
    """Reads structs in Thrift's compact protocol: the integers and structs in them, by field number."""

    def __init__(self, body: memoryview, at: int, end: int) -> None:
        self.body, self.at, self.end = body, at, end

    def struct(self, depth: int = 0) -> dict[int, Any]:
        found: dict[int, Any] = {}
        field = 0
        for _ in range(_MAX_FIELDS):
            head = self._byte()
            if not head:
                return found
            field = field + (head >> 4) if head >> 4 else self._zigzag()
            found[field] = self._value(head & 15, depth)
        raise ValueError("a page header with too many fields")

    def _value(self, kind: int, depth: int) -> Any:
        match kind:
            case 1 | 2:
                return kind == 1
            case 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._zigzag()
            case 7:
                return self._skip(8)
            case 8:
                return self._skip(self._varint())
            case 12 if depth < _MAX_DEPTH:
                return self.struct(depth + 1)
        # Lists, sets and maps: no page header has one.
        raise ValueError("a page header with a field of another kind")

    def _byte(self) -> int:
        if self.at >= self.end:
            raise ValueError("a page header that is cut off")
        self.at += 1
        return self.body[self.at - 1]

    def _skip(self, count: int) -> None:
        if count > self.end - self.at:
            raise ValueError("a page header that is cut off")
        self.at += count

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number in a page header that is too long")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
