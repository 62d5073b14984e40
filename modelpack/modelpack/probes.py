"""Rows made from an example to find where two models that should be one model differ (spec/08-flavors.md#twins).

Around the example: each number set to the column's ends, to zero, just beside itself in float64 and in float32, and to
both sides of every threshold the model has; missing values where they are allowed; columns shuffled against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from modelpack.frame import Frame, Vector
from modelpack.signature import Table, Tensors

__all__ = ["boundaries", "joined", "probes"]

Array = np.ndarray[Any, Any]
Thresholds = Mapping[str | int, Sequence[float]]

MAX_BASE = 64
MAX_THRESHOLDS = 4000
SHUFFLES = 4
# How far beside a boundary of a smooth model its twin must agree: far above float64's rounding, far below float32's.
BESIDE = 1e-9
_PAIRS = 64
_BATCH = 4096


def probes(frame: Frame, inputs: Table | Tensors | None, thresholds: Thresholds) -> list[Frame]:
    """Return the frames to compare the models on; the example first."""
    base = frame.slice(0, MAX_BASE)
    found = [frame]
    if base.rows == 0:
        return found
    chance = np.random.default_rng(0)
    for name in base:
        for place, values in _numbers(base, name):
            wanted = _candidates(values, thresholds.get(name, thresholds.get(place, ())))
            found.append(_set(base, name, place, wanted))
    if isinstance(inputs, Table):
        found += [
            _unset(base, column.name) for column in inputs.columns if column.nullable and column.name in _columns(base)
        ]
    for _ in range(SHUFFLES):
        found.append(_shuffled(base, chance))
    return [one for one in found if one.rows]


def joined(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield the same rows in fewer frames."""
    waiting: list[Frame] = []
    for frame in frames:
        if waiting and sum(one.rows for one in waiting) + frame.rows > _BATCH:
            yield _joined(waiting)
            waiting = []
        waiting.append(frame)
    if waiting:
        yield _joined(waiting)


def boundaries(frame: Frame, answers: Callable[[Frame], Array]) -> Frame | None:
    """Return rows close beside places where the labels change, found by halving the way between rows of the frame."""
    labels = answers(frame)
    if labels.ndim != 1 or len(labels) != frame.rows or labels.dtype.kind == "f":
        return None
    first, second = _pairs(labels)
    if not len(first):
        return None
    one, other = frame.take(first), frame.take(second)
    low, high = np.zeros(len(first)), np.ones(len(first))
    for _ in range(60):
        middle = (low + high) / 2
        same = answers(_between(one, other, middle)) == labels[first]
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return _joined([_between(one, other, low - BESIDE), _between(one, other, high + BESIDE)])


def _pairs(labels: Array) -> tuple[Array, Array]:
    order = np.arange(len(labels))
    first, second = [], []
    for step in (1, 2, 3, 5, 8, 13, 21, 34):
        other = np.roll(order, step)
        differ = np.flatnonzero(labels != labels[other])
        first += list(order[differ])
        second += list(other[differ])
    return np.array(first[:_PAIRS], dtype=np.intp), np.array(second[:_PAIRS], dtype=np.intp)


def _columns(frame: Frame) -> Mapping[str, Vector]:
    return frame.columns or {}


def _numbers(frame: Frame, name: str) -> Iterator[tuple[int, Array]]:
    """Yield (position, values) of each numeric column: the vector itself, or the columns of a matrix."""
    if frame.columns is not None:
        vector = frame.columns[name]
        if vector.data.dtype.kind in "iuf":
            yield list(frame.columns).index(name), vector.data
        return
    array = (frame.tensors or {})[name]
    if array.ndim == 2 and array.dtype.kind in "iuf":
        for place in range(min(array.shape[1], 512)):
            yield place, array[:, place]


def _candidates(values: Array, thresholds: Sequence[float]) -> Array:
    present = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not len(present):
        return values[:0]
    ends = [present.min(), present.max(), 0]
    if values.dtype.kind != "f":
        info = np.iinfo(values.dtype)
        beside = [int(value) + step for value in present[:3] for step in (-1, 1)]
        near = [int(np.floor(t)) + step for t in thresholds[:MAX_THRESHOLDS] if np.isfinite(t) for step in (0, 1)]
        return np.array([v for v in [*map(int, ends), *beside, *near] if info.min <= v <= info.max], values.dtype)
    sharp = np.concatenate([np.asarray(thresholds[:MAX_THRESHOLDS], np.float64), present[:8].astype(np.float64)])
    narrow = sharp.astype(np.float32)
    around = [sharp, narrow.astype(np.float64)]
    for end in (-np.inf, np.inf):
        around += [np.nextafter(sharp, end), np.nextafter(narrow, np.float32(end)).astype(np.float64)]
    wide = np.array([*ends, present.min() - 1, present.max() + 1], np.float64)
    found = np.unique(np.concatenate([*around, wide]))
    with np.errstate(over="ignore"):
        cast: Array = found.astype(values.dtype)
    finite: Array = cast[np.isfinite(cast)]
    return finite


def _set(base: Frame, name: str, place: int, values: Array) -> Frame:
    """Return rows of the base, in turn, with one column set to each value."""
    rows = base.take(np.arange(len(values)) % base.rows)
    if rows.columns is not None:
        return Frame(rows=rows.rows, columns={**rows.columns, name: _with(rows.columns[name], values)})
    array = (rows.tensors or {})[name].copy()
    array[:, place] = values
    return Frame(rows=rows.rows, tensors={**(rows.tensors or {}), name: array})


def _with(vector: Vector, values: Array) -> Vector:
    return Vector(type=vector.type, data=values)


def _unset(base: Frame, name: str) -> Frame:
    """Return the base with one column missing everywhere."""
    vector = _columns(base)[name]
    data = vector.data.copy()
    data[:] = {"f": np.nan, "M": "NaT", "m": "NaT", "O": None}.get(data.dtype.kind, 0)
    gone = Vector(type=vector.type, data=data, missing=np.ones(base.rows, dtype=bool))
    return Frame(rows=base.rows, columns={**_columns(base), name: gone})


def _shuffled(base: Frame, chance: np.random.Generator) -> Frame:
    if base.columns is not None:
        columns = {name: vector.take(chance.permutation(base.rows)) for name, vector in base.columns.items()}
        return Frame(rows=base.rows, columns=columns)
    tensors = {}
    for name, array in (base.tensors or {}).items():
        tensors[name] = chance.permuted(array, axis=0) if array.dtype.kind in "iuf" else array
    return Frame(rows=base.rows, tensors=tensors)


def _between(one: Frame, other: Frame, share: Array) -> Frame:
    """Return ``one`` moved towards ``other`` in all its floats, by a share for each row."""
    if one.columns is not None:
        columns = {
            name: Vector(type=vector.type, data=_mixed(vector.data, _columns(other)[name].data, share))
            if vector.data.dtype.kind == "f" and vector.missing is None and _columns(other)[name].missing is None
            else vector
            for name, vector in one.columns.items()
        }
        return Frame(rows=one.rows, columns=columns)
    theirs = other.tensors or {}
    tensors = {
        name: _mixed(array, theirs[name], share) if array.dtype.kind == "f" else array
        for name, array in (one.tensors or {}).items()
    }
    return Frame(rows=one.rows, tensors=tensors)


def _mixed(one: Array, other: Array, share: Array) -> Array:
    part = share.reshape(-1, *[1] * (one.ndim - 1))
    mixed: Array = (one + part * (other - one)).astype(one.dtype)
    return mixed


def _joined(frames: Sequence[Frame]) -> Frame:
    rows = sum(frame.rows for frame in frames)
    if frames[0].columns is not None:
        columns = {}
        for name, vector in frames[0].columns.items():
            parts = [_columns(frame)[name] for frame in frames]
            missing = [np.zeros(len(p), bool) if p.missing is None else p.missing for p in parts]
            gone = np.concatenate(missing)
            data = np.concatenate([p.data for p in parts])
            columns[name] = Vector(type=vector.type, data=data, missing=gone if gone.any() else None)
        return Frame(rows=rows, columns=columns)
    names = list(frames[0].tensors or {})
    return Frame(rows=rows, tensors={n: np.concatenate([(f.tensors or {})[n] for f in frames]) for n in names})
