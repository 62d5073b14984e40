"""Conversions of what lists, maps and structs hold; None stands for "it is right already"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Converter", "each", "every", "fields"]

Converter = Callable[[Any], Any]


def each(convert: Converter | None) -> Converter | None:
    """Return the conversion of every item of a list."""
    if convert is None:
        return None
    return lambda value: [part if part is None else convert(part) for part in value]


def every(convert: Converter | None) -> Converter | None:
    """Return the conversion of every value of a map."""
    if convert is None:
        return None
    return lambda value: {key: part if part is None else convert(part) for key, part in value.items()}


def fields(converters: Mapping[str, Converter | None]) -> Converter | None:
    """Return the conversion of the fields of a struct, by name."""
    needed = {name: convert for name, convert in converters.items() if convert is not None}
    if not needed:
        return None
    return lambda value: {
        name: needed[name](part) if name in needed and part is not None else part for name, part in value.items()
    }
