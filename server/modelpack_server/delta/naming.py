"""What the columns of a Delta table are called in its files: as in the table, or by column mapping otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from modelpack.errors import InputError

__all__ = ["PLAIN", "Naming", "naming"]

_MODE = "delta.columnMapping.mode"
_NAME, _ID = "delta.columnMapping.physicalName", "delta.columnMapping.id"
_FIELD_ID = b"PARQUET:field_id"


@dataclass(frozen=True, kw_only=True, slots=True)
class Naming:
    """Names of columns in the files and in the log's statistics (empty: their own), and numbers, where these count."""

    physical: Mapping[str, str] = field(default_factory=dict)
    ids: Mapping[str, int] | None = None

    @property
    def plain(self) -> bool:
        """Whether columns have their own names everywhere."""
        return not self.physical

    def inside(self, schema: pa.Schema, where: Path | str) -> Mapping[str, str]:
        """Return the columns of the table that a file has, and their names there.

        Raises:
            InputError: columns are told by their numbers, and the file has none (``table-unsupported``).
        """
        if self.plain:
            return {name: name for name in schema.names}
        if self.ids is None:
            have = set(schema.names)
            return {name: inner for name, inner in self.physical.items() if inner in have}
        told = [(column.name, column.metadata or {}) for column in schema]
        known = {int(metadata[_FIELD_ID]): name for name, metadata in told if _FIELD_ID in metadata}
        if not known:
            raise _unsupported("has columns without the numbers by which the table knows them", where)
        return {name: known[number] for name, number in self.ids.items() if number in known}

    def partition(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return partition values of the log by the names that the columns have in the table."""
        if self.plain:
            return values
        return {name: values[inner] for name, inner in self.physical.items() if inner in values}

    def check(self, schema: pa.Schema, names: Sequence[str], where: Path | str) -> None:
        """Refuse columns whose parts have other names in the files too."""
        for name in names:
            if not self.plain and _has_struct(schema.field(name).type):
                message = f"the column {name!r} holds structs, which are not read in tables with column mapping"
                raise _unsupported(message, where)


PLAIN = Naming()


def naming(schema: Any, configuration: Mapping[str, str], where: Path | str) -> Naming:
    """Return what a table's properties and its schema, as delta-rs has it, say.

    Raises:
        InputError: they name the columns in a way that is not known (``table-unsupported``).
    """
    mode = configuration.get(_MODE, "none")
    if mode == "none":
        return PLAIN
    physical = {column.name: column.metadata.get(_NAME) for column in schema.fields}
    ids = {column.name: column.metadata.get(_ID) for column in schema.fields}
    known = all(isinstance(name, str) for name in physical.values())
    if mode == "id":
        known = known and all(isinstance(number, int) for number in ids.values())
    if mode not in ("name", "id") or not known:
        raise _unsupported(f"maps its columns to other names in its files in a way that is not known ({_MODE})", where)
    return Naming(physical=physical, ids=ids if mode == "id" else None)


def _has_struct(kind: pa.DataType) -> bool:
    if pa.types.is_map(kind):
        return _has_struct(kind.key_type) or _has_struct(kind.item_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _has_struct(kind.value_type)
    return bool(pa.types.is_struct(kind))


def _unsupported(message: str, where: Path | str) -> InputError:
    hint = "Copy it into a table without column mapping, or leave the column out."
    return InputError(message, code="table-unsupported", path=str(where), hint=hint)
