"""A Spark ML model evaluated with NumPy, from its directory alone: no JVM, no pyspark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelpack import optional
from modelpack.audits.spark_ml import Stage
from modelpack.errors import PackageError
from modelpack.flavor import Form
from modelpack.frame import Frame
from modelpack_flavors._spark.columns import made, used
from modelpack_flavors._spark.features import STAGES, Step
from modelpack_flavors._spark.models import MODELS
from modelpack_flavors._spark.values import Columns, Value, columns, refuse, unsupported

__all__ = ["Evaluator", "build"]

# As many rows are scored first, and tell how many numbers a row takes; then as many as take so many numbers in all.
_FIRST, _NUMBERS = 64, 2**22


class Evaluator:
    """Takes coerced rows through the stages and answers with the chosen columns, as an Arrow table."""

    form: Form = "frame"

    def __init__(self, steps: Sequence[Step], wanted: Sequence[str]) -> None:
        self._steps, self._wanted = tuple(steps), tuple(wanted)

    def predict(self, data: Frame, params: Mapping[str, Any]) -> Any:
        """Return the columns of the answer; of many rows with wide vectors some are scored at a time."""
        pa = optional.require("pyarrow", what="A Spark ML model")
        tables: list[Any] = []
        start, size = 0, _FIRST
        while start < data.rows or not tables:
            found = self._scored(data if data.rows <= _FIRST else data.slice(start, start + size))
            tables.append(pa.table({name: _arrow(found[name], pa) for name in self._wanted}))
            start += size
            size = max(1, _NUMBERS // max(1, sum(_width(value) for value in found.values())))
        return tables[0] if len(tables) == 1 else pa.concat_tables(tables).combine_chunks()

    def _scored(self, data: Frame) -> Columns:
        if data.columns is None:
            refuse("the model takes a table")
        found = columns(data)
        for step in self._steps:
            step(found)
        return found


def _width(value: Value) -> int:
    return value.data.shape[1] if value.data.ndim == 2 else 1


def _arrow(value: Value, pa: Any) -> Any:
    data = value.data
    if data.ndim == 1:
        kind = pa.string() if data.dtype.kind == "O" else None
        return pa.array(data, type=kind, mask=value.missing)
    rows, width = data.shape
    offsets = pa.array(range(0, (rows + 1) * width, width) if width else [0] * (rows + 1), type=pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(data.reshape(-1)))


def build(model: Stage, wanted: Sequence[str]) -> Evaluator:
    """Return the evaluator for the wanted columns.

    Raises:
        FlavorError: a stage has no evaluation here (``conversion-unsupported``).
        PackageError: the stages lack what Spark writes (``payload-invalid``).
    """
    needed = list(used(model, wanted))
    own = {name for stage in needed for name in made(stage)}
    missing = [name for name in wanted if name not in own]
    if missing:
        unsupported(f"no stage makes the column {missing[0]!r}")
    steps = []
    for stage in model.flat():
        make = STAGES.get(stage.kind) or MODELS.get(stage.kind)
        if not stage.listed or make is None:
            unsupported(f"it has the stage {stage.name}")
        if stage not in needed:
            # Spark does not compute it either.
            continue
        try:
            steps.append(make(stage))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as exc:
            raise PackageError(
                f"a Spark ML model whose stage {stage.uid} lacks what Spark writes",
                code="payload-invalid",
                path=stage.uid,
            ) from exc
    return Evaluator(steps, wanted)
