"""Arrow types as a Delta table can have them: the same values, or a clear refusal."""

from __future__ import annotations

import pyarrow as pa

from modelpack.errors import OutputError

__all__ = ["alike", "lacking", "storable", "stored", "widens"]

_PLAIN = (pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string(),
          pa.binary(), pa.date32())  # fmt: skip
# A type that Delta does not have, and the one that holds all its values.
_WIDER = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
    pa.null(): pa.string(),
    pa.date64(): pa.date32(),
}


def stored(kind: pa.DataType) -> pa.DataType | None:
    """Return the type as which a Delta table stores values of a type; None if it has none."""
    if kind in _PLAIN:
        return kind
    if kind in _WIDER:
        return _WIDER[kind]
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    if pa.types.is_decimal128(kind):
        return kind
    if pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if pa.types.is_dictionary(kind):
        return stored(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        items = stored(kind.value_type)
        return None if items is None else pa.list_(pa.field("element", items))
    if pa.types.is_map(kind):
        keys, values = stored(kind.key_type), stored(kind.item_type)
        return None if keys is None or values is None else pa.map_(keys, values)
    if pa.types.is_struct(kind):
        fields = [(field.name, stored(field.type)) for field in kind]
        known = [pa.field(name, inner) for name, inner in fields if inner is not None]
        return pa.struct(known) if len(known) == len(fields) else None
    return None


def storable(table: pa.Table) -> pa.Schema:
    """Return the schema of the Delta table that can take these rows.

    Raises:
        OutputError: a column has a type that Delta does not have (``type-not-delta``), or two have one name but for
            the case of letters (``columns-repeated``).
    """
    fields = []
    seen: dict[str, str] = {}
    for field in table.schema:
        if (other := seen.get(field.name.lower())) is not None:
            message = f"there are two columns {other!r} and {field.name!r}, which are one in Delta tables"
            raise OutputError(message, code="columns-repeated", hint="Rename one, or keep other columns.")
        seen[field.name.lower()] = field.name
        kind = stored(field.type)
        if kind is None:
            message = f"the column {field.name!r} is of the type {field.type}, which Delta tables do not have"
            raise OutputError(message, code="type-not-delta", hint="Keep other columns, or score files in batch.")
        fields.append(pa.field(field.name, kind))
    return pa.schema(fields)


def lacking(values: pa.Array, field: pa.Field) -> bool:
    """Say whether a value is missing, or inside of one, where a field takes none."""
    if values.null_count and not field.nullable:
        return True
    kind, found = field.type, values.type
    if not pa.types.is_nested(kind) or not pa.types.is_nested(found):
        return False
    if pa.types.is_struct(kind):
        # What is below a struct that is missing is not there.
        there = values.drop_null()
        return any(lacking(there.field(place), kind.field(place)) for place in range(kind.num_fields))
    if pa.types.is_map(kind):
        there = values.drop_null()
        # All items of an array of which these may be a part.
        first, last = there.offsets[0].as_py(), there.offsets[-1].as_py()
        return lacking(there.items.slice(first, last - first), kind.item_field)
    return lacking(values.flatten(), kind.value_field)


def widens(old: pa.DataType, new: pa.DataType) -> bool:
    """Say whether a column may change from one type to the other by Delta's type widening, or has not changed.

    Whether values may be missing inside of others does not count, and structs may get more fields.
    """
    if old == new:
        return True
    types = pa.types
    if types.is_struct(old) and types.is_struct(new):
        places = [new.get_field_index(field.name) for field in old]
        return all(place >= 0 and widens(field.type, new.field(place).type)
                   for field, place in zip(old, places, strict=True))  # fmt: skip
    if types.is_map(old) and types.is_map(new):
        return widens(old.key_type, new.key_type) and widens(old.item_type, new.item_type)
    if types.is_list(old) and types.is_list(new):
        return widens(old.value_type, new.value_type)
    if types.is_decimal(new):
        # So many digits before the point have whole numbers, by the protocol.
        whole = {8: 10, 16: 10, 32: 10, 64: 20}.get(old.bit_width) if types.is_signed_integer(old) else None
        if types.is_decimal(old):
            whole = old.precision - old.scale
            return bool(new.scale >= old.scale and new.precision - new.scale >= whole)
        return bool(whole is not None and new.precision - new.scale >= whole)
    if types.is_signed_integer(old) and types.is_signed_integer(new):
        return bool(old.bit_width <= new.bit_width)
    if new == pa.float64():
        return old in (pa.int8(), pa.int16(), pa.int32(), pa.float32())
    return bool(types.is_date(old) and types.is_timestamp(new) and new.tz is None)


def alike(found: pa.DataType, kind: pa.DataType) -> bool:
    """Say whether a file may have a column of the table in this type: its values are the same, however written."""
    types = pa.types
    if isinstance(found, pa.BaseExtensionType):
        return alike(found.storage_type, kind)
    if types.is_dictionary(found):
        return alike(found.value_type, kind)
    if found == kind or types.is_null(found):
        return True
    if types.is_struct(found) and types.is_struct(kind):
        places = [kind.get_field_index(field.name) for field in found]
        return all(place < 0 or alike(field.type, kind.field(place).type)
                   for field, place in zip(found, places, strict=True))  # fmt: skip
    if types.is_map(found) and types.is_map(kind):
        return alike(found.key_type, kind.key_type) and alike(found.item_type, kind.item_type)
    if _is_list(found) and _is_list(kind):
        return alike(found.value_type, kind.value_type)
    # Some writers leave out what tells text from bytes, how wide a number is, or that a time is UTC. What is not exact
    # then is found with the values.
    alternatives = (_is_text, types.is_integer, types.is_decimal, types.is_timestamp, types.is_date)
    return any(test(found) and test(kind) for test in alternatives) or widens(found, kind)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(),
                    pa.binary_view()) or bool(pa.types.is_fixed_size_binary(kind))  # fmt: skip
