"""Which columns a Spark ML model reads and makes, from the params of its stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelpack import infer
from modelpack.audits.spark_ml import Stage
from modelpack.errors import ModelpackError
from modelpack.signature import Table

__all__ = ["answers", "declares", "inputs", "made", "needed", "nulls", "reads", "thresholds", "used"]

_READS = ("featuresCol", "userCol", "itemCol", "offsetCol")
_ANSWERS = ("predictionCol", "probabilityCol")
_MAKES = (*_ANSWERS, "rawPredictionCol", "topicDistributionCol")


def reads(stage: Stage) -> tuple[str, ...]:
    """Return the columns that the stage takes."""
    params = stage.params
    if stage.chosen.get("inputCols"):
        return tuple(params["inputCols"])
    if stage.chosen.get("inputCol"):
        return (params["inputCol"],)
    return tuple(params[name] for name in _READS if params.get(name))


def made(stage: Stage) -> tuple[str, ...]:
    """Return the columns that the stage adds."""
    params = stage.params
    if stage.chosen.get("inputCols") and stage.chosen.get("outputCols"):
        return tuple(params["outputCols"])
    if "outputCol" in params and not _predicts(stage):
        return (params["outputCol"],)
    return tuple(params[name] for name in _MAKES if params.get(name))


def _predicts(stage: Stage) -> bool:
    return "predictionCol" in stage.params or "topicDistributionCol" in stage.params


def answers(model: Stage) -> tuple[str, ...]:
    """Return the columns that are the model's answer.

    What the last model in it predicts, with its probabilities, and what later stages make of that; without a model,
    what the last stage makes.
    """
    stages = model.flat()
    models = [i for i, stage in enumerate(stages) if _predicts(stage)]
    if not models:
        return made(stages[-1]) if stages else ()
    last = stages[models[-1]]
    predicted = [last.params[name] for name in _ANSWERS if last.params.get(name)]
    later = [name for stage in stages[models[-1] + 1 :] for name in made(stage)]
    return tuple(dict.fromkeys(predicted + later))


def used(model: Stage, wanted: Sequence[str]) -> Iterator[Stage]:
    """Yield the stages that the wanted columns need, last first."""
    needs = set(wanted)
    for stage in reversed(model.flat()):
        if needs & set(made(stage)):
            needs |= set(reads(stage))
            yield stage


def needed(model: Stage, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that rows must have for the wanted ones.

    A StringIndexer whose input is missing is passed over by Spark, so that a pipeline with one for its label scores
    rows without a label; every other stage needs what it reads.
    """
    required = list(used(model, wanted))
    own: set[str] = set()
    found: dict[str, None] = {}
    for stage in model.flat():
        if stage in required or stage.kind != "StringIndexerModel":
            found |= dict.fromkeys(name for name in reads(stage) if name not in own)
        own |= set(made(stage))
    return tuple(found)


def nulls(model: Stage, wanted: Sequence[str]) -> dict[str, bool]:
    """Return which of the needed columns may hold missing values: those that only stages read that fill them."""
    found = dict.fromkeys(needed(model, wanted), True)
    for stage in model.flat():
        keeps = stage.kind in ("StringIndexerModel", "VectorAssembler") and stage.params["handleInvalid"] == "keep"
        if stage.kind != "ImputerModel" and not keeps:
            found |= dict.fromkeys(set(reads(stage)) & set(found), False)
    return found


def declares(model: Stage) -> Mapping[str, Any]:
    """Return facts about the model, for people."""
    return {
        "spark": str(model.metadata.get("sparkVersion", "")),
        "stages": [stage.name for stage in model.flat()],
        "uid": model.uid,
    }


def inputs(model: Stage, wanted: Sequence[str], example: Any) -> Table | None:
    """Return the columns that the model reads, typed as in the example; None where the example has not all of them."""
    try:
        io = infer.io(example) if example is not None else None
    except ModelpackError:
        # What does not fit is told when the example is scored.
        return None
    if not isinstance(io, Table):
        return None
    typed = {column.name: column for column in io.columns}
    needs = needed(model, wanted)
    if not set(needs) <= set(typed):
        return None
    may = nulls(model, wanted)
    return Table(columns=tuple(typed[name].model_copy(update={"nullable": may[name]}) for name in needs))


def thresholds(model: Stage) -> dict[str | int, Sequence[float]]:
    """Return the values of raw columns at which trees and buckets change their answer."""
    origin = {name: name for name in needed(model, answers(model))}
    vectors: dict[str, list[str]] = {}
    found: dict[str, list[float]] = {}
    for stage in model.flat():
        if stage.kind == "ImputerModel":
            origin |= {new: origin[old] for old, new in zip(reads(stage), made(stage), strict=True) if old in origin}
        elif stage.kind == "VectorAssembler":
            vectors[stage.params["outputCol"]] = _leading(reads(stage), origin)
        elif stage.kind == "Bucketizer" and reads(stage)[0] in origin and "splits" in stage.params:
            found.setdefault(origin[reads(stage)[0]], []).extend(map(float, stage.params["splits"]))
        elif stage.trees is not None:
            names = vectors.get(stage.params["featuresCol"], [])
            inner = (stage.trees.left != stage.trees.right) & (stage.trees.row < 0)
            for feature, value in zip(stage.trees.feature[inner], stage.trees.threshold[inner], strict=True):
                if feature < len(names):
                    found.setdefault(names[feature], []).append(float(value))
    return {name: sorted(set(values)) for name, values in found.items()}


def _leading(parts: Sequence[str], origin: Mapping[str, str]) -> list[str]:
    """Return the raw columns at the start of an assembled vector, as far as each is one number."""
    found = []
    for part in parts:
        if part not in origin:
            break
        found.append(origin[part])
    return found
