"""Spark ML's feature stages with NumPy: each is made from a stage, and adds its columns to the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np

from modelpack.audits.spark_ml import Stage
from modelpack.audits.spark_ml_data import matrix, vector
from modelpack_flavors._spark.columns import made, reads
from modelpack_flavors._spark.values import (
    Array,
    Columns,
    Value,
    assembled,
    dot,
    numbers,
    refuse,
    unsupported,
    vectors,
)

__all__ = ["STAGES", "Step", "number"]

Step = Callable[[Columns], None]


def number(value: Any) -> float:
    """Return a number as Spark writes it: as JSON, or "NaN", "Inf" and "-Inf"."""
    return float(value)


def _invalid(stage: Stage) -> bool:
    """Return whether the stage keeps invalid values; one that drops rows is refused."""
    chosen = stage.params.get("handleInvalid", "error")
    if chosen == "skip":
        unsupported(f"{stage.kind} {stage.uid} leaves rows out")
    return bool(chosen == "keep")


def _assembler(stage: Stage) -> Step:
    keep, names, new = _invalid(stage), reads(stage), made(stage)[0]

    def step(found: Columns) -> None:
        found[new] = Value(assembled(found, names, keep=keep))

    return step


def _string_indexer(stage: Stage) -> Step:
    keep = _invalid(stage)
    row = stage.data[0]
    lists = row["labelsArray"] if "labelsArray" in row else [row["labels"]]
    indices = [{label: float(i) for i, label in enumerate(labels)} for labels in lists]
    pairs = list(zip(reads(stage), made(stage), indices, strict=True))

    def step(found: Columns) -> None:
        for old, new, index in pairs:
            # Spark passes over a column that is not there: the label, when there is none.
            if old in found:
                found[new] = Value(_indexed(old, found[old], index, keep))

    return step


def _indexed(name: str, value: Value, index: Mapping[str, float], keep: bool) -> Array:
    data = value.data
    if data.dtype.kind in "iu":
        texts: list[Any] = list(map(str, data.tolist()))
    elif data.dtype.kind == "b":
        texts = ["true" if one else "false" for one in data.tolist()]
    elif data.dtype.kind == "O":
        texts = _texts(name, value)
    else:
        unsupported(f"StringIndexer on column {name!r}, which holds neither texts nor integers")
    other = float(len(index)) if keep else np.nan
    codes = np.array([index.get(text, other) for text in texts], dtype=np.float64)
    if value.missing is not None:
        codes[value.missing] = other
    if not keep and np.isnan(codes).any():
        refuse(f"a value of column {name!r} is missing, or none that the model was trained on")
    return codes


def _texts(name: str, value: Value) -> list[Any]:
    """Return texts as they are, and decimals, which have the digits of their column, as Spark writes them."""
    found: list[Any] = value.data.tolist()
    if all(type(one) is str for one in found):
        return found
    gone = [False] * len(found) if value.missing is None else value.missing.tolist()
    for place, (one, missing) in enumerate(zip(found, gone, strict=True)):
        if missing:
            found[place] = None
        elif isinstance(one, Decimal):
            found[place] = format(one, "f")
        elif not isinstance(one, str):
            unsupported(f"StringIndexer on column {name!r}, which holds neither texts nor integers nor decimals")
    return found


def _index_to_string(stage: Stage) -> Step:
    old, new = reads(stage)[0], made(stage)[0]
    if not stage.params.get("labels"):
        unsupported(f"IndexToString {stage.uid} has no labels of its own")
    labels = np.array(stage.params["labels"], dtype=object)

    def step(found: Columns) -> None:
        codes = numbers(found, old)
        if not ((codes > -1) & (codes < len(labels))).all():
            refuse(f"a value of column {old!r} is no label's number")
        found[new] = Value(labels[codes.astype(np.int64)])

    return step


def _one_hot(stage: Stage) -> Step:
    keep, drop = _invalid(stage), bool(stage.params["dropLast"])
    triples = list(zip(reads(stage), made(stage), stage.data[0]["categorySizes"], strict=True))

    def step(found: Columns) -> None:
        for old, new, size in triples:
            codes = numbers(found, old)
            known = (codes >= 0) & (codes < size)
            if not keep and not known.all():
                refuse(f"a value of column {old!r} is no category's number")
            place = np.where(known, codes, size).astype(np.int64)
            width = size + 1 if keep and not drop else size - 1 if drop and not keep else size
            hot = np.zeros((len(codes), width))
            inside = np.flatnonzero(place < width)
            hot[inside, place[inside]] = 1.0
            found[new] = Value(hot)

    return step


def _bucketizer(stage: Stage) -> Step:
    keep = _invalid(stage)
    lists = stage.params["splitsArray"] if stage.chosen.get("inputCols") else [stage.params["splits"]]
    triples = list(zip(reads(stage), made(stage), [np.array(list(map(number, one))) for one in lists], strict=True))

    def step(found: Columns) -> None:
        for old, new, splits in triples:
            data = numbers(found, old)
            found[new] = Value(_bucketed(old, data, found[old].missing, splits, keep), found[old].missing)

    return step


def _bucketed(name: str, data: Array, missing: Array | None, splits: Array, keep: bool) -> Array:
    place = np.searchsorted(splits, data, side="right") - 1
    # Spark compares as Java does: -0.0 comes before 0.0.
    near = splits[np.clip(place, 0, None)]
    place = np.where((data == 0) & np.signbit(data) & (near == 0) & ~np.signbit(near), place - 1, place)
    place = np.where(data == splits[-1], len(splits) - 2, place)
    strange = np.isnan(data)
    null = missing if missing is not None else np.zeros(len(data), dtype=bool)
    outside = ~strange & ((place < 0) | (data > splits[-1]))
    if outside.any() or (not keep and (strange & ~null).any()):
        refuse(f"a value of column {name!r} is in no bucket")
    return np.where(strange, len(splits) - 1, place).astype(np.float64)


def _binarizer(stage: Stage) -> Step:
    names, new = reads(stage), made(stage)
    many = stage.chosen.get("thresholds")
    limits = [number(one) for one in many] if many else [number(stage.params["threshold"])] * len(names)
    triples = list(zip(names, new, limits, strict=True))

    def step(found: Columns) -> None:
        for old, name, limit in triples:
            value = found.get(old)
            data = vectors(found, old) if value is not None and value.data.ndim == 2 else numbers(found, old)
            # A missing value is not above the threshold.
            found[name] = Value((data > limit).astype(np.float64))

    return step


def _imputer(stage: Stage) -> Step:
    row, absent = stage.data[0], number(stage.params["missingValue"])
    triples = [(old, new, float(row[old])) for old, new in zip(reads(stage), made(stage), strict=True)]

    def step(found: Columns) -> None:
        for old, new, surrogate in triples:
            data = numbers(found, old)
            gone = np.isnan(data) if np.isnan(absent) else np.isnan(data) | (data == absent)
            raw = found[old].data
            # The answer is of the column's own type; Spark's integers have signs.
            kind = np.dtype(np.int64) if raw.dtype.kind == "u" else raw.dtype
            found[new] = Value(np.where(gone, np.array(surrogate).astype(kind), raw.astype(kind)))

    return step


def _scaler(stage: Stage, change: Callable[[Array], Array], size: int | None) -> Step:
    old, new = reads(stage)[0], made(stage)[0]

    def step(found: Columns) -> None:
        found[new] = Value(change(vectors(found, old, size)))

    return step


def _standard(stage: Stage) -> Step:
    row = stage.data[0]
    std, mean = vector(row["std"], stage.uid), vector(row["mean"], stage.uid)
    scale = np.divide(1.0, std, out=np.zeros_like(std), where=std != 0)
    shift = mean if stage.params["withMean"] else np.zeros_like(mean)
    if not stage.params["withStd"]:
        scale = np.ones_like(std)
    return _scaler(stage, lambda x: (x - shift) * scale, len(std))


def _min_max(stage: Stage) -> Step:
    row = stage.data[0]
    low, high = vector(row["originalMin"], stage.uid), vector(row["originalMax"], stage.uid)
    floor, top = number(stage.params["min"]), number(stage.params["max"])
    same = high == low
    scale = np.divide(top - floor, high - low, out=np.zeros_like(low), where=~same)
    middle = (floor + top) / 2

    def change(x: Array) -> Array:
        return np.where(np.isnan(x), x, np.where(same, middle, (x - low) * scale + floor))

    return _scaler(stage, change, len(low))


def _max_abs(stage: Stage) -> Step:
    top = vector(stage.data[0]["maxAbs"], stage.uid)
    scale = 1.0 / np.where(top == 0, 1.0, top)
    return _scaler(stage, lambda x: x * scale, len(top))


def _normalizer(stage: Stage) -> Step:
    p = number(stage.params["p"])

    def change(x: Array) -> Array:
        norm = np.linalg.norm(x, ord=p, axis=1, keepdims=True)
        return x / np.where(norm == 0, 1.0, norm)

    return _scaler(stage, change, None)


def _pca(stage: Stage) -> Step:
    components = matrix(stage.data[0]["pc"], stage.uid)
    return _scaler(stage, lambda x: dot(x, components), len(components))


STAGES: Mapping[str, Callable[[Stage], Step]] = {
    "Binarizer": _binarizer,
    "Bucketizer": _bucketizer,
    "ImputerModel": _imputer,
    "IndexToString": _index_to_string,
    "MaxAbsScalerModel": _max_abs,
    "MinMaxScalerModel": _min_max,
    "Normalizer": _normalizer,
    "OneHotEncoderModel": _one_hot,
    "PCAModel": _pca,
    "StandardScalerModel": _standard,
    "StringIndexerModel": _string_indexer,
    "VectorAssembler": _assembler,
}
