"""Spark ML: pipelines and models of pyspark.ml, run by Spark (docs/flavors/spark.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelpack.audits.spark_ml import inspect
from modelpack.errors import PackageError, SaveError
from modelpack.flavor import LoadContext, Predictor, SaveContext, Saved
from modelpack_flavors._spark import columns, folder, native, options

__all__ = ["FLAVOR"]


@dataclass(frozen=True, slots=True)
class SparkFlavor:
    """Saves and loads models of ``pyspark.ml``.

    Options of save: ``columns`` (those of the answer) and ``twin`` (False: none that needs no JVM).
    """

    name: str = "spark"
    version: str = "1"
    formats: Sequence[str] = ("spark-ml",)
    extra: str = "spark"

    def matches(self, model: object) -> int:
        """Return 50 for whatever is derived from a class of ``pyspark.ml``."""
        return 50 if any(base.__module__.startswith("pyspark.ml.") for base in type(model).__mro__) else 0

    def save(self, model: object, context: SaveContext) -> Saved:
        """Write the directory that Spark writes.

        Raises:
            UsageError: an unknown option, or one with an unknown value (``option-unknown``, ``option-invalid``).
            SaveError: it is not fitted, cannot be written, or would not be loaded (``model-unsupported``,
                ``model-invalid``).
        """
        options.check("spark", context.options, ("columns", "twin"))
        _write(model, context)
        entry, found = folder.entry_of(context.directory)
        unlisted = sorted({stage.name for stage in found.flat() if not stage.listed})
        wanted = options.columns(found, context.options)
        twin = context.options.get("twin", True) and not unlisted
        return Saved(
            format="spark-ml",
            entry=entry,
            predictor=native.SparkPredictor(model, wanted, context.directory / folder.HOME),
            config={"columns": list(wanted)},
            packages=("pyspark",),
            requires=("pyspark>=4",),
            declares=columns.declares(found),
            nulls=None if unlisted else columns.nulls(found, wanted),
            inputs=None if unlisted else columns.inputs(found, wanted, context.example),
            needs_code=bool(unlisted),
            twins=("spark_numpy",) if twin else (),
        )

    def load(self, context: LoadContext) -> Predictor:
        """Let Spark build the model from verified copies of its files, audited again here.

        Raises:
            UsageError: there is no pyspark, or no Java (``extra-missing``, ``java-missing``).
            PackageError: the directory is not what Spark writes (``payload-invalid``).
        """
        entry = context.entry or ""
        found = inspect(context.files, entry)
        if not context.code_allowed and not all(stage.listed for stage in found.flat()):
            raise PackageError("a stage is of a class that is not listed", code="payload-invalid", path=entry)
        directory = context.files.directory() / entry.rpartition("metadata/")[0].rstrip("/")
        wanted = options.config(context.config)
        return native.SparkPredictor(native.load(directory), wanted, directory, context.files)


def _write(model: object, context: SaveContext) -> None:
    if not (hasattr(model, "transform") and hasattr(model, "write")):
        raise SaveError(
            "it is no fitted model that Spark can write", code="model-unsupported", hint="Save what `fit` returns."
        )
    try:
        model.write().overwrite().save(f"file://{context.directory / folder.HOME}")
    except Exception as exc:
        raise SaveError(f"Spark cannot write the model: {type(exc).__name__}", code="model-unsupported") from exc


FLAVOR = SparkFlavor()
