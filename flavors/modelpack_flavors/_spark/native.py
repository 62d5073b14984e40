"""A Spark ML model run by Spark: rows in and answers out through Arrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelpack.flavor import Form
from modelpack_flavors._spark.session import session

__all__ = ["SparkPredictor", "load"]


class SparkPredictor:
    """Takes an Arrow table through ``model.transform`` and answers with the chosen columns, as an Arrow table.

    ``directory`` is where the model lies; ``keep`` what it lies there for as long as.
    """

    form: Form = "arrow"
    driver_only: bool = True

    def __init__(self, model: Any, wanted: Sequence[str], directory: Path, keep: object = None) -> None:
        self._model, self._wanted = model, tuple(wanted)
        self.directory, self._keep = directory, keep

    def predict(self, data: Any, params: Mapping[str, Any]) -> Any:
        """Return the columns of the answer."""
        from pyspark.ml.functions import vector_to_array
        from pyspark.sql import functions

        answer = self._model.transform(_rows(data))
        kinds = {field.name: type(field.dataType).__name__ for field in answer.schema.fields}
        chosen = []
        for name in self._wanted:
            column = functions.col(_quoted(name))
            chosen.append(vector_to_array(column).alias(name) if kinds.get(name) == "VectorUDT" else column)
        return _plain(answer.select(*chosen).toArrow())


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _rows(table: Any) -> Any:
    """Return the rows as Spark's: lists of numbers as vectors, categories as what they stand for."""
    import pyarrow as pa
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import functions

    columns, lists = {}, []
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        elif pa.types.is_unsigned_integer(kind):
            column = column.cast(pa.int64())
        elif pa.types.is_nested(kind) and _numeric(kind, pa):
            column = column.cast(pa.list_(pa.float64()))
            lists.append(name)
        columns[name] = column
    frame = session().createDataFrame(pa.table(columns))
    return frame.withColumns({name: array_to_vector(functions.col(_quoted(name))) for name in lists})


def _numeric(kind: Any, pa: Any) -> bool:
    """Say whether a type is of lists of numbers: what Spark ML holds as vectors."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    return bool(pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type))


def _plain(table: Any) -> Any:
    """Return the table with one spelling for each type, whatever Spark says of nulls in it."""
    import pyarrow as pa

    def kind(found: Any) -> Any:
        return pa.list_(kind(found.value_type)) if pa.types.is_list(found) else found

    schema = pa.schema([(field.name, kind(field.type)) for field in table.schema])
    return pa.table([column.cast(kind(column.type)).combine_chunks() for column in table.columns], schema=schema)


def load(directory: Path) -> Any:
    """Return the model in a directory whose audit has passed, or that is allowed to run code."""
    from pyspark.ml.util import DefaultParamsReader

    return DefaultParamsReader.loadParamsInstance(f"file://{directory}", session())
