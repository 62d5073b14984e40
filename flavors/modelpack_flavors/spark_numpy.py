"""Spark ML without Spark: what pyspark.ml wrote, evaluated with NumPy (docs/flavors/spark_numpy.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelpack.audits.spark_ml import Stage, inspect
from modelpack.errors import FlavorError, PackageError, SaveError
from modelpack.flavor import LoadContext, Predictor, SaveContext, Saved
from modelpack_flavors._spark import columns, evaluating, folder, options

__all__ = ["FLAVOR"]


@dataclass(frozen=True, slots=True)
class SparkNumpyFlavor:
    """Saves directories that ``model.write().save`` wrote, and evaluates them without a JVM.

    Option of save: ``columns`` (those of the answer).
    """

    name: str = "spark_numpy"
    version: str = "1"
    formats: Sequence[str] = ("spark-ml",)
    extra: str = "spark"

    def matches(self, model: object) -> int:
        """Return 50 for the path of a directory that Spark wrote a model into."""
        if not isinstance(model, str | Path):
            return 0
        return 50 if any(Path(model).glob("metadata/part-*")) else 0

    def save(self, model: object, context: SaveContext) -> Saved:
        """Copy the directory's files.

        Raises:
            UsageError: an unknown option, or one with an unknown value (``option-unknown``, ``option-invalid``).
            SaveError: the directory holds no model that is evaluated here (``model-invalid``, ``model-unsupported``).
        """
        options.check(self.name, context.options, ("columns",))
        if not isinstance(model, str | Path):
            raise SaveError("it is no path of a directory", code="model-unsupported")
        folder.copy(Path(model), context.directory)
        entry, found = folder.entry_of(context.directory)
        try:
            return _saved(found, entry, options.columns(found, context.options), context)
        except FlavorError as exc:
            raise SaveError(exc.message, code="model-unsupported", hint=exc.hint) from exc

    def convert(self, model: object, source: Saved, context: SaveContext) -> Saved:
        """Copy the files of a model that the flavor spark saved.

        Raises:
            FlavorError: a stage of it is not evaluated here (``conversion-unsupported``).
        """
        directory = getattr(source.predictor, "directory", None)
        if source.format != "spark-ml" or directory is None:
            raise FlavorError(
                "only models of the flavor spark are evaluated", code="conversion-unsupported", path="also"
            )
        folder.copy(directory, context.directory)
        entry, found = folder.entry_of(context.directory)
        return _saved(found, entry, options.config(source.config), context)

    def load(self, context: LoadContext) -> Predictor:
        """Build the evaluator from verified files, audited again here.

        Raises:
            PackageError: the directory is not what Spark writes, or a stage of it is not evaluated
                (``payload-invalid``).
        """
        entry = context.entry or ""
        try:
            return evaluating.build(inspect(context.files, entry), options.config(context.config))
        except FlavorError as exc:
            if exc.code != "conversion-unsupported":
                raise
            raise PackageError(exc.message, code="payload-invalid", path=entry, hint=exc.hint) from exc


def _saved(model: Stage, entry: str, wanted: Sequence[str], context: SaveContext) -> Saved:
    return Saved(
        format="spark-ml",
        entry=entry,
        predictor=evaluating.build(model, wanted),
        config={"columns": list(wanted)},
        declares=columns.declares(model),
        nulls=columns.nulls(model, wanted),
        inputs=columns.inputs(model, wanted, context.example),
        thresholds=columns.thresholds(model),
    )


FLAVOR = SparkNumpyFlavor()
