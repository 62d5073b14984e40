"""The fault codes of coercion, in one place (spec/errors.md lists the same)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["CODES"]

CODES: Mapping[str, str] = MappingProxyType(
    {
        "base64-invalid": "text for a binary value is not strict base64 (standard alphabet, padded, no white space)",
        "category-unknown": "a value is none of the column's categories",
        "column-duplicate": "a column of the signature was sent twice",
        "column-missing": "a column (or a key of one record) that is not optional was not sent",
        "column-unexpected": "a column the signature does not have, when extra columns are rejected",
        "data-invalid": "the data is none of the forms that can be read, or two of them",
        "decimal-invalid": "text for a decimal is not a decimal number",
        "duration-invalid": "text for a duration is not an ISO 8601 duration of weeks, days, hours, minutes, seconds",
        "field-missing": "a field of a struct that is not optional was not sent",
        "field-unexpected": "a field the struct does not have",
        "form-invalid": "an invocation does not hold exactly one of the four forms, or has keys it must not have",
        "json-unwritable": "a value has no JSON form (an infinity, an object)",
        "key-duplicate": "a map, or the JSON in a CSV cell, holds the same key twice",
        "name-invalid": "column names are not text",
        "not-exact": "the value exists but the type cannot hold it exactly",
        "not-whole": "a number with a fraction for an integer",
        "null-not-allowed": "a missing value (null, NaN, NaT) where none is allowed",
        "number-invalid": "text of a CSV cell is not a number",
        "out-of-range": "the value is outside the range of the type",
        "param-constraint": "a param is outside its constraints",
        "param-missing": "a param without a default was not sent",
        "param-unknown": "a param the signature does not have",
        "ragged": "rows, columns or nested lists that should be equally long are not",
        "rows-mismatch": "the model answered with another number of rows than it was given",
        "shape-mismatch": "a tensor has the wrong number of dimensions, or a dimension the wrong size",
        "tensor-missing": "a tensor that is not optional was not sent",
        "tensor-unexpected": "a tensor the signature does not have",
        "text-invalid": "text that is not valid Unicode (a lone surrogate, bytes that are not UTF-8)",
        "timestamp-invalid": "text for a date or time is not RFC 3339, or has or lacks an offset wrongly",
        "type-mismatch": "a value of another kind than the type",
    }
)
