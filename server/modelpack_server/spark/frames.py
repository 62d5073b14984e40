"""Scoring Spark DataFrames, in batch queries and in Structured Streaming."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from modelpack import coerce, loading, optional
from modelpack.errors import InputError, UsageError
from modelpack.model import Model
from modelpack.package import Package
from modelpack.signature import Table
from modelpack_server.batch.chunks import Chunk, Wanted
from modelpack_server.batch.feed import feed, wanted
from modelpack_server.batch.formats import Kind
from modelpack_server.batch.inputs import Source
from modelpack_server.batch.options import Options
from modelpack_server.codecs import answers
from modelpack_server.spark.columns import Answers, expected
from modelpack_server.spark.shipping import Shipped, ship

__all__ = ["score"]

_SOURCE = Source(path=Path("DataFrame"), kind=Kind(format="arrow"), stem="")


def score(
    df: Any,
    package: str | os.PathLike[str] | Package,
    *,
    keep: Sequence[str] | None = None,
    params: Mapping[str, Any] | None = None,
    allow_code: str | None = None,
    flavor: str | None = None,
) -> Any:
    """Return a DataFrame of kept columns and answers; rows are scored when it is computed (modelpack.spark.score).

    Raises:
        UsageError: no pyspark, Spark Connect, or columns that Spark cannot know beforehand.
        InputError: a column that the model needs is not there; params that do not fit.
        OutputError: an answer of a type that Spark does not have.
        TrustError, IntegrityError, FlavorError: as :func:`modelpack.load`, which is called here, on the driver.
    """
    types = optional.require("pyspark.sql.pandas.types", what="Scoring with Spark", extra="spark")
    if isinstance(keep, str):
        raise UsageError("keep is text, not a list of names", code="keep-invalid", path="keep", hint=f"keep=[{keep!r}]")
    context = _context(df)
    model = loading.load(package, allow_code=allow_code, flavor=flavor)
    values = coerce.params(params, model.signature)
    columns = wanted(model.signature, Options(keep=None if keep is None else tuple(keep)))
    strict = df.sparkSession.conf.get("spark.sql.caseSensitive", "false") == "true"
    _repeated(df.columns, str if strict else str.lower)
    _check(df.columns, columns, model)
    kept = columns.kept(df.columns)
    found = expected(model.signature, values, kept)
    names = columns.pick(df.columns)
    # Spark's mapInArrow does not find columns with dots in their names, so that in between they have others.
    needed = df.selectExpr(*[f"{_quoted(name)} AS c{place}" for place, name in enumerate(names)])
    job = _Job(shipped=ship(context, model), params=dict(values), names=names, keep=kept, answers=found)
    fields = [*df.select(*map(_quoted, kept)).schema.fields]
    fields += types.from_arrow_schema(found.schema, prefer_timestamp_ntz=True).fields

    def scored(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return job(batches)

    return needed.mapInArrow(scored, type(df.schema)(fields))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """What runs in Python workers."""

    shipped: Shipped
    params: Mapping[str, Any]
    names: Sequence[str]
    keep: Sequence[str]
    answers: Answers

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield kept columns and answers of each batch."""
        model = self.shipped.model()
        for batch in batches:
            if batch.num_rows:
                yield self._scored(model, batch.rename_columns(list(self.names)))

    def _scored(self, model: Model, batch: pa.RecordBatch) -> pa.RecordBatch:
        rows = batch.num_rows
        table = pa.Table.from_batches([batch])
        chunk = Chunk(source=_SOURCE, wire="python", data=table, numbers=np.arange(1, rows + 1))
        frame, _, _ = feed(chunk, model.signature, self.keep, tolerant=False)
        found = self.answers.fit(answers.to_table(model.score(frame, self.params), rows))
        fields = [batch.schema.field(name) for name in self.keep]
        arrays = [batch.column(name) for name in self.keep]
        return pa.RecordBatch.from_arrays([*arrays, *found], schema=pa.schema([*fields, *self.answers.schema]))


def _context(df: Any) -> Any:
    """Return the SparkContext of a DataFrame's session."""
    if ".connect." in type(df).__module__:
        raise UsageError(
            "a DataFrame of Spark Connect is not scored yet",
            code="spark-connect",
            hint="Use a session with its driver in this process (SparkSession.builder.master).",
        )
    return df.sparkSession.sparkContext


def _repeated(names: Sequence[str], same: Callable[[str], str]) -> None:
    """Refuse columns that are the same to Spark, which does not mind the case of letters unless it is told to."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.get(same(name))) is not None:
            both = f"{name!r}" if other == name else f"{other!r} and {name!r}, which are one to Spark"
            raise InputError(f"the DataFrame has two columns {both}", code="columns-repeated", hint="Rename one.")
        seen[same(name)] = name


def _check(names: Sequence[str], columns: Wanted, model: Model) -> None:
    for name in columns.keep or ():
        if name not in names:
            raise InputError(f"the DataFrame has no column {name!r} to keep", code="keep-missing", path="keep")
    inputs = model.signature.inputs
    for column in inputs.columns if isinstance(inputs, Table) else ():
        if column.name not in names and not column.optional:
            message = f"the DataFrame has no column {column.name!r}, which the model needs"
            raise InputError(message, code="column-missing")


def _quoted(name: str) -> str:
    """Return a column's name for Spark, to which dots and some others mean something."""
    return f"`{name.replace('`', '``')}`"
